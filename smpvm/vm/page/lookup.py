"""Pages in objects: insert, remove, look up, rename."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds, primitive
from smpvm.vm.page.move import PageMoves
from smpvm.vm.page.struct import (
    PG_BUSY,
    PG_NEED_COMMIT,
    PG_SBUSY,
    PG_WRITEABLE,
    Page,
)

if TYPE_CHECKING:
    from smpvm.vm.object.objects import VmObject


class PageObjects(PageMoves):
    """The object's token protects its tree of pages: exclusive to change it, shared to read it."""

    @c("vm_page_insert", "vm_page.c:1020-1062")
    @holds("obj held exclusively; m busied, in no object; no spinlock")
    def insert(self, m: Page, obj: VmObject, pindex: int) -> bool:
        """vm_page_insert, vm_page.c:1020-1062: make *m* page *pindex* of *obj*.

        *obj* is held exclusively and *m* belongs to no object.  Returns False if the index is taken
        (then only the generation has changed).  Never blocks unless *obj* has swap.
        """
        k = self.k
        if not obj.token.held_excl():
            k.panic("object-not-held", f"{obj}, exclusively, for vm_page_insert of {m}")
        if m.object is not None:
            k.panic("insert-inserted", f"{m} is in {m.object} already")
        obj.generation += 1
        self.pool.lock(m)
        m.object = obj
        m.pindex = pindex
        if not obj.rb_memq.insert(pindex, m):
            m.object = None
            m.pindex = 0
            self.pool.unlock(m)
            return False
        obj.resident_page_count += 1
        k.curthread().cnt["t_rm"] += 1
        self.pool.unlock(m)
        if m.valid & m.dirty or m.flags & (PG_WRITEABLE | PG_NEED_COMMIT):
            self.vm.object.set_writeable_dirty(obj)
        self.vm.swap.page_inserted(m)
        return True

    @c("vm_page_remove", "vm_page.c:1076-1108", blocks=True)
    @holds("m busied; no spinlock")
    def remove(self, m: Page) -> None:
        """vm_page_remove, vm_page.c:1076-1108: take *m* out of its object, if any; mappings stay.

        *m* is hard-busied on entry and return.  May block on the object's token.
        """
        k = self.k
        obj = m.object
        if obj is None:
            return
        if not m.flags & PG_BUSY:
            k.panic("remove-unbusied", f"{m} is not busy")
        # m->object is read twice, as in the C; PG_BUSY keeps it from changing.
        obj = m.object
        self.vm.object.hold(obj)
        self.pool.lock(m)
        obj.rb_memq.remove(m.pindex)
        obj.resident_page_count -= 1
        k.curthread().cnt["t_rm"] -= 1
        m.object = None
        self.pool.unlock(m)
        obj.generation += 1
        self.vm.object.drop(obj)

    @c("vm_page_lookup", "vm_page.c:1125-1126", part=True)
    @holds("obj held")
    def _lookup(self, obj: VmObject, pindex: int) -> Page | None:
        """RB_LOOKUP, and the KKASSERT that follows every use of it."""
        m = obj.rb_memq.lookup(pindex)
        if m is not None and (m.object is not obj or m.pindex != pindex):
            self.k.panic("lookup-mismatch", f"{m} found at {obj} index {pindex}")
        return m

    @c("vm_page_lookup", "vm_page.c:1124", part=True)
    @holds("obj held (asserted)")
    def _assert_held(self, obj: VmObject) -> None:
        if not obj.token.held():
            self.k.panic("object-not-held", f"{obj}, for a lookup")

    @c("vm_page_lookup", "vm_page.c:1116-1128")
    @holds("obj held (shared is enough)")
    def lookup(self, obj: VmObject, pindex: int) -> Page | None:
        """vm_page_lookup, vm_page.c:1116-1128.  *obj* is held (shared is enough).  Never blocks."""
        self._assert_held(obj)
        return self._lookup(obj, pindex)

    @c("vm_page_lookup_busy_wait", "vm_page.c:1130-1171", blocks=True)
    @holds(
        "obj held; no spinlock", "obj held (token released while asleep); the page returned busied"
    )
    @primitive
    def lookup_busy_wait(
        self, obj: VmObject, pindex: int, also_m_busy: bool, msg: str
    ) -> Page | None:
        """vm_page_lookup_busy_wait, vm_page.c:1130-1171: find a page and hard-busy it.

        Sleeps until the page can be busied, and looks it up again after every sleep.  *obj* is
        held; its token is released while asleep.
        """
        self._assert_held(obj)
        refuse = PG_BUSY | PG_SBUSY if also_m_busy else PG_BUSY
        m = self._lookup(obj, pindex)
        if m is not None and (f := self.k.probe.page_want) is not None:
            f(self.k.curthread(), m, also_m_busy)
        while m is not None:
            flags = m.flags
            if flags & refuse:
                if self._wait(m, flags, refuse, msg):
                    # The token was released while asleep: the page may have been freed or replaced.
                    m = self._lookup(obj, pindex)
            elif self.atomic.cmpset_int(m, "flags", flags, flags | PG_BUSY):
                self._busied(m)
                break
        return m

    @c("vm_page_lookup_busy_try", "vm_page.c:1183-1216")
    @holds(
        "obj held (shared is enough)", "obj held (shared is enough); the page busied unless error"
    )
    @primitive
    def lookup_busy_try(
        self, obj: VmObject, pindex: int, also_m_busy: bool
    ) -> tuple[Page | None, bool]:
        """vm_page_lookup_busy_try, vm_page.c:1183-1216: find a page and try to hard-busy it.

        Returns (None, False) if there is no page, (page, True) if it could not be busied, (page,
        False) if the caller now owns PG_BUSY.  *obj* is held (shared is enough).  Never blocks.
        """
        self._assert_held(obj)
        m = self._lookup(obj, pindex)
        if m is None:
            return None, False
        return m, self.busy_try(m, also_m_busy)

    @c("vm_page_next", "vm_page.c:1295-1304", uncalled=True)
    @holds("the page's object held")
    def next(self, m: Page) -> Page | None:
        """vm_page_next, vm_page.c:1295-1304: the page at the next index, or None.

        The caller holds the object.
        """
        found: Page | None = m.object.rb_memq.lookup(m.pindex + 1)
        return found

    @c("vm_page_rename", "vm_page.c:1328-1344", blocks=True)
    @holds("m busied; both objects held exclusively")
    def rename(self, m: Page, new_object: VmObject, new_pindex: int) -> None:
        """vm_page_rename, vm_page.c:1328-1344: move *m* to another object and mark it dirty.

        *m* is hard-busied; both objects are held exclusively.  Panics ``rename-exists`` if the
        index is taken.  May block.
        """
        k = self.k
        if not m.flags & PG_BUSY:
            k.panic("rename-unbusied", f"{m} is not busy")
        if not new_object.token.held_excl():
            k.panic("object-not-held", f"{new_object}, exclusively, for vm_page_rename")
        if m.object is not None:
            if not m.object.token.held_excl():
                k.panic("object-not-held", f"{m.object}, exclusively, for vm_page_rename")
            self.remove(m)
        if not self.insert(m, new_object, new_pindex):
            k.panic("rename-exists", f"{new_object} has a page {new_pindex}")
        if m.queue - m.pc == self.CACHE:
            self.deactivate(m)
        self.dirty(m)
