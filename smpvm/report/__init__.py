"""Findings and runs as people read them."""
