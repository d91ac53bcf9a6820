"""Search strategies, one per file: they choose the next thread."""
