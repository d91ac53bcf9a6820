"""Named repairs: changes that repair defects of the kernel.  Off by default."""
