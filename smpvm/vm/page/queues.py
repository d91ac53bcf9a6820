"""The page queues (struct vpgqueues) and the locking of a page together with its queue.

The order is: the page's spinlock, then its queue's.  ``m.queue`` changes only with both held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smpvm.kern.shared import Site, shared
from smpvm.kern.spinlock import Spinlock
from smpvm.vm.page.base import PageBase
from smpvm.vm.page.struct import PG_BUSY, PG_FICTITIOUS, PG_MARKER, Page
from smpvm.vm.param import QueueNumbers

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel

_COUNTED = ("v_free_count", "v_inactive_count", "v_active_count", "v_cache_count", "v_active_count")

_AGAIN = "takes the page's and the queue's spinlock, and compares m->queue again"


@shared(
    "head",
    "tail",
    "lcnt",
    benign=[
        Site("head", "vm_page_list_find", "vm_page.c:1407", _AGAIN),
        Site("tail", "vm_page_list_find", "vm_page.c:1407", _AGAIN),
        Site("lcnt", "vm_pageout_page_stats", "vm_pageout.c:1620", "only sizes its scan"),
    ],
)
class PageQueue:
    """struct vpgqueues (vm_page.h:236-246): a doubly linked list through the pages themselves.

    ``lcnt`` counts its pages (never markers) and is guarded by ``spin``, as the list is;
    ``counter`` names the field of vmstats that counts them for all colours ("" for PQ_NONE).
    """

    __slots__ = ("counter", "head", "k", "lcnt", "name", "number", "spin", "tail")

    def __init__(self, k: Kernel, pq: QueueNumbers, number: int) -> None:
        self.k = k
        self.number = number
        self.name = pq.name(number)
        self.counter = "" if number == 0 else _COUNTED[(number - 1) // pq.L2_SIZE]
        self.spin = Spinlock(k, "queue", self.name)
        self.lcnt = 0
        self.head: Page | None = None
        self.tail: Page | None = None

    def __str__(self) -> str:
        return f"queue {self.name}"

    def pages(self) -> Iterator[Page]:
        """Pages and markers from the head on.  The queue must be locked (or all at rest)."""
        m = self.head
        while m is not None:
            yield m
            m = m.q_next

    # -- the list; each needs the queue's spinlock, none changes lcnt or m.queue

    def next(self, m: Page) -> Page | None:
        """TAILQ_NEXT."""
        return m.q_next

    def insert_head(self, m: Page) -> None:
        """TAILQ_INSERT_HEAD."""
        first = self.head
        m.q_prev = None
        m.q_next = first
        if first is None:
            self.tail = m
        else:
            first.q_prev = m
        self.head = m
        if (f := self.k.probe.queue_insert) is not None:
            f(self.k.curthread(), self, m, True)

    def insert_tail(self, m: Page) -> None:
        """TAILQ_INSERT_TAIL."""
        self._link_tail(m)
        if (f := self.k.probe.queue_insert) is not None:
            f(self.k.curthread(), self, m, False)

    def insert_after(self, after: Page, m: Page) -> None:
        """TAILQ_INSERT_AFTER: *m* goes just behind *after*."""
        behind = after.q_next
        m.q_prev = after
        m.q_next = behind
        if behind is None:
            self.tail = m
        else:
            behind.q_prev = m
        after.q_next = m
        if (f := self.k.probe.queue_insert) is not None:
            f(self.k.curthread(), self, m, False)

    def remove(self, m: Page) -> None:
        """TAILQ_REMOVE."""
        if (f := self.k.probe.queue_remove) is not None:
            f(self.k.curthread(), self, m)
        self._unlink(m)

    def requeue(self, m: Page) -> None:
        """TAILQ_REMOVE and TAILQ_INSERT_TAIL: *m* moves to the tail of the list it is on."""
        self._unlink(m)
        self._link_tail(m)
        if (f := self.k.probe.queue_requeue) is not None:
            f(self.k.curthread(), self, m)

    def hop(self, marker: Page, m: Page) -> None:
        """TAILQ_REMOVE, TAILQ_INSERT_AFTER: *marker* goes from just before *m* to just behind."""
        if m.q_prev is not marker:  # a scan that kept its next page over an unlock
            self.remove(marker)
            self.insert_after(m, marker)
            return
        probe = self.k.probe
        if (f := probe.queue_remove) is not None:
            f(self.k.curthread(), self, marker)
        before, behind = marker.q_prev, m.q_next
        m.q_prev = before
        if before is None:
            self.head = m
        else:
            before.q_next = m
        m.q_next = marker
        marker.q_prev = m
        marker.q_next = behind
        if behind is None:
            self.tail = marker
        else:
            behind.q_prev = marker
        if (f := probe.queue_insert) is not None:
            f(self.k.curthread(), self, marker, False)

    def _unlink(self, m: Page) -> None:
        before, behind = m.q_prev, m.q_next
        if before is None:
            self.head = behind
        else:
            before.q_next = behind
        if behind is None:
            self.tail = before
        else:
            behind.q_prev = before
        m.q_next = m.q_prev = None

    def _link_tail(self, m: Page) -> None:
        last = self.tail
        m.q_next = None
        m.q_prev = last
        if last is None:
            self.head = m
        else:
            last.q_next = m
        self.tail = m


class PageLocks(PageBase):
    """Page and queue spinlocks, and the two moves that everything else is made of."""

    def spin_lock(self, m: Page) -> None:
        """vm_page_spin_lock, vm_page2.h:217: the page's pool spinlock.  Spins."""
        self.pool.lock(m)

    def spin_unlock(self, m: Page) -> None:
        """vm_page_spin_unlock, vm_page2.h:224."""
        self.pool.unlock(m)

    def queue_spin_lock(self, m: Page) -> None:
        """_vm_page_queue_spin_lock, vm_page.c:556-568: the lock of the queue that *m* is on.

        The page's spinlock must be held, so that the queue stays the same.  Spins.
        """
        queue = m.queue
        if queue:
            self.queues[queue].spin.lock()
            if queue != m.queue:
                self.k.panic("queue-changed", f"{m} changed its queue while locked")

    def queue_spin_unlock(self, m: Page) -> None:
        """_vm_page_queue_spin_unlock, vm_page.c:570-581."""
        queue = m.queue
        if queue:
            self.queues[queue].spin.unlock()

    def queues_spin_lock(self, queue: int) -> None:
        """_vm_page_queues_spin_lock, vm_page.c:583-590: the lock of queue number *queue*."""
        if queue:
            self.queues[queue].spin.lock()

    def queues_spin_unlock(self, queue: int) -> None:
        """_vm_page_queues_spin_unlock, vm_page.c:593-600."""
        if queue:
            self.queues[queue].spin.unlock()

    def and_queue_spin_lock(self, m: Page) -> None:
        """_vm_page_and_queue_spin_lock, vm_page.c:631-637: the page, then its queue."""
        self.pool.lock(m)
        self.queue_spin_lock(m)

    def and_queue_spin_unlock(self, m: Page) -> None:
        """_vm_page_and_queue_spin_unlock, vm_page.c:639-645."""
        self.queues_spin_unlock(m.queue)
        self.pool.unlock(m)

    def rem_queue_spinlocked(self, m: Page) -> int:
        """_vm_page_rem_queue_spinlocked, vm_page.c:666-686: take *m* off its queue.

        Page and queue are locked on entry; the queue is unlocked on return.  Returns the queue
        it was on: the base number for FREE and CACHE, the full number otherwise.
        """
        queue = m.queue
        if queue:
            q = self.queues[queue]
            q.remove(m)
            self.atomic.add_int(self.stats, q.counter, -1)
            q.lcnt -= 1
            m.queue = 0
            q.spin.unlock()
            base = queue - m.pc
            if base == self.CACHE or base == self.FREE:
                return base
        return queue

    def add_queue_spinlocked(self, m: Page, queue: int, athead: bool = False) -> None:
        """_vm_page_add_queue_spinlocked, vm_page.c:694-721: put *m* on queue number *queue*.

        The page is locked on entry; page and queue are on return.  FREE is always filled at its
        head.  Panics ``enqueue-queued`` if *m* is on a queue already.
        """
        if m.queue:
            self.k.panic("enqueue-queued", f"{m} is on queue {self.vm.pq.name(m.queue)}")
        if queue:
            q = self.queues[queue]
            q.spin.lock()
            q.lcnt += 1
            self.atomic.add_int(self.stats, q.counter, 1)
            m.queue = queue
            if athead or queue - m.pc == self.FREE:
                q.insert_head(m)
            else:
                q.insert_tail(m)

    def requeue_locked(self, m: Page, queue: int) -> bool:
        """To the tail of *queue* if *m* is still on it; page and queue locked.  Did it move?"""
        if m.queue != queue:
            return False
        self.queues[queue].requeue(m)
        return True

    def requeue(self, m: Page, queue: int) -> bool:
        """The same, taking both locks itself.  The page should be busied by the caller."""
        self.and_queue_spin_lock(m)
        moved = self.requeue_locked(m, queue)
        self.and_queue_spin_unlock(m)
        return moved

    def make_marker(self, queue: int) -> Page:
        """A scan's place holder for queue number *queue* (vm_pageout.c:787-791); not yet on it."""
        k = self.k
        marker = k.new(
            Page,
            -1 - k.next_id("marker"),
            queue,
            (queue - 1) % self.vm.pq.L2_SIZE,
            PG_BUSY | PG_FICTITIOUS | PG_MARKER,
            1,
        )
        marker.busy_owner = k.curthread()
        return marker
