"""Numbers in sentences."""

from __future__ import annotations


def plural(n: int, word: str) -> str:
    """``1 execution``, ``2,000 executions``."""
    return f"{n:,} {word}" + "s" * (n != 1)
