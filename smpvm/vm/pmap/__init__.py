"""Hardware mappings: page table entries, pv entries, and the MMU's accesses (pmap.c)."""
