"""The bitmap of free swap blocks (kern/subr_blist.c), with that allocator's limits.

A run of blocks never crosses a multiple of BLIST_MAX_ALLOC, and the lowest run that fits is taken.
The C keeps a radix tree of 32-bit leaves with size hints; here a tree of maxima over the leaves
shows where a run fits, also in logarithmic time.
"""

from __future__ import annotations

from smpvm.config import BLIST_MAX_ALLOC
from smpvm.kern.cname import c, holds
from smpvm.vm.param import SWAPBLK_NONE

WORD = BLIST_MAX_ALLOC


def longest_run(bits: int) -> int:
    """The length of the longest run of ones in *bits*."""
    n = 0
    while bits:
        bits &= bits >> 1
        n += 1
    return n


def first_run(bits: int, count: int) -> int:
    """The lowest bit at which *count* ones start; -1 if there is none."""
    have = 1
    while have < count:
        step = min(have, count - have)
        bits &= bits >> step
        have += step
    return (bits & -bits).bit_length() - 1


class Blist:
    """Which of *blocks* swap blocks are free; initially all."""

    __slots__ = ("_best", "_free", "_leaves", "blocks", "free_count")

    @c("blist_create", "subr_blist.c:169-211")
    @holds("boot only", "")
    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.free_count = blocks
        words = (blocks + WORD - 1) // WORD
        self._free = [(1 << min(WORD, blocks - i * WORD)) - 1 for i in range(words)]
        self._leaves = 1
        while self._leaves < max(words, 1):
            self._leaves *= 2
        self._best = [0] * (2 * self._leaves)
        for i, bits in enumerate(self._free):
            self._best[self._leaves + i] = bits.bit_length()
        for i in range(self._leaves - 1, 0, -1):
            self._best[i] = max(self._best[2 * i], self._best[2 * i + 1])

    @c("blist_alloc", "subr_blist.c:226-241")
    @holds("vm_token")
    def alloc(self, count: int) -> int:
        """blist_alloc: *count* (1..BLIST_MAX_ALLOC) blocks; returns the first, or SWAPBLK_NONE."""
        if not 1 <= count <= WORD or self._best[1] < count:
            return SWAPBLK_NONE
        node = 1
        while node < self._leaves:
            node *= 2
            if self._best[node] < count:
                node += 1
        word = node - self._leaves
        bit = first_run(self._free[word], count)
        self._set(word, self._free[word] & ~(((1 << count) - 1) << bit))
        self.free_count -= count
        return word * WORD + bit

    @c("blist_free", "subr_blist.c:266-276")
    @holds("vm_token")
    def free(self, block: int, count: int) -> None:
        """blist_free: free *count* blocks from *block* on; ValueError if one is already free."""
        if block < 0 or block + count > self.blocks:
            raise ValueError(f"swap blocks {block}..{block + count - 1} of {self.blocks}")
        self.free_count += count
        while count:
            word, bit = divmod(block, WORD)
            n = min(count, WORD - bit)
            mask = ((1 << n) - 1) << bit
            if self._free[word] & mask:
                self.free_count -= count
                raise ValueError(f"swap block {block} freed twice")
            self._set(word, self._free[word] | mask)
            block += n
            count -= n

    def is_free(self, block: int) -> bool:
        """Whether *block* is free."""
        return bool(self._free[block // WORD] >> block % WORD & 1)

    def _set(self, word: int, bits: int) -> None:
        self._free[word] = bits
        best, node = self._best, self._leaves + word
        best[node] = longest_run(bits)
        while node > 1:
            node //= 2
            best[node] = max(best[2 * node], best[2 * node + 1])
