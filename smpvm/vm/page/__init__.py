"""Physical pages: the page structure, queues, busy bits, allocation (vm_page.c, vm_page2.h)."""
