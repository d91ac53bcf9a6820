"""What a page should hold if it were read again from where it came: swap, or its file."""

from __future__ import annotations

from typing import Any

from smpvm.config import PAGE_SIZE
from smpvm.kern.shared import peek
from smpvm.vm.page.struct import PG_SBUSY, PG_SWAPINPROG
from smpvm.vm.pager.vnode_io import WORD
from smpvm.vm.param import (
    OBJ_DEAD,
    OBJT_DEFAULT,
    OBJT_SWAP,
    OBJT_VNODE,
    SWAP_META_MASK,
    SWAPBLK_NONE,
)

Words = dict[int, int]


def differs(vm: Any, m: Any) -> str:
    """How the clean page *m* differs from its backing store; "" if not, or if it is in I/O."""
    obj = peek(m, "object")
    if obj is None or obj is vm.kernel_object or peek(obj, "flags") & OBJ_DEAD:
        return ""
    if peek(m, "busy") or peek(m, "flags") & (PG_SBUSY | PG_SWAPINPROG):
        return ""
    kind, pindex = peek(obj, "type"), peek(m, "pindex")
    if kind == OBJT_VNODE:
        where, stored, size = _file(vm, obj, pindex)
        if size <= 0:
            return ""
    elif kind in (OBJT_DEFAULT, OBJT_SWAP):
        where, stored = _swap(vm, obj, pindex)
        size = PAGE_SIZE
    else:
        return ""
    held: Words = m.contents or {}
    for word in sorted({*held, *stored}):
        mine, its = held.get(word, 0), stored.get(word, 0)
        if word * WORD < size and mine != its:
            return f"word {word} is {mine}, and {its} in {where}"
    return ""


def _file(vm: Any, obj: Any, pindex: int) -> tuple[str, Words, int]:
    """(name, words, how many bytes of the page are in the file)."""
    vp = peek(obj, "handle")
    if vp is None:
        return "", {}, 0
    file = vm.vnode_pager.file(vp)
    return f"block {pindex} of {vp}", file.blocks.get(pindex) or {}, file.size - pindex * PAGE_SIZE


def _swap(vm: Any, obj: Any, pindex: int) -> tuple[str, Words]:
    """(name, words) on swap; a page that was never written there can only be zeros."""
    block = obj.swblock_root.get(pindex & ~SWAP_META_MASK)
    number = SWAPBLK_NONE if block is None else block.swb_pages[pindex & SWAP_META_MASK]
    if number == SWAPBLK_NONE:
        return "no block", {}
    return f"swap block {number}", vm.swap.store.get(number) or {}
