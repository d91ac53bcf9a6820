"""The page: its struct, queues, flags, busy state, allocation, waiting (vm_page.c)."""
