"""Which thread holds what, and where it took it: the basis of most checkers.

``HeldTracker`` is the one observer that follows acquires and releases.  For each thread it keeps
the list of held resources and a position in a tree of *chains*: one node for each sequence of
(class, place in the code) in which resources have been taken.  A known chain costs one look-up; the
lock-order checker has work to do only when a node is new.

Resources are locks (spinlocks, tokens, lockmgr locks) and hard-busied pages (class ``busy``).
Tokens are tracked like the rest, but are off the list while their thread blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from smpvm.check.stacks import PLACES, RawStack, site
from smpvm.kern.order import family_class
from smpvm.kern.probe import TIMED, TRY, WAIT, Probe
from smpvm.kern.thread import TDF_DEADLKTREAT

BUSY: Final = "busy"
"""The class of a page's hard busy bit, which has a place in the lock order."""

SPIN, TOKEN, LOCKMGR, PAGE = "spinlock", "token", "lockmgr", "page-busy"
"""Families of resources; ``lock.kind`` is the family of a lock."""


class Node:
    """A chain: the resource taken last, and where, on top of the parent chain."""

    __slots__ = ("base", "children", "classes", "cls", "family", "how", "parent", "stack")

    def __init__(
        self, parent: Node | None, cls: str, family: str, how: int, stack: RawStack
    ) -> None:
        self.parent = parent
        self.cls = cls
        self.base = family_class(cls)
        """The class without its level."""
        self.family = family
        self.how = how
        """WAIT, TRY or TIMED."""
        self.classes: frozenset[str] = frozenset() if parent is None else parent.classes | {cls}
        """All classes in the chain."""
        self.stack = stack
        """The innermost frames where it was taken; ``stacks.exact`` adds the rest."""
        self.children: dict[tuple[str, int, int], Node] = {}

    def chain(self) -> list[Node]:
        """The ancestors of this node and itself, outermost first, without the root."""
        nodes = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class Held:
    """One resource held by one thread."""

    __slots__ = ("again", "cls", "family", "gone", "how", "mode", "node", "place", "res")

    def __init__(
        self, res: Any, cls: str, fam: str, mode: str, how: int, place: int, node: Node
    ) -> None:
        self.res = res
        self.cls = cls
        self.family = fam
        self.mode = mode
        self.how = how
        self.place = place
        self.node = node
        """The node that tells where it was taken."""
        self.again = False
        """A token that its thread already held: it adds no node to the chain."""
        self.gone = False
        """Released by another thread (a page's busy bit by I/O completion)."""

    def __str__(self) -> str:
        what = f"busy {self.res}" if self.cls == BUSY else str(self.res)
        return what + (" (shared)" if self.mode == "shared" else "")


class ThreadState:
    """The checkers' state of one thread; only that thread changes it (except for ``gone``)."""

    __slots__ = (
        "clock",
        "dropped",
        "held",
        "log",
        "node",
        "pruning",
        "scans",
        "seq",
        "sleeping",
        "td",
        "vc",
        "waiting",
        "wants",
    )

    def __init__(self, td: Any, root: Node) -> None:
        self.td = td
        self.held: list[Held] = []
        self.node = root
        self.dropped: list[Held] = []
        self.pruning = False
        self.waiting: Any = None
        """The wait it is blocked in (waitfor.Wait), or None."""
        self.seq = 0
        """Counts its waits, to tell successive waits for the same resource apart."""
        self.wants: Any = None
        """The page that a busy_wait in progress wants."""
        self.sleeping: Any = None
        self.clock = 0
        self.vc: Any = None
        self.log: list[Any] | None = None
        self.scans: Any = None


