"""Address spaces: maps, map entries, vmspaces, the memory system calls (vm_map.c, vm_mmap.c)."""
