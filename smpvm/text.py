"""Text that people read and write: numbers in sentences, numbers on the command line, quotes."""

from __future__ import annotations

import re
from typing import Final

_WHOLE: Final = re.compile(r"[+-]?(0[xX][0-9a-fA-F]{1,32}|[0-9]{1,40})")
_REAL: Final = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")
QUOTED: Final = 60
"""Characters of a value that an error message repeats."""


def plural(n: int, word: str) -> str:
    """``1 execution``, ``2,000 executions``."""
    return f"{n:,} {word}" + "s" * (n != 1)


def whole(text: str) -> int:
    """The integer that *text* spells: ASCII digits, or ``0x`` and hex digits, with or without sign.

    ``int`` would also take ``1_000`` and digits of other scripts.  Raises ValueError.
    """
    word = text.strip()
    if not _WHOLE.fullmatch(word):
        raise ValueError(f"{quoted(text)} is not a whole number")
    return int(word, 16 if "x" in word.lower() else 10)


def real(text: str) -> float:
    """The finite decimal number that *text* spells in ASCII.  Raises ValueError."""
    word = text.strip()
    if not _REAL.fullmatch(word) or abs(value := float(word)) == float("inf"):
        raise ValueError(f"{quoted(text)} is not a number")
    return value


def quoted(value: object) -> str:
    """``repr`` of a value that somebody else made, cut where it is long."""
    return brief(repr(value[: 2 * QUOTED] if isinstance(value, str | bytes) else value))


def brief(text: str, most: int = QUOTED) -> str:
    """*text*, its middle left out where it is longer than *most* characters."""
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail - 3]}...{text[-tail:]}"


def printable(text: str) -> str:
    """*text* with control characters and broken Unicode as escapes.

    A file from a stranger must not be able to move the cursor or to break the output's encoding.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def nameless(text: str) -> str:
    """*text* without what changes from run to run: numbers."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", text)
