"""The exit codes of every command."""

from typing import Final

CLEAN: Final = 0
FOUND: Final = 1
"""There are findings."""
USAGE: Final = 2
"""The command, a file or an option cannot be used as given."""
INCONCLUSIVE: Final = 3
"""Nothing was found, but not everything was tried: interrupted, or out of budget."""
BROKEN: Final = 4
"""smpvm itself failed."""
