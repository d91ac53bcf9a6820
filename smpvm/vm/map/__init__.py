"""Address spaces: maps, entries, vmspaces, mmap (vm_map.c, vm_mmap.c)."""
