"""Schedulers and search over interleavings."""
