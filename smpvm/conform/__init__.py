"""Agreement with the kernel's own C: runs recorded vectors against the model, and compares."""

from smpvm.conform.run import Report, Result, conform, run_vector
from smpvm.conform.vectors import VectorError, read_vectors

__all__ = ["Report", "Result", "VectorError", "conform", "read_vectors", "run_vector"]
