"""The page-out daemon, its scans, and the vmdaemon (vm_pageout.c)."""
