"""VM objects: their pages, shadow chains, cleaning, collapse, end (vm_object.c)."""
