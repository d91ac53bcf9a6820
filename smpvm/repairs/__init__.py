"""Named repairs: changes that mend defects of the kernel.  Off by default."""
