"""The two busy states of a page: PG_BUSY, owned by one thread, and the soft busy count for I/O."""

from __future__ import annotations

from collections.abc import Callable

from smpvm.kern.cname import c, holds, primitive
from smpvm.kern.tsleep import PINTERLOCKED
from smpvm.vm.page.bits import PageBits
from smpvm.vm.page.struct import (
    PG_BUSY,
    PG_MAPPED,
    PG_REFERENCED,
    PG_SBUSY,
    PG_WANTED,
    PG_WRITEABLE,
    Page,
)
from smpvm.vm.param import VM_PROT_NONE, VM_PROT_READ


class PageBusy(PageBits):
    """Setting, waiting for and clearing PG_BUSY."""

    @c("vm_page_busy_try", "vm_page.c:857-878")
    @holds("", "on False (success) m busied")
    @primitive
    def busy_try(self, m: Page, also_m_busy: bool) -> bool:
        """vm_page_busy_try, vm_page.c:857-878: set PG_BUSY unless the page is busy.

        With *also_m_busy* a soft-busy page counts as busy too.  Returns True if it FAILED.  Never
        blocks; any lock may be held.
        """
        refuse = PG_BUSY | PG_SBUSY if also_m_busy else PG_BUSY
        cmpset = self.atomic.cmpset_int
        while True:
            flags = m.flags
            if flags & refuse:
                return True
            if cmpset(m, "flags", flags, flags | PG_BUSY):
                self._busied(m)
                return False

    @c("vm_page_busy_wait", "vm_page.c:816-849", blocks=True)
    @holds("no spinlock", "m busied")
    @primitive
    def busy_wait(self, m: Page, also_m_busy: bool, msg: str) -> None:
        """vm_page_busy_wait, vm_page.c:816-849.

        Like busy_try, but sleeps until the page can be busied.

        Blocks in tsleep on the page: no spinlock may be held, and tokens are released while asleep.
        """
        if (f := self.k.probe.page_want) is not None:
            f(self.k.curthread(), m, also_m_busy)
        refuse = PG_BUSY | PG_SBUSY if also_m_busy else PG_BUSY
        cmpset = self.atomic.cmpset_int
        while True:
            flags = m.flags
            if flags & refuse:
                self._wait(m, flags, refuse, msg)
            elif cmpset(m, "flags", flags, flags | PG_BUSY):
                self._busied(m)
                return

    @c("vm_page_sleep_busy", "vm_page.c:727-747", blocks=True)
    @holds("no spinlock", "")
    @primitive
    def sleep_busy(self, m: Page, also_m_busy: bool, msg: str) -> bool:
        """vm_page_sleep_busy, vm_page.c:727-747: if *m* is busy, sleep once until it is released.

        Does not busy the page, which may be busy again on return.  Blocks.  Returns whether it
        slept (the C returns nothing).
        """
        refuse = PG_BUSY | PG_SBUSY if also_m_busy else PG_BUSY
        while True:
            flags = m.flags
            if not flags & refuse:
                return False
            if self._wait(m, flags, refuse, msg):
                return True

    @c("vm_page_busy_wait", "vm_page.c:826-837", part=True, blocks=True)
    @c("vm_page_sleep_busy", "vm_page.c:740-745", part=True)
    @holds("no spinlock", "")
    @primitive
    def _wait(self, m: Page, flags: int, refuse: int, msg: str) -> bool:
        """One attempt to sleep: interlock, set PG_WANTED if the flags are still *flags*, then
        tsleep.

        Returns whether it slept.  If the flags had changed it did not, and the caller tests them
        again.
        """
        k = self.k
        # The interlock comes before PG_WANTED is set: once it is set, the owner may clear it and
        # call wakeup() at any moment, and that wakeup must not be lost.
        k.sleep.tsleep_interlock(m)
        if not self.atomic.cmpset_int(m, "flags", flags, flags | PG_WANTED | PG_REFERENCED):
            return False
        if (f := k.probe.page_block) is not None:
            f(k.curthread(), m, bool(refuse & PG_SBUSY))
        k.sleep.tsleep(m, PINTERLOCKED, msg, 0, cond=self._free_cond(m, refuse))
        return True

    @primitive
    def _free_cond(self, m: Page, refuse: int) -> Callable[[], bool]:
        return lambda: not m.flags & refuse

    @primitive
    def _busied(self, m: Page) -> None:
        k = self.k
        td = m.busy_owner = k.curthread()
        if (f := k.probe.page_busied) is not None:
            f(td, m)

    @c("_vm_page_wakeup", "vm_page.c:889-904")
    @holds("m busied; page spinlock; its queue not locked", "page spinlock")
    @primitive
    def _wakeup(self, m: Page) -> bool:
        """_vm_page_wakeup, vm_page.c:889-904.

        Clear PG_BUSY.  Returns True if the caller must call wakeup().

        The page's spinlock is held on entry and return; its queue must not be locked.
        """
        k = self.k
        if (f := k.probe.page_unbusied) is not None:
            f(k.curthread(), m)
        m.busy_owner = None
        cmpset = self.atomic.cmpset_int
        while True:
            flags = m.flags
            if cmpset(m, "flags", flags, flags & ~(PG_BUSY | PG_WANTED)):
                return flags & PG_WANTED != 0

    @c("vm_page_wakeup", "vm_page.c:916-921", part=True)
    @holds("m busied; page spinlock", "nothing")
    @primitive
    def wakeup_unlock(self, m: Page) -> None:
        """The usual end in the C: clear PG_BUSY, unlock the page, then wake its waiters."""
        if self._wakeup(m):
            self.pool.unlock(m)
            self.k.sleep.wakeup(m)
        else:
            self.pool.unlock(m)

    @c("vm_page_wakeup", "vm_page.c:911-922")
    @holds("m busied; page spinlock free", "m unbusied")
    @primitive
    def wakeup(self, m: Page) -> None:
        """vm_page_wakeup, vm_page.c:911-922: clear PG_BUSY and wake the waiters.

        Takes the page's spinlock.  Panics ``wakeup-unbusied``.
        """
        if not m.flags & PG_BUSY:
            self.k.panic("wakeup-unbusied", f"{m} is not busy")
        self.pool.lock(m)
        self.wakeup_unlock(m)

    @c("vm_page_flash", "vm_page2.h:276-283")
    @primitive
    def flash(self, m: Page) -> None:
        """vm_page_flash, vm_page2.h:275: wake the waiters without clearing PG_BUSY."""
        if m.flags & PG_WANTED:
            self.flag_clear(m, PG_WANTED)
            self.k.sleep.wakeup(m)

    @c("vm_page_io_start", "vm_page.c:2652-2658")
    @holds("m busied", "m busied and soft-busy")
    @primitive
    def io_start(self, m: Page) -> None:
        """vm_page_io_start, vm_page.c:2652-2658: add one soft-busy reference (u8).

        The caller has the page hard-busied.
        """
        k = self.k
        if not m.flags & PG_BUSY:
            k.panic("io-start-unbusied", f"{m} is not busy")
        if self.atomic.fetchadd_int(m, "busy", 1) == 0xFF:
            self.atomic.add_int(m, "busy", -0x100)
        self.flag_set(m, PG_SBUSY)
        if (f := k.probe.io_start) is not None:
            f(k.curthread(), m)

    @c("vm_page_io_finish", "vm_page.c:2660-2667")
    @holds("m busied and soft-busy", "m busied")
    @primitive
    def io_finish(self, m: Page) -> None:
        """vm_page_io_finish, vm_page.c:2660-2667.

        Drop one soft-busy reference; the last clears PG_SBUSY.

        The caller has the page hard-busied.  Its later vm_page_wakeup also wakes threads that wait
        for the soft busy count to reach zero.
        """
        k = self.k
        if not m.flags & PG_BUSY:
            k.panic("io-finish-unbusied", f"{m} is not busy")
        if (f := k.probe.io_finish) is not None:
            f(k.curthread(), m)
        if self.atomic.fetchadd_int(m, "busy", -1) == 0:
            self.atomic.add_int(m, "busy", 0x100)
        if m.busy == 0:
            self.flag_clear(m, PG_SBUSY)

    @c("vm_page_protect", "vm_page2.h:303-316", blocks=True)
    @holds("m busied; no spinlock")
    @primitive
    def protect(self, m: Page, prot: int) -> None:
        """vm_page_protect, vm_page2.h:303-316: lower the protection of every mapping.

        VM_PROT_NONE removes the mappings, VM_PROT_READ makes them read-only; both transfer modified
        bits to m->dirty.  The page is hard-busied (panics ``protect-unbusied``).  May block.
        """
        flags = m.flags
        if not flags & PG_BUSY:
            self.k.panic("protect-unbusied", f"{m} is not busy")
        if prot == VM_PROT_NONE:
            if m.flags & (PG_WRITEABLE | PG_MAPPED):
                self.vm.pmap.page_protect(m, VM_PROT_NONE)
        elif prot == VM_PROT_READ and m.flags & PG_WRITEABLE:
            self.vm.pmap.page_protect(m, VM_PROT_READ)
