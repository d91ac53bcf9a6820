"""Findings and runs as text and pictures."""
