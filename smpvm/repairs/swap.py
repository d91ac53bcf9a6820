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
    "Hold the object when a failed asynchronous swap write frees its blocks",
    "swp_pager_async_iodone (swap_pager.c:1830-1832)",
)
class SwapErrorHold(SwapPager):
    """Hold the object while a failed asynchronous write frees the swap of its pages.

    swp_pager_async_iodone (swap_pager.c:1830-1832) calls swp_pager_meta_ctl, whose look-up asserts
    that the object is held; the device's thread holds nothing.
    """

    def write_error_forget(self, obj: VmObject, m: Page) -> None:
        """The same with the object held: may block on its token."""
        self.vm.object.hold(obj)
        super().write_error_forget(obj, m)
        self.vm.object.drop(obj)


@repair(
    "buffer-wakeup",
    "Wake threads waiting for an I/O buffer when the first one is freed, not the second",
    "relpbuf (vm_pager.c:659)",
)
class BufferWakeup(SwapPager):
    """Wake threads waiting for a buffer when the first one becomes free.

    relpbuf (vm_pager.c:659) compares the count before its addition with 1 instead of 0.
    """

    def relpbuf_wakes(self, old: int) -> bool:
        """From 0 to 1: what getpbuf sleeps for."""
        return old == 0