class HeldTracker(Probe):
    """Follows who holds what.  Checkers attach to its hooks (see ``__init__``)."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.root = Node(None, "", "", TRY, ())
        self.k: Any = None
        self.states: dict[int, ThreadState] = {}
        self.page_owner: dict[Any, tuple[ThreadState, Held]] = {}
        self.on_new: Callable[[ThreadState, Node, Any], None] | None = None
        """Called for a new chain: the state before the acquire, its node, the resource."""
        self.special: frozenset[str] = frozenset()
        self.on_special: Callable[[ThreadState, Node, Any], None] | None = None
        """Called each time a resource of the classes ``special`` is waited for or taken."""
        self.on_nested: Callable[[ThreadState, Node, Any], None] | None = None
        """Called each time a resource is taken while another of its class is held."""
        self.on_gated: Callable[[ThreadState, Node, Any], None] | None = None
        """Called each time a lock that has a gate is taken."""
        self.on_misuse: Callable[[ThreadState, str, str, Any], None] | None = None
        """(state, kind, text, resource): wrong release, lock held at exit."""
        self.on_block: Callable[[ThreadState, Any, str, int], None] | None = None
        self.on_unblock: Callable[[ThreadState], None] | None = None
        self.on_event: Callable[[ThreadState, str, Any, str], None] | None = None
        """For the log: acquire, release, block, wake; drop and regain of tokens around a wait."""
        self.on_exit: Callable[[ThreadState], None] | None = None

    def attach(self, kernel: Any) -> None:
        """Remember the kernel, for its clock and for whether the run is being stopped."""
        self.k = kernel

    def state(self, td: Any) -> ThreadState:
        """The state of *td*, created on first use."""
        st = td.observed
        if st is None:
            st = td.observed = ThreadState(td, self.root)
            with self.mutex:
                self.states[td.tid] = st
        return st  # type: ignore[no-any-return]

    def all_states(self) -> list[ThreadState]:
        """Every thread's state, by thread number."""
        with self.mutex:
            return [self.states[tid] for tid in sorted(self.states)]

    # -- taking

    def child(self, st: ThreadState, cls: str, fam: str, how: int, place: int, res: Any) -> Node:
        """The chain of *st* with one more resource on top; calls ``on_new`` if it is new."""
        if st.pruning:
            self._prune(st)
        parent = st.node
        key = (cls, place, how)
        node = parent.children.get(key)
        if node is None:
            node = Node(parent, cls, fam, how, PLACES.inner(key, 3))
            with self.mutex:
                node = parent.children.setdefault(key, node)
            if self.on_new is not None:
                self.on_new(st, node, res)
        if how == TRY:
            return node
        if node.base in self.special and self.on_special is not None:
            self.on_special(st, node, res)
        if fam != PAGE and res.under is not None and self.on_gated is not None:
            self.on_gated(st, node, res)
        if cls in parent.classes and self.on_nested is not None:
            self.on_nested(st, node, res)
        return node

    def lock_acquired(self, td: Any, lock: Any, mode: str, how: int) -> None:
        st = td.observed or self.state(td)
        if st.waiting is not None:
            self._unblock(st)
        cls = lock.cls
        fam = lock.kind
        place = site(2)
        if fam == TOKEN and any(h.res is lock for h in st.held):
            again = Held(lock, cls, fam, mode, TRY, place, st.node)
            again.again = True
            st.held.append(again)
        else:
            node = self.child(st, cls, fam, how, place, lock)
            st.held.append(Held(lock, cls, fam, mode, how, place, node))
            st.node = node
        if self.on_event is not None:
            self.on_event(st, "acquire", lock, mode)

    def lock_block(self, td: Any, lock: Any, mode: str, timo: int) -> None:
        st = td.observed or self.state(td)
        fam = lock.kind
        # Check the order before the wait, which may never end.
        how = TIMED if timo else WAIT
        if mode == "shared" and td.flags & TDF_DEADLKTREAT:
            how = TRY  # it overtakes exclusive requests, so shared holders form no cycle
        self.child(st, lock.cls, fam, how, site(2), lock)
        if self.on_event is not None:
            self.on_event(st, "block", lock, mode)
        if self.on_block is not None:
            self.on_block(st, lock, mode, timo)

    def lock_failed(self, td: Any, lock: Any, mode: str, error: int) -> None:
        st = td.observed or self.state(td)
        if st.waiting is not None:
            self._unblock(st)

    def sleep_done(self, td: Any, ident: Any, wmesg: str, timed_out: bool) -> None:
        st = td.observed or self.state(td)
        if st.waiting is not None and st.waiting.ends_with_sleep:
            self._unblock(st)

    def thread_join(self, td: Any, child: Any) -> None:
        st = td.observed or self.state(td)
        if st.waiting is not None:
            self._unblock(st)

    def _unblock(self, st: ThreadState) -> None:
        if self.on_unblock is not None:
            self.on_unblock(st)
        st.waiting = None
        if self.on_event is not None:
            self.on_event(st, "wake", None, "")

    # -- releasing

    def lock_release(self, td: Any, lock: Any, mode: str) -> None:
        st = td.observed or self.state(td)
        held = st.held
        if held and held[-1].res is lock and not st.pruning:
            h = held.pop()
            if not h.again and h.node.parent is not None:
                st.node = h.node.parent
            if h.mode != mode:
                self._misuse(st, "mode", f"releases as {mode} a lock that it holds {h.mode}", h)
        else:
            self._release_inner(st, lock, mode)
        if self.on_event is not None:
            self.on_event(st, "release", lock, mode)

    def _release_inner(self, st: ThreadState, lock: Any, mode: str) -> None:
        """Release of a resource that was not taken last: find it, and rebuild the chain."""
        for i in range(len(st.held) - 1, -1, -1):
            h = st.held[i]
            if h.res is lock:
                del st.held[i]
                self._rebuild(st)
                if h.mode != mode:
                    self._misuse(st, "mode", f"releases as {mode} a lock that it holds {h.mode}", h)
                return
        if self.on_misuse is not None:
            self.on_misuse(st, "not-held", "releases a lock that it does not hold", lock)

    def _misuse(self, st: ThreadState, how: str, what: str, h: Held) -> None:
        if self.on_misuse is not None:
            self.on_misuse(st, how, what, h.res)

    def _rebuild(self, st: ThreadState) -> None:
        """Find the chain of what is still held; it contains no new pair."""
        node = self.root
        for h in st.held:
            if h.again:
                continue
            key = (h.cls, h.place, h.how)
            after = node.children.get(key)
            if after is None:
                after = Node(node, h.cls, h.family, h.how, h.node.stack)
                with self.mutex:
                    after = node.children.setdefault(key, after)
            h.node = node = after
        st.node = node

    def _prune(self, st: ThreadState) -> None:
        st.pruning = False
        st.held = [h for h in st.held if not h.gone]
        self._rebuild(st)

    def lock_converted(self, td: Any, lock: Any, mode: str) -> None:
        st = td.observed or self.state(td)
        for h in reversed(st.held):
            if h.res is lock:
                h.mode = mode
                break
        if st.waiting is not None:
            self._unblock(st)

    # -- a thread that blocks gives up its tokens

    def token_drop(self, td: Any, tokens: Sequence[Any]) -> None:
        st = td.observed or self.state(td)
        if not tokens:
            return
        st.dropped = list(st.held)
        st.held = [h for h in st.held if h.family != TOKEN]
        self._rebuild(st)
        if self.on_event is not None:
            for token in tokens:
                self.on_event(st, "drop", token, "")

    def token_regain(self, td: Any, tokens: Sequence[Any]) -> None:
        st = td.observed or self.state(td)
        if not tokens or not st.dropped:
            return
        kept = [h for h in st.held if not any(h is d for d in st.dropped)]
        still = [h for h in st.dropped if h.family == TOKEN or any(h is x for x in st.held)]
        st.held = still + kept
        st.dropped = []
        self._rebuild(st)
        if self.on_event is not None:
            for token in tokens:
                self.on_event(st, "regain", token, "")

    # -- busy pages

    def page_want(self, td: Any, m: Any, also_soft: bool) -> None:
        st = td.observed or self.state(td)
        st.wants = m
        self.child(st, BUSY, PAGE, WAIT, site(2), m)

    def page_block(self, td: Any, m: Any, also_soft: bool) -> None:
        st = td.observed or self.state(td)
        if st.wants is not m:
            self.child(st, BUSY, PAGE, WAIT, site(2), m)
        if self.on_event is not None:
            self.on_event(st, "block", m, "busy")
        if self.on_block is not None:
            self.on_block(st, m, "soft" if also_soft else "busy", 0)

    def page_busied(self, td: Any, m: Any) -> None:
        st = td.observed or self.state(td)
        if st.waiting is not None:
            self._unblock(st)
        how = WAIT if st.wants is m else TRY
        st.wants = None
        place = site(2)
        node = self.child(st, BUSY, PAGE, how, place, m)
        h = Held(m, BUSY, PAGE, "excl", how, place, node)
        st.held.append(h)
        st.node = node
        self.page_owner[m] = (st, h)

    def page_unbusied(self, td: Any, m: Any) -> None:
        owner = self.page_owner.pop(m, None)
        if owner is None:
            return
        st, h = owner
        held = st.held
        if st.td is not td:
            h.gone = st.pruning = True  # the owner removes it at its next acquire or release
        elif held[-1] is h:
            held.pop()
            if h.node.parent is not None:
                st.node = h.node.parent
        else:
            h.gone = True
            self._prune(st)

    def owner_of_page(self, m: Any) -> ThreadState | None:
        """The thread that has *m* hard-busied."""
        owner = self.page_owner.get(m)
        return None if owner is None else owner[0]

    # -- the end of a thread

    def thread_exit(self, td: Any) -> None:
        st = td.observed or self.state(td)
        if st.pruning:
            self._prune(st)
        if st.held and not (self.k is not None and self.k.carrier.stopping):
            for h in st.held:
                self._misuse(st, "kept", "exits while still holding it", h)
        if self.on_exit is not None:
            self.on_exit(st)
        with self.mutex:
            self.states.pop(td.tid, None)


def describe_held(st: ThreadState) -> str:
    """What a thread holds, as one line of text."""
    return ", ".join(str(h) for h in list(st.held) if not h.gone) or "nothing"
