"""Conformance: run vectors recorded from the kernel's C against the model, and compare."""

from smpvm.conform.run import ConformReport, VectorResult, conform, run_vector
from smpvm.conform.vectors import VectorError, read_vectors

__all__ = ["ConformReport", "VectorError", "VectorResult", "conform", "read_vectors", "run_vector"]
