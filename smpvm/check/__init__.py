"""Observers: they watch a machine through its probes and never change it."""
