"""VM objects: their pages, shadow chains, cleaning, collapse and termination (vm_object.c)."""
