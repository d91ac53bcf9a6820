"""Numbers and foreign text in sentences."""

from __future__ import annotations

import re
from typing import Final

ECHOED: Final = 60
"""Characters of a user's own value that an error line repeats."""
_NUMBER: Final = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19})", re.ASCII)


def plural(n: int, word: str) -> str:
    """``1 execution``, ``2,000 executions``."""
    return f"{n:,} {word}" + "s" * (n != 1)


def short(text: str) -> str:
    """*text* as an error line repeats it: cut to about 60 characters."""
    return text if len(text) <= ECHOED else text[: ECHOED - 3] + "..."


def printable(text: str) -> str:
    """*text* with control characters and broken Unicode as escapes.

    A file from a stranger must not be able to move the cursor or to break the output's encoding.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def number(text: str) -> int:
    """The whole number that *text* says, decimal or 0x.  Raises ValueError.

    ``int`` would also take 1_000 and the digits of every other script.
    """
    text = text.strip(" ")
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"{short(repr(text))} is not a whole number")
    return int(text, 16) if "x" in text.lower() else int(text)


def nameless(text: str) -> str:
    """*text* without what changes from run to run: numbers."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", text)
