"""The swap, vnode and device pagers, and the syncer (vm_pager.c, swap_pager.c, vnode_pager.c)."""
