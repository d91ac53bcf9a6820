"""The page queues (struct vpgqueues), and locking a page together with its queue.

Lock order: the page's spinlock, then its queue's.  ``m.queue`` changes only with both held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds, primitive
from smpvm.kern.guard import FREE, Guard, guarded
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
@guarded(
    # Read without it by vm_page_list_find and the statistics scan; the links are not.
    Guard("head", "spin", "vm_page.c:672, 709", read=FREE),
    Guard("tail", "spin", "vm_page.c:672, 709", read=FREE),
    Guard("lcnt", "spin", "vm_page.c:674, 700", read=FREE),
)
class PageQueue:
    """struct vpgqueues (vm_page.h:236-246): a doubly linked list through the pages themselves.

    ``lcnt`` counts the pages (never markers); like the list it is protected by ``spin``.
    ``counter`` names the vmstats field that counts these pages over all colours ("" for PQ_NONE).
    """

    __slots__ = ("counter", "head", "k", "lcnt", "name", "number", "spin", "tail")

    @c("vm_page_queue_init", "vm_page.c:157-171", part=True)
    @holds("boot only", "")
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
        """Pages and markers from the head on.

        The queue must be locked, unless the machine is at rest.
        """
        m = self.head
        while m is not None:
            yield m
            m = m.q_next

    # -- the list; each needs the queue's spinlock, none changes lcnt or m.queue

    @c("TAILQ_NEXT", "queue.h:601")
    @holds("queue spinlock")
    def next(self, m: Page) -> Page | None:
        """TAILQ_NEXT."""
        return m.q_next

    @c("TAILQ_INSERT_HEAD", "queue.h:575-586")
    @holds("queue spinlock")
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

    @c("TAILQ_INSERT_TAIL", "queue.h:588-596")
    @holds("queue spinlock")
    def insert_tail(self, m: Page) -> None:
        """TAILQ_INSERT_TAIL."""
        self._link_tail(m)
        if (f := self.k.probe.queue_insert) is not None:
            f(self.k.curthread(), self, m, False)

    @c("TAILQ_INSERT_AFTER", "queue.h:550-563")
    @holds("queue spinlock")
    def insert_after(self, after: Page, m: Page) -> None:
        """TAILQ_INSERT_AFTER: link *m* directly behind *after*."""
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

    @c("TAILQ_REMOVE", "queue.h:606-622")
    @holds("queue spinlock")
    def remove(self, m: Page) -> None:
        """TAILQ_REMOVE."""
        if (f := self.k.probe.queue_remove) is not None:
            f(self.k.curthread(), self, m)
        self._unlink(m)

    @c("TAILQ_REMOVE", "queue.h:606-622")
    @c("TAILQ_INSERT_TAIL", "queue.h:588-596")
    @holds("queue spinlock")
    def requeue(self, m: Page) -> None:
        """TAILQ_REMOVE and TAILQ_INSERT_TAIL: move *m* to the tail of its list."""
        self._unlink(m)
        self._link_tail(m)
        if (f := self.k.probe.queue_requeue) is not None:
            f(self.k.curthread(), self, m)

    @c("TAILQ_REMOVE", "queue.h:606-622")
    @c("TAILQ_INSERT_AFTER", "queue.h:550-563")
    @holds("queue spinlock")
    def hop(self, marker: Page, m: Page) -> None:
        """TAILQ_REMOVE, TAILQ_INSERT_AFTER: move *marker* from before *m* to behind it."""
        if m.q_prev is not marker:  # the scan kept its next page across an unlock
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

    @c("TAILQ_REMOVE", "queue.h:606-622")
    @holds("queue spinlock")
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

    @c("TAILQ_INSERT_TAIL", "queue.h:588-596")
    @holds("queue spinlock")
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
    """Page and queue spinlocks, and the two primitive moves: off a queue, onto a queue."""

    @c("vm_page_spin_lock", "vm_page2.h:203-208", uncalled=True)
    @holds("no page spinlock of the pool", "page spinlock")
    @primitive
    def spin_lock(self, m: Page) -> None:
        """vm_page_spin_lock, vm_page2.h:203-208: take the page's pool spinlock.  Spins."""
        self.pool.lock(m)

    @c("vm_page_spin_unlock", "vm_page2.h:210-215")
    @holds("page spinlock", "nothing")
    @primitive
    def spin_unlock(self, m: Page) -> None:
        """vm_page_spin_unlock, vm_page2.h:210-215."""
        self.pool.unlock(m)

    @c("_vm_page_queue_spin_lock", "vm_page.c:554-565")
    @c("vm_page_queue_spin_lock", "vm_page.c:598-602")
    @holds("page spinlock", "page and queue spinlocks")
    @primitive
    def queue_spin_lock(self, m: Page) -> None:
        """_vm_page_queue_spin_lock, vm_page.c:554-565: lock the queue that *m* is on.

        The caller holds the page's spinlock, so m->queue cannot change.  Spins.
        """
        queue = m.queue
        if queue:
            self.queues[queue].spin.lock()
            if queue != m.queue:
                self.k.panic("queue-changed", f"{m} changed its queue while locked")

    @c("_vm_page_queue_spin_unlock", "vm_page.c:567-577")
    @c("vm_page_queue_spin_unlock", "vm_page.c:610-614")
    @holds("page and queue spinlocks", "page spinlock")
    @primitive
    def queue_spin_unlock(self, m: Page) -> None:
        """_vm_page_queue_spin_unlock, vm_page.c:567-577."""
        queue = m.queue
        if queue:
            self.queues[queue].spin.unlock()

    @c("_vm_page_queues_spin_lock", "vm_page.c:579-586", uncalled=True)
    @c("vm_page_queues_spin_lock", "vm_page.c:604-608")
    @holds("", "queue spinlock")
    @primitive
    def queues_spin_lock(self, queue: int) -> None:
        """_vm_page_queues_spin_lock, vm_page.c:579-586: lock queue number *queue*."""
        if queue:
            self.queues[queue].spin.lock()

    @c("_vm_page_queues_spin_unlock", "vm_page.c:589-596")
    @c("vm_page_queues_spin_unlock", "vm_page.c:616-620")
    @holds("queue spinlock", "queue unlocked")
    @primitive
    def queues_spin_unlock(self, queue: int) -> None:
        """_vm_page_queues_spin_unlock, vm_page.c:589-596."""
        if queue:
            self.queues[queue].spin.unlock()

    @c("_vm_page_and_queue_spin_lock", "vm_page.c:627-633")
    @c("vm_page_and_queue_spin_lock", "vm_page.c:649-653")
    @holds("no spinlock", "page and queue spinlocks")
    @primitive
    def and_queue_spin_lock(self, m: Page) -> None:
        """_vm_page_and_queue_spin_lock, vm_page.c:627-633: lock the page, then its queue."""
        self.pool.lock(m)
        self.queue_spin_lock(m)

    @c("_vm_page_and_queue_spin_unlock", "vm_page.c:635-641")
    @c("vm_page_and_queue_spin_unlock", "vm_page.c:643-647")
    @holds("page and queue spinlocks", "nothing")
    @primitive
    def and_queue_spin_unlock(self, m: Page) -> None:
        """_vm_page_and_queue_spin_unlock, vm_page.c:635-641."""
        self.queues_spin_unlock(m.queue)
        self.pool.unlock(m)

    @c("_vm_page_rem_queue_spinlocked", "vm_page.c:662-682")
    @holds("page and queue spinlocks", "page spinlock")
    @primitive
    def rem_queue_spinlocked(self, m: Page) -> int:
        """_vm_page_rem_queue_spinlocked, vm_page.c:662-682: take *m* off its queue.

        Page and queue are locked on entry; the queue is unlocked on return.  Returns the queue *m*
        was on: the base number for FREE and CACHE, the full number otherwise.
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

    @c("_vm_page_add_queue_spinlocked", "vm_page.c:690-717")
    @holds("page spinlock; m on no queue", "page and (new) queue spinlocks")
    @primitive
    def add_queue_spinlocked(self, m: Page, queue: int, athead: bool = False) -> None:
        """_vm_page_add_queue_spinlocked, vm_page.c:690-717: put *m* on queue number *queue*.

        The page is locked on entry; page and queue are locked on return.  A page always goes to the
        head of a FREE queue.  Panics ``enqueue-queued`` if *m* is already on a queue.
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

    @c("vm_pageout_scan_inactive", "vm_pageout.c:779-783", part=True)
    @c("vm_pageout_scan_active", "vm_pageout.c:1215-1219", part=True)
    @c("vm_pageout_page_stats", "vm_pageout.c:1631-1635", part=True)
    @primitive
    def make_marker(self, queue: int) -> Page:
        """A scan's marker for queue number *queue* (vm_pageout.c:779-783), not yet on it."""
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
