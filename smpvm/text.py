"""Numbers in sentences."""

from __future__ import annotations

import re


def plural(n: int, word: str) -> str:
    """``1 execution``, ``2,000 executions``."""
    return f"{n:,} {word}" + "s" * (n != 1)


def nameless(text: str) -> str:
    """*text* without what changes from run to run: numbers."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", text)
