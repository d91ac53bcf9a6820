"""The page fault (vm_fault.c)."""
