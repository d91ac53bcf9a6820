"""Processes as the VM sees them: fork, exec, exit, swap-out (vm_glue.c)."""
