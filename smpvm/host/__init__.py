"""How Python carries a kernel thread: the carriers, and what may be watched."""
