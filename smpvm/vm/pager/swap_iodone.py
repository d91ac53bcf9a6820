"""Swap requests and buffers, and the completion of a request (swp_pager_async_iodone)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds
from smpvm.vm.console import kprintf
from smpvm.vm.object.struct import VmObject
from smpvm.vm.page.struct import PG_SWAPINPROG, PG_SWAPPED
from smpvm.vm.pager.disk import Contents, Disk, Io, Slots
from smpvm.vm.pager.swap_meta import SWM_FREE, SwapSpace
from smpvm.vm.param import OBJT_SWAP, VM_PAGE_BITS_ALL

if TYPE_CHECKING:
    from smpvm.vm.page.pages import Page
    from smpvm.vm.vm import Vm

NSWBUF_KVA = 32
"""Number of buffers with address space for their pages; the limits below are shares of it."""

SWBIO_READ = 1
SWBIO_WRITE = 2
SWBIO_SYNC = 4


class SwapIo(Io):
    """A swap request; *swbio* is bio_caller_info1: SWBIO_READ, or SWBIO_WRITE and SWBIO_SYNC."""

    __slots__ = ("swbio",)

    swbio: int


class SwapCompletion(SwapSpace):
    """The swap device, its buffers, and the completion of requests."""

    @c("swap_pager_swap_init", "swap_pager.c:374-379", part=True)
    @holds("boot only", "")
    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        k = self.k
        self.disk = Disk(k, "swap", vm.config.swap_disk, vm.config.seed)
        self.store: dict[int, Contents] = {}
        self.swap_async_max = 4
        self.swap_burst_read = False
        self.nsw_rcount = self._slots("nsw_rcount", (NSWBUF_KVA + 1) // 2)
        self.nsw_wcount_sync = self._slots("nsw_wcount_sync", (NSWBUF_KVA + 3) // 4)
        self.nsw_wcount_async = self._slots("nsw_wcount_async", 4)
        self.nsw_wcount_async_max = 4

    def _slots(self, name: str, count: int) -> Slots:
        return self.k.new(Slots, self.k, name, count, self.relpbuf_wakes)

    @c("relpbuf", "vm_pager.c:659-660", part=True)
    def relpbuf_wakes(self, old: int) -> bool:
        """Whether releasing a buffer wakes the sleepers, given that *old* were free before.

        As in the C (relpbuf, vm_pager.c:659), only the second free buffer does: the test uses the
        count before the increment, but threads sleep while that count is 0.
        """
        return old == 1

    def _iodone(self, io: Io) -> None:
        assert isinstance(io, SwapIo)
        self.async_iodone(io)

    @c("swp_pager_async_iodone", "swap_pager.c:1721-1948", blocks=True)
    @holds("nothing (synchronous: the object held)")
    def async_iodone(self, io: SwapIo) -> None:
        """swp_pager_async_iodone, swap_pager.c:1721-1948: complete a read or write.

        For asynchronous requests this runs in the device's thread, which holds nothing.  Written
        pages lose one soft-busy reference; read pages are unbusied, except the one that the read
        was for.  May sleep for a busy page.
        """
        k = self.k
        k.curthread().hit("swp_pager_async_iodone")
        reading = io.swbio & SWBIO_READ
        if io.error:
            kprintf(k, "swap-io-error", io=io, cmd=io.cmd, error=io.error)
        # Read before the pages are released: afterwards they may leave the object.
        obj: VmObject | None = io.pages[0].object if io.pages else None
        for i, m in enumerate(io.pages):
            if reading:
                self.read_done(m, i == io.reqpage, io.error)
            elif io.error:
                self.write_error(m)
            else:
                self.write_done(m)
        if obj is not None:
            # Last, so that nobody who waits for the object's I/O finds a page of it still
            # soft-busy.
            self.vm.object.pip_wakeup_n(obj, len(io.pages))
        self.vm_token.get()
        if reading:
            slots = self.nsw_rcount
        elif io.swbio & SWBIO_SYNC:
            slots = self.nsw_wcount_sync
        else:
            slots = self.nsw_wcount_async
        (io.slots or slots).users.pop(io, None)
        slots.relpbuf(io)
        self.vm_token.release()

    @c("swp_pager_async_iodone", "swap_pager.c:1842-1887,1774-1814", part=True)
    @holds("m busied by its reader", "m unbusied unless requested")
    def read_done(self, m: Page, requested: bool, error: int) -> None:
        """One page of a read (:1774-1814, :1842-1887): set or clear valid and wake its reader."""
        page = self.vm.page
        if error:
            m.valid = 0
            page.flag_clear(m, PG_SWAPINPROG)
        else:
            m.valid = VM_PAGE_BITS_ALL
            page.undirty(m)
            page.flag_clear(m, PG_SWAPINPROG)
            page.flag_set(m, PG_SWAPPED)
        if requested:
            # The requested page stays busy for its reader, who waits for PG_SWAPINPROG.
            page.flash(m)
        else:
            page.deactivate(m)
            page.wakeup(m)

    @c("swp_pager_async_iodone", "swap_pager.c:1815-1841", part=True, blocks=True)
    @holds("m soft-busy", "soft busy released")
    def write_error(self, m: Page) -> None:
        """One page of a failed write (:1815-1841): free its swap and make it dirty again.

        The C does not hold the object here, although its swap metadata require it.
        """
        page = self.vm.page
        self.k.curthread().hit("swp_pager_async_iodone:write-error")
        # vm_page_io_finish needs PG_BUSY; the write left the page only soft-busy.
        page.busy_wait(m, False, "swadpg")
        obj = self._object_of(m)
        self.write_error_forget(obj, m)
        page.flag_clear(m, PG_SWAPPED)
        # The page is the only copy now.
        if obj.type == OBJT_SWAP:
            page.dirty(m)
            page.activate(m)
        page.flag_clear(m, PG_SWAPINPROG)
        page.io_finish(m)
        page.wakeup(m)

    @c("swp_pager_async_iodone", "swap_pager.c:1831-1832", part=True, blocks=True)
    @holds("m busied (the object should be held, and is not)")
    def write_error_forget(self, obj: VmObject, m: Page) -> None:
        """Free the swap of a page that could not be written (:1831)."""
        self.meta_ctl(obj, m.pindex, SWM_FREE)

    @c("swp_pager_async_iodone", "swap_pager.c:1888-1918", part=True, blocks=True)
    @holds("m soft-busy", "soft busy released")
    def write_done(self, m: Page) -> None:
        """One page of a successful write (:1889-1918): clean; deactivated if memory is severely
        short.
        """
        page = self.vm.page
        # vm_page_io_finish needs PG_BUSY; the write left the page only soft-busy.
        page.busy_wait(m, False, "swadpg")
        if self._object_of(m).type == OBJT_SWAP:
            page.undirty(m)
        page.flag_clear(m, PG_SWAPINPROG)
        page.flag_set(m, PG_SWAPPED)
        if self.vm.meter.count_severe():
            page.deactivate(m)
        page.io_finish(m)
        page.wakeup(m)

    def _object_of(self, m: Page) -> VmObject:
        obj: VmObject | None = m.object
        if obj is None:
            self.k.panic("null-object", f"{m} after its I/O", kind="fault")
        return obj
