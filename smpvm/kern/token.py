"""LWKT serializing tokens (lwkt_token.c).

A token serialises only while its holder runs: a thread that blocks, in tsleep or waiting for
another token, releases all its tokens and reacquires all of them before it resumes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from smpvm.host.carrier import ACQUIRE, ACQUIRE_SHARED, HOLDING, RELEASE, TRY
from smpvm.kern import probe
from smpvm.kern.cname import c, holds, own
from smpvm.kern.order import Ordered

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread

SPIN_LOOPS: Final = 10
"""lwkt_spin_loops: failed attempts before all tokens are taken in sorted order."""
COURTESY: Final = 32
"""How often a new shared request yields to a waiting exclusive one (native)."""


class TokRef:
    """struct lwkt_tokref: one reference of a thread to a token.

    *excl* is TOK_EXCLUSIVE of tr_count: false for a shared reference, and for the recursive
    references of an exclusive holder.
    """

    __slots__ = ("excl", "mode", "tok")

    @c("_lwkt_tokref_init", "lwkt_token.c:223-230")
    def __init__(self, tok: Token, excl: bool) -> None:
        self.tok = tok
        self.excl = excl
        self.mode = "excl" if excl else "shared"  # as requested; recursion does not change it


class Token(Ordered):
    """struct lwkt_token."""

    __slots__ = ("_guard", "_waiters", "collisions", "count", "exclreq", "owner", "ref", "seq")

    kind = noun = "token"

    @c("lwkt_token_init", "lwkt_token.c:881-888")
    def __init__(
        self, k: Kernel, cls: str, name: str = "", *, subclass: int = 0, under: Any = None
    ) -> None:
        super().__init__(k, cls, name, subclass=subclass, under=under)
        self.seq = k.next_id("token")  # stands for the address in the sorted order
        self.owner: Thread | None = None  # the holder if TOK_EXCLUSIVE is set
        self.ref: TokRef | None = None  # t_ref: the reference that owns the exclusive bit
        self.count = 0  # shared and recursive references
        self.exclreq = False  # TOK_EXCLREQ: set by a waiting exclusive request, tested by none
        self.collisions = 0
        self._waiters: list[Thread] = []
        self._guard = threading.Lock()

    # -- the C's functions

    @c("lwkt_gettoken", "lwkt_token.c:620-684", blocks=True)
    @holds("no spinlock; not this token shared", "the token, exclusive (others lost meanwhile)")
    def get(self) -> None:
        """lwkt_gettoken (lwkt_token.c:621).

        Exclusive.  May block, which releases every token meanwhile.

        Raises Misuse with a spinlock held, and for exclusive after shared (it would never return).
        """
        self._get(True)

    @c("lwkt_gettoken_shared", "lwkt_token.c:690-746", blocks=True)
    @holds("no spinlock", "the token, shared (others lost meanwhile)")
    def get_shared(self) -> None:
        """lwkt_gettoken_shared (lwkt_token.c:691): shared; may block like ``get``."""
        self._get(False)

    @c("lwkt_gettoken", "lwkt_token.c:626-683", part=True, blocks=True)
    @c("lwkt_gettoken_shared", "lwkt_token.c:696-745", part=True)
    @holds("no spinlock", "the token")
    def _get(self, excl: bool) -> None:
        k = self.k
        td = k.curthread()
        mode = "excl" if excl else "shared"
        if (f := k.probe.lock_want) is not None:
            f(td, self, mode)
        if td.toks or td.spins:
            self._check(td, excl)
        if (p := k.point) is not None:
            # If other tokens are held, a failing attempt has an effect: it releases them.
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
        """Give a waiting exclusive request a chance, for a few milliseconds of host time.

        The C does not do this, but its waiters poll on CPUs of their own and see every instant at
        which nobody shares the token; a parked host thread would miss them for many seconds.
        """
        relax = self.k.carrier.relax
        for _ in range(COURTESY):
            if not self.exclreq:
                break
            relax(self)

    @c("lwkt_gettoken", "lwkt_token.c:637-649", part=True)
    def _check(self, td: Thread, excl: bool) -> None:
        if self.owner is td:
            return  # recursion never blocks
        if td.spins:
            self.k.misuse("sleep-with-spinlock", f"{td} gets {self} with {td.spins[-1]} held")
        if excl and any(ref.tok is self for ref in td.toks):
            self.k.misuse("token-excl-after-shared", f"{td} has {self} shared")

    @c("lwkt_gettoken", "lwkt_token.c:666-683", part=True, blocks=True)
    @c("lwkt_gettoken_shared", "lwkt_token.c:729-745", part=True)
    @holds("no spinlock", "the token and all others of the thread")
    def _block(self, td: Thread, ref: TokRef) -> None:
        """Block until this token and all the others can be taken at once."""
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

    @c("lwkt_trytoken", "lwkt_token.c:755-777")
    @holds("", "on True the token, exclusive")
    def try_(self) -> bool:
        """lwkt_trytoken (lwkt_token.c:756).

        Exclusive, without waiting; True if it got the token.
        """
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

    @c("lwkt_reltoken", "lwkt_token.c:803-818")
    @holds("the token, the newest", "released")
    def release(self) -> None:
        """lwkt_reltoken (lwkt_token.c:804).

        Release the newest token; any other is a Misuse (token-order).
        """
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
            k.carrier.yield_()  # else a busy holder would retake it before the waiters run

    # -- the attempts (lwkt_token.c:244-430)

    @c("_lwkt_trytokref", "lwkt_token.c:242-360")
    @holds("", "on True a reference")
    def try_ref(self, ref: TokRef, td: Thread, blocking: bool) -> bool:
        """_lwkt_trytokref: take one reference if that is possible now.

        A blocking request that fails is added to the threads that a release wakes (native; a serial
        carrier tests ``free_excl`` and ``free_shared`` instead).
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

    @c("_lwkt_reltokref", "lwkt_token.c:396-435")
    @holds("a reference", "released")
    def rel_ref(self, ref: TokRef) -> bool:
        """_lwkt_reltokref: drop one reference; True if a thread waited for it (and was woken)."""
        with self._guard:
            if self.ref is ref:
                self.ref = None
                self.owner = None
            else:
                self.count -= 1
                if self.count:
                    return False  # the waiters need the last one to be dropped
            waiters = self._waiters
            if not waiters or self.owner is not None:
                return False
            self._waiters = []
        for td in waiters:
            self.k.carrier.unpark(td)
        return True

    # -- questions

    @own
    def free_excl(self) -> bool:
        """Could a thread without a reference take it exclusively now?"""
        return self.owner is None and self.count == 0

    @own
    def free_shared(self) -> bool:
        """Could a thread without a reference take it shared now?"""
        return self.owner is None

    @c("LWKT_TOKEN_HELD_ANY", "thread.h:135")
    @c("_lwkt_token_held_any", "thread2.h:39-52")
    def held(self) -> bool:
        """LWKT_ASSERT_TOKEN_HELD: does the caller hold it, in either mode?"""
        return any(ref.tok is self for ref in self.k.curthread().toks)

    @c("LWKT_TOKEN_HELD_EXCL", "thread.h:136")
    @c("_lwkt_token_held_excl", "thread2.h:57-62")
    def held_excl(self) -> bool:
        """ASSERT_LWKT_TOKEN_HELD_EXCL: does the caller hold it exclusively?"""
        return self.owner is self.k.curthread()

    @own
    def held_by(self, td: Thread) -> bool:
        """Does *td* have a reference (the token itself may be released while it is blocked)?"""
        return any(ref.tok is self for ref in td.toks)

    @own
    def owners(self) -> list[Thread]:
        """The threads that own it now, not counting blocked ones."""
        if (owner := self.owner) is not None:
            return [owner]
        if not self.count:
            return []
        # A blocked thread keeps its references but does not own the tokens.
        return [
            td for td in self.k.live_threads() if not self.k.token.dropped(td) and self.held_by(td)
        ]


