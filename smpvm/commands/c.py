"""What `smpvm c` prints: the C index, or one entry of it."""

from __future__ import annotations

import json
from collections.abc import Callable

from smpvm.exits import CLEAN
from smpvm.report import cindex


def command(name: str | None, *, as_json: bool = False, echo: Callable[[str], None]) -> int:
    """Print the entry of *name*, or the whole index.  Raises UnknownName (a ValueError)."""
    entries, mine = cindex.find(name) if name is not None else (cindex.index(), cindex.own())
    if as_json:
        functions = [cindex.as_json(entry) for entry in entries]
        own = [{"file": file, "name": method} for file, method in mine]
        echo(json.dumps({"functions": functions, "own": own}, indent=1))
    elif name is None:
        echo(cindex.markdown().rstrip("\n"))
    else:
        shown = ["\n".join(cindex.text(entry)) for entry in entries]
        shown += [f"{method}  {file}: the model's own, not in the C" for file, method in mine]
        echo("\n\n".join(shown))
    return CLEAN
