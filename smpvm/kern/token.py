"""LWKT serializing tokens (lwkt_token.c).

A token serialises only while its holder runs: whoever blocks, in tsleep or waiting for another
token, gives up all its tokens and has all of them again before it resumes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from smpvm.host.carrier import ACQUIRE, ACQUIRE_SHARED, HOLDING, RELEASE, TRY
from smpvm.kern import probe
from smpvm.kern.order import Ordered

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread

SPIN_LOOPS: Final = 10
"""lwkt_spin_loops: failed attempts before all tokens are taken in sorted order."""
COURTESY: Final = 32
"""Turns that a new shared request waits where an exclusive one has been waiting (native)."""


class TokRef:
    """struct lwkt_tokref: one reference of a thread to a token.

    *excl* is TOK_EXCLUSIVE of tr_count: false for a shared reference, and for the recursive
    references of an exclusive holder.
    """

    __slots__ = ("excl", "mode", "tok")

    def __init__(self, tok: Token, excl: bool) -> None:
        self.tok = tok
        self.excl = excl
        self.mode = "excl" if excl else "shared"  # as asked for; recursion does not change it


class Token(Ordered):
    """struct lwkt_token."""

    __slots__ = ("_guard", "_waiters", "collisions", "count", "exclreq", "owner", "ref", "seq")

    kind = noun = "token"

    def __init__(
        self, k: Kernel, cls: str, name: str = "", *, subclass: int = 0, under: Any = None
    ) -> None:
        super().__init__(k, cls, name, subclass=subclass, under=under)
        self.seq = k.next_id("token")  # stands for the address in the sorted order
        self.owner: Thread | None = None  # TOK_EXCLUSIVE is set, and whose it is
        self.ref: TokRef | None = None  # t_ref: the reference that owns the exclusive bit
        self.count = 0  # shared and recursive references
        self.exclreq = False  # TOK_EXCLREQ: set by a waiting exclusive request, consulted by none
        self.collisions = 0
        self._waiters: list[Thread] = []
        self._guard = threading.Lock()

    # -- the C's functions

    def get(self) -> None:
        """lwkt_gettoken (lwkt_token.c:621): exclusive; may block, giving up every token meanwhile.

        Raises Misuse with a spinlock held, and for exclusive after shared (it would never end).
        """
        self._get(True)

    def get_shared(self) -> None:
        """lwkt_gettoken_shared (lwkt_token.c:691): shared; may block like ``get``."""
        self._get(False)

    def _get(self, excl: bool) -> None:
        k = self.k
        td = k.curthread()
        mode = "excl" if excl else "shared"
        if (f := k.probe.lock_want) is not None:
            f(td, self, mode)
        if td.toks or td.spins:
            self._check(td, excl)
        if (p := k.point) is not None:
            # With other tokens in hand a failing attempt has an effect: it gives those up.
            free = (self.free_excl if excl else self.free_shared) if not td.toks else None
            if free is not None and not free() and self.owner is not td:
                td.contended[self.cls] += 1
                td.waiting = self
            kind = ACQUIRE if excl else ACQUIRE_SHARED
            p(kind, self, HOLDING if td.toks else "", ready=free)
            td.waiting = None
        elif self.exclreq and not excl and not self.held_by(td):
            self._courtesy()
        ref = TokRef(self, excl)
        if not self.try_ref(ref, td, True):
            self._block(td, ref)
        td.toks.append(ref)
        td.acquired[self.cls] += 1
        if (f := k.probe.lock_acquired) is not None:
            f(td, self, mode, probe.WAIT)

    def _courtesy(self) -> None:
        """Let a waiting exclusive request have a chance, for a few milliseconds of host time.

        The C does not do this, but its waiters poll on CPUs of their own, and see every instant at
        which nobody shares the token; a parked host thread would miss them for many seconds.
        """
        relax = self.k.carrier.relax
        for _ in range(COURTESY):
            if not self.exclreq:
                break
            relax(self)

    def _check(self, td: Thread, excl: bool) -> None:
        if self.owner is td:
            return  # recursion never blocks
        if td.spins:
            self.k.misuse("sleep-with-spinlock", f"{td} gets {self} with {td.spins[-1]} held")
        if excl and any(ref.tok is self for ref in td.toks):
            self.k.misuse("token-excl-after-shared", f"{td} has {self} shared")

    def _block(self, td: Thread, ref: TokRef) -> None:
        """Give up running until this token and all the others can be had at once."""
        k = self.k
        td.contended[self.cls] += 1
        self.collisions += 1
        td.waiting = self
        if (f := k.probe.lock_block) is not None:
            f(td, self, ref.mode, 0)
        had = list(td.toks)
        if had:
            k.token.drop_all(td)
        k.token.acquire_all(td, [*had, ref], self)
        td.waiting = None
        if had and (f := k.probe.token_regain) is not None:
            f(td, [r.tok for r in had])

    def try_(self) -> bool:
        """lwkt_trytoken (lwkt_token.c:756): exclusive, without waiting; True when it got it."""
        k = self.k
        td = k.curthread()
        if (p := k.point) is not None:
            p(TRY, self)
        ref = TokRef(self, True)
        if not self.try_ref(ref, td, False):
            td.contended[self.cls] += 1
            self.collisions += 1
            if (f := k.probe.lock_failed) is not None:
                f(td, self, "excl", 0)
            return False
        td.toks.append(ref)
        td.acquired[self.cls] += 1
        if (f := k.probe.lock_acquired) is not None:
            f(td, self, "excl", probe.TRY)
        return True

    def release(self) -> None:
        """lwkt_reltoken (lwkt_token.c:804): the newest token, or it is a Misuse (token-order)."""
        k = self.k
        td = k.curthread()
        if not td.toks or td.toks[-1].tok is not self:
            if not any(ref.tok is self for ref in td.toks):
                k.misuse("wrong-release", f"{td} releases {self}, which it does not hold")
            k.misuse("token-order", f"{td} releases {self} before {td.toks[-1].tok}")
        if (p := k.point) is not None:
            p(RELEASE, self)
        ref = td.toks[-1]
        if (f := k.probe.lock_release) is not None:
            f(td, self, ref.mode)
        td.toks.pop()
        waited = self.rel_ref(ref)
        if k.point is not None:
            k.carrier.touched(self)
        elif waited and not td.spins:
            k.carrier.yield_()  # or a busy holder would have it again before they ran

    # -- the attempts (lwkt_token.c:244-430)

    def try_ref(self, ref: TokRef, td: Thread, blocking: bool) -> bool:
        """_lwkt_trytokref: take one reference if that is possible now.

        A blocking request that fails leaves *td* among those whom a release wakes (native; a
        serial carrier asks ``free_excl`` and ``free_shared`` instead).
        """
        with self._guard:
            if self.owner is td:
                self.count += 1
                ref.excl = False
                return True
            if ref.excl:
                if self.owner is None and self.count == 0:
                    self.owner = td
                    self.ref = ref
                    self.exclreq = False
                    return True
                if blocking:
                    self.exclreq = True
            elif self.owner is None:
                self.count += 1
                return True
            if blocking and self.k.point is None and td not in self._waiters:
                self._waiters.append(td)
            return False

    def rel_ref(self, ref: TokRef) -> bool:
        """_lwkt_reltokref: drop one reference; True if somebody waited for it (and was woken)."""
        with self._guard:
            if self.ref is ref:
                self.ref = None
                self.owner = None
            else:
                self.count -= 1
                if self.count:
                    return False  # those who wait, wait for the last of them
            waiters = self._waiters
            if not waiters or self.owner is not None:
                return False
            self._waiters = []
        for td in waiters:
            self.k.carrier.unpark(td)
        return True

    # -- questions

    def free_excl(self) -> bool:
        """Could a thread that has no reference to it have it exclusively now?"""
        return self.owner is None and self.count == 0

    def free_shared(self) -> bool:
        """Could a thread that has no reference to it share it now?"""
        return self.owner is None

    def held(self) -> bool:
        """LWKT_ASSERT_TOKEN_HELD: does the caller hold it, in either mode?"""
        return any(ref.tok is self for ref in self.k.curthread().toks)

    def held_excl(self) -> bool:
        """ASSERT_LWKT_TOKEN_HELD_EXCL: does the caller hold it exclusively?"""
        return self.owner is self.k.curthread()

    def held_by(self, td: Thread) -> bool:
        """Has *td* a reference to it (it may have given it up to block)?"""
        return any(ref.tok is self for ref in td.toks)

    def owners(self) -> list[Thread]:
        """The threads that have it now, blocked ones not counted."""
        if (owner := self.owner) is not None:
            return [owner]
        if not self.count:
            return []
        # A blocked thread keeps its references, but has given the tokens up.
        return [
            td for td in self.k.live_threads() if not self.k.token.dropped(td) and self.held_by(td)
        ]


class Tokens:
    """What concerns all tokens of a thread at once."""

    def __init__(self, k: Kernel) -> None:
        self.k = k

    def swap(self) -> None:
        """lwkt_token_swap (lwkt_token.c:910): exchange the two newest, to release out of order.

        Two references to the same token stay as they are: the older one owns the exclusive bit.
        """
        toks = self.k.curthread().toks
        if len(toks) < 2:
            self.k.misuse("token-order", "swap with fewer than two tokens")
        if toks[-1].tok is not toks[-2].tok:
            toks[-1], toks[-2] = toks[-2], toks[-1]

    def dropped(self, td: Thread) -> bool:
        """Has *td* given its tokens up to block?"""
        return td.toks_dropped

    def drop_all(self, td: Thread) -> None:
        """lwkt_relalltokens (lwkt_token.c:515): *td* is about to block; newest first."""
        k = self.k
        if (f := k.probe.token_drop) is not None:
            f(td, [ref.tok for ref in td.toks])
        td.toks_dropped = True
        serial = k.point is not None
        for ref in reversed(td.toks):
            ref.tok.rel_ref(ref)
            if serial:
                k.carrier.touched(ref.tok)

    def regain_all(self, td: Thread) -> None:
        """All tokens of *td* again, before it resumes from a sleep."""
        k = self.k
        self.acquire_all(td, td.toks, None)
        if (f := k.probe.token_regain) is not None:
            f(td, [ref.tok for ref in td.toks])

    def acquire_all(self, td: Thread, refs: Sequence[TokRef], wanted: Token | None) -> None:
        """What the LWKT scheduler does for a thread that wants to run: all of *refs*, or wait.

        *wanted* is the token that a ``get`` just failed on; None after a sleep.  May block with
        no token held.
        """
        k = self.k
        fails = 0
        missing = wanted
        if missing is None and refs and k.point is not None:
            missing = refs[0].tok  # serial: having them again is an operation with its own point
        while True:
            if missing is not None:
                self._wait(td, refs, missing)
            missing = self.get_all(td, refs, fails > SPIN_LOOPS)
            if missing is None:
                break
            fails += 1
            missing.collisions += 1
        td.waiting = None
        td.toks_dropped = False
        if k.point is not None:
            for ref in refs:
                k.carrier.touched(ref.tok)

    def _wait(self, td: Thread, refs: Sequence[TokRef], missing: Token) -> None:
        """Until *missing* may have become free (native), or until all are (serial)."""
        k = self.k
        td.waiting = missing
        if (p := k.point) is not None:
            field = HOLDING if len(refs) > 1 else ""
            p(ACQUIRE, missing, field, ready=lambda: self.all_free(td, refs))
        else:
            k.carrier.park(None)  # get_all left us among the waiters of missing

    def all_free(self, td: Thread, refs: Sequence[TokRef]) -> bool:
        """Would ``get_all`` succeed?"""
        excl = {ref.tok.seq for ref in refs if ref.excl}
        for ref in refs:
            tok = ref.tok
            if not (tok.free_excl() if tok.seq in excl else tok.free_shared()):
                return False
        return True

    def get_all(self, td: Thread, refs: Sequence[TokRef], in_order: bool) -> Token | None:
        """lwkt_getalltokens (lwkt_token.c:452) and its sorted variant (lwkt_token.c:541).

        Returns None with all of *refs* taken, or the token that could not be had, with none.
        *in_order*: in order of creation, as the C does by address once a thread failed often.
        """
        order = sorted(refs, key=lambda ref: ref.tok.seq) if in_order else refs
        taken: list[TokRef] = []
        for ref in order:
            if not ref.tok.try_ref(ref, td, True):
                for got in reversed(taken):
                    got.tok.rel_ref(got)
                return ref.tok
            taken.append(ref)
        return None
