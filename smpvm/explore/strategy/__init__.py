"""How the next thread is chosen: one strategy, one file."""
