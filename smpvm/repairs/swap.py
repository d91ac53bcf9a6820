"""Repairs of swap_pager.c and of the buffers of vm_pager.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.repairs.base import repair
from smpvm.vm.pager.swap import SwapPager

if TYPE_CHECKING:
    from smpvm.vm.object.struct import VmObject
    from smpvm.vm.page.pages import Page


@repair(
    "swap-error-hold",
    "hold the object when a failed asynchronous swap write forgets its blocks",
    "swp_pager_async_iodone (swap_pager.c:1831)",
)
class SwapErrorHold(SwapPager):
    """Hold the object where a failed asynchronous write forgets the swap of its pages.

    swp_pager_async_iodone (swap_pager.c:1831) calls swp_pager_meta_ctl, which asserts that the
    object is held; the device's thread holds nothing.
    """

    def write_error_forget(self, obj: VmObject, m: Page) -> None:
        """The same, with the object held: may block for its token."""
        self.vm.object.hold(obj)
        super().write_error_forget(obj, m)
        self.vm.object.drop(obj)


@repair(
    "buffer-wakeup",
    "wake who sleeps for an I/O buffer at the first free one, not at the second",
    "relpbuf (vm_pager.c:659)",
)
class BufferWakeup(SwapPager):
    """Wake those who sleep for a buffer when the first one is free.

    relpbuf (vm_pager.c:659) compares the count before its addition with 1 instead of 0.
    """

    def relpbuf_wakes(self, old: int) -> bool:
        """At 0 to 1: what getpbuf sleeps for."""
        return old == 0