class Tokens:
    """Operations on all tokens of a thread at once."""

    def __init__(self, k: Kernel) -> None:
        self.k = k

    @c("lwkt_token_swap", "lwkt_token.c:909-941")
    @holds("two tokens", "the same two, exchanged")
    def swap(self) -> None:
        """lwkt_token_swap (lwkt_token.c:910).

        Exchange the two newest, to release them out of order.

        Two references to the same token are not exchanged: the older one owns the exclusive bit.
        """
        toks = self.k.curthread().toks
        if len(toks) < 2:
            self.k.misuse("token-order", "swap with fewer than two tokens")
        if toks[-1].tok is not toks[-2].tok:
            toks[-1], toks[-2] = toks[-2], toks[-1]

    @own
    def dropped(self, td: Thread) -> bool:
        """Has *td* released its tokens in order to block?"""
        return td.toks_dropped

    @c("lwkt_relalltokens", "lwkt_token.c:514-530")
    @holds("the tokens of td", "all given up, the references stay")
    def drop_all(self, td: Thread) -> None:
        """lwkt_relalltokens (lwkt_token.c:515).

        *td* is about to block; releases the newest first.
        """
        k = self.k
        if (f := k.probe.token_drop) is not None:
            f(td, [ref.tok for ref in td.toks])
        td.toks_dropped = True
        serial = k.point is not None
        for ref in reversed(td.toks):
            ref.tok.rel_ref(ref)
            if serial:
                k.carrier.touched(ref.tok)

    @c("lwkt_switch", "lwkt_thread.c:668-675", part=True, blocks=True)
    @holds("references, tokens given up", "all tokens of td")
    def regain_all(self, td: Thread) -> None:
        """Reacquire all tokens of *td* before it resumes from a sleep."""
        k = self.k
        self.acquire_all(td, td.toks, None)
        if (f := k.probe.token_regain) is not None:
            f(td, [ref.tok for ref in td.toks])

    @c("lwkt_switch", "lwkt_thread.c:668-675", part=True, blocks=True)
    @holds("no token", "all of refs")
    def acquire_all(self, td: Thread, refs: Sequence[TokRef], wanted: Token | None) -> None:
        """The LWKT scheduler's part for a thread that wants to run: take all of *refs*, or wait.

        *wanted* is the token that a ``get`` has just failed on; None after a sleep.  May block with
        no token held.
        """
        k = self.k
        fails = 0
        missing = wanted
        if missing is None and refs and k.point is not None:
            missing = refs[0].tok  # serial: reacquiring is an operation with its own schedule point
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
        """Wait until *missing* may have become free (native), or until all are free (serial)."""
        k = self.k
        td.waiting = missing
        if (p := k.point) is not None:
            field = HOLDING if len(refs) > 1 else ""
            p(ACQUIRE, missing, field, ready=lambda: self.all_free(td, refs))
        else:
            k.carrier.park(None)  # get_all has added us to the waiters of missing

    @own
    def all_free(self, td: Thread, refs: Sequence[TokRef]) -> bool:
        """Would ``get_all`` succeed?"""
        excl = {ref.tok.seq for ref in refs if ref.excl}
        for ref in refs:
            tok = ref.tok
            if not (tok.free_excl() if tok.seq in excl else tok.free_shared()):
                return False
        return True

    @c("lwkt_getalltokens", "lwkt_token.c:451-500")
    @c("_lwkt_getalltokens_sorted", "lwkt_token.c:539-615")
    @holds("no token", "on None all of refs; else none")
    def get_all(self, td: Thread, refs: Sequence[TokRef], in_order: bool) -> Token | None:
        """lwkt_getalltokens (lwkt_token.c:452) and its sorted variant (lwkt_token.c:541).

        Returns None with all of *refs* taken, or the token that could not be taken, with none
        taken.  *in_order*: in order of creation, as the C does by address after many failures.
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
