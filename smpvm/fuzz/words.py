"""What every word must read as: the oracle of contents.

Each thread writes a word of its own in each page (and each page has one that nobody writes after
the start), and every value is written once.  So a read must give the value that was written last;
while a write is under way, that one too.  Where an operation of the program may lose contents by
its meaning (a truncate, MADV_FREE), any value that the word ever had is right, and zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from smpvm.check.contents import COUNTER_BITS, Contents, show_value
from smpvm.check.finding import Finding, FindingLog

if TYPE_CHECKING:
    from smpvm.fuzz.shape import Program

BASE: Final = 0
"""The word of a page that nobody writes after the start; a thread's is its number, from 1 on."""


class StaleData(AssertionError):
    """A word was not what it must be: ends the execution where it was read."""

    kind = "stale-data"


class Lost(AssertionError):
    """The kernel refuses an access to what is mapped."""

    kind = "stale-data"


def _raise(finding: Finding) -> None:
    raise StaleData(finding.title + "; " + "; ".join(finding.evidence))


class Word:
    """The values that one word had, oldest first, and how many of them are surely there."""

    __slots__ = ("done", "loose", "values")

    def __init__(self, first: int = 0) -> None:
        self.values = [first]
        self.done = 1
        self.loose = False

    def copy(self) -> Word:
        """For a child."""
        new = Word()
        new.values, new.done, new.loose = list(self.values), self.done, self.loose
        return new


Key = tuple[str, int, int]
"""Region, page, word."""


class Space:
    """The words of one address space; those of shared regions are in the machine's."""

    def __init__(self, words: dict[Key, Word] | None = None) -> None:
        self.words: dict[Key, Word] = words or {}

    def fork(self, mine: int) -> Space:
        """The child's: what other threads than number *mine* were writing may be old or new."""
        words = {key: word.copy() for key, word in self.words.items()}
        for (_, _, n), word in words.items():
            word.loose |= n not in (BASE, mine)
        return Space(words)


class Oracle:
    """The contents of one machine."""

    def __init__(self, program: Program, looser: Callable[[str], str]) -> None:
        self.program = program
        self.contents = Contents(FindingLog(on_new=_raise))
        self.looser = looser
        """Region → what its words may be read as: "", "words", "access"."""
        self.common = Space()
        self._count = 0

    def fresh(self, number: int) -> int:
        """A value of thread *number* that nobody has written before."""
        self._count += 1
        return number + 1 << COUNTER_BITS | self._count

    def begin(self, space: Space, key: Key, value: int) -> None:
        """*value* is about to be written."""
        space.words.setdefault(key, Word()).values.append(value)

    def end(self, space: Space, key: Key) -> None:
        """It has been: nobody may read an older one."""
        word = space.words[key]
        word.done = len(word.values)

    def since(self, space: Space, key: Key) -> int:
        """Call before a read; hand the result to ``check``."""
        word = space.words.get(key)
        return 1 if word is None else word.done

    def check(self, td: Any, space: Space, key: Key, since: int, got: int, where: str = "") -> None:
        """Compare what was read of *key*.  Raises StaleData."""
        word = space.words.get(key) or Word()
        region, page, n = key
        right: list[int] = word.values[since - 1 :]
        if word.loose or self.looser(region):
            right = [0, *word.values]
        self.contents.add_checked(1)
        if got not in right:
            want = " or ".join(map(show_value, dict.fromkeys(right)))
            what = f"word {n} of {region}+{page}"
            self.contents.stale(td, "memory", what, got, want, where)

    def keys(self, space: Space) -> Iterator[Key]:
        """Every word that is known of *space*."""
        return iter(sorted(space.words))
