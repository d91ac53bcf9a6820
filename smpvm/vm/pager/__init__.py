"""Pagers: swap, vnode, the devices and the syncer (vm_pager.c, swap_pager.c, vnode_pager.c)."""
