"""The resident pages of one object, by page index: the rb_memq tree.

Lookups use a dict, ordered walks a sorted list of the indexes.  A scan tolerates changes to the
tree made by its callback, or by other threads while the callback blocks, exactly as RB_SCAN does:
the next page is chosen before the callback runs, and only removing that page moves the choice on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sortedcontainers import SortedList

from smpvm.kern.cname import c, holds

if TYPE_CHECKING:
    from smpvm.vm.page.struct import Page


class _Scan:
    """struct rb_tree's scan info: the next index, None at the end."""

    __slots__ = ("link",)

    @c("RB_SCAN_INFO", "tree.h:302-306")
    def __init__(self, link: int | None) -> None:
        self.link = link


class PageTree:
    """vm_page_rb_tree.

    Protected by the object's token: exclusive to change it, shared to read it.
    """

    __slots__ = ("_keys", "_pages", "_scans")

    def __init__(self) -> None:
        self._pages: dict[int, Page] = {}
        self._keys: Any = None  # SortedList[int]; built by the first ordered lookup
        self._scans: list[_Scan] = []

    def __len__(self) -> int:
        return len(self._pages)

    def __contains__(self, pindex: object) -> bool:
        return pindex in self._pages

    def __iter__(self) -> Iterator[Page]:
        """The pages in ascending order of index, as of now."""
        return iter([self._pages[p] for p in sorted(self._pages)])

    @c("RB_LOOKUP", "tree.h:972")
    @holds("the object's token (shared is enough)")
    def lookup(self, pindex: int) -> Page | None:
        """RB_LOOKUP."""
        return self._pages.get(pindex)

    @c("RB_INSERT", "tree.h:969")
    @holds("the object's token, exclusive")
    def insert(self, pindex: int, m: Page) -> bool:
        """RB_INSERT.  Returns False and changes nothing if *pindex* is taken."""
        if self._pages.setdefault(pindex, m) is not m:
            return False
        if self._keys is not None:
            self._keys.add(pindex)
        return True

    @c("RB_REMOVE", "tree.h:970")
    @holds("the object's token, exclusive")
    def remove(self, pindex: int) -> Page | None:
        """RB_REMOVE.

        Returns the page.  A scan that had chosen it as its next page moves on to the one after.
        """
        m = self._pages.pop(pindex, None)
        if m is not None:
            if self._keys is not None:
                self._keys.remove(pindex)
            for scan in self._scans:
                if scan.link == pindex:
                    scan.link = self._next_key(pindex + 1)
        return m

    @c("RB_FIRST", "tree.h:976")
    @holds("the object's token (shared is enough)")
    def first(self, start: int = 0) -> Page | None:
        """The page with the lowest index >= *start* (RB_FIRST, RB_NFIND)."""
        key = self._next_key(start)
        return None if key is None else self._pages[key]

    @c("RB_NEXT", "tree.h:977")
    @holds("the object's token (shared is enough)")
    def next(self, pindex: int) -> Page | None:
        """RB_NEXT: the page after index *pindex*."""
        return self.first(pindex + 1)

    @c("RB_MAX", "tree.h:980")
    @holds("the object's token (shared is enough)")
    def last(self) -> Page | None:
        """RB_MAX."""
        keys = self._sorted()
        return self._pages[keys[-1]] if keys else None

    @c("RB_SCAN", "tree.h:739-781", blocks=True)
    @c("rb_vm_page_scancmp", "vm_page.c:518-528")
    @holds(
        "the object's token (shared is enough)",
        "the object's token (shared is enough) (lost where the callback blocks)",
    )
    def scan(self, callback: Callable[[Page], int], start: int = 0, end: int | None = None) -> int:
        """RB_SCAN over start <= index <= *end* (None: all), ascending.

        If *callback* returns a negative value the scan ends and returns it; otherwise the scan
        returns the sum of all results.
        """
        key = self._next_key(start)
        scan = _Scan(None)
        self._scans.append(scan)
        count = 0
        try:
            while key is not None and (end is None or key <= end):
                scan.link = self._next_key(key + 1)
                got = callback(self._pages[key])
                if got < 0:
                    return got
                count += got
                key = scan.link
        finally:
            self._scans.remove(scan)
        return count

    def _sorted(self) -> Any:
        keys = self._keys
        if keys is None:
            keys = self._keys = SortedList(self._pages)
        return keys

    def _next_key(self, start: int) -> int | None:
        if start in self._pages:
            return start
        key: int | None = next(self._sorted().irange(minimum=start), None)
        return key
