"""Agreement with the kernel's own C: runs recorded vectors against the model, and compares."""

from smpvm.conform.run import ConformReport, VectorResult, conform, run_vector
from smpvm.conform.vectors import VectorError, read_vectors

__all__ = ["ConformReport", "VectorError", "VectorResult", "conform", "read_vectors", "run_vector"]
