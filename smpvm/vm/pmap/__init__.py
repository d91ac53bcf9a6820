"""Hardware mappings: page table words, pv entries, the walk that the hardware makes (pmap.c)."""
