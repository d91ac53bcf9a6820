"""Carriers: how Python runs kernel threads."""
