"""How a command says to its caller how it went: exit codes."""

from typing import Final

CLEAN: Final = 0
FOUND: Final = 1
USAGE: Final = 2
INCONCLUSIVE: Final = 3
"""Nothing was found, but it ended before a promise could be made."""
BROKEN: Final = 4
"""The tool itself failed."""
