"""The chain lock of an object (vm_object.c:506-707): prevents a collapse while a chain is in use.

It is a word of its own, changed by compare-and-set: a count of shared owners, CHAINLK_EXCL for one
exclusive owner, CHAINLK_WAIT when a thread sleeps on the object, CHAINLK_EXCLREQ when an exclusive
request keeps new shared owners out.  Only DEFAULT and SWAP objects have one.
"""

from __future__ import annotations

from collections.abc import Callable

from smpvm.kern.cname import c, holds
from smpvm.kern.tsleep import PINTERLOCKED
from smpvm.vm.object.struct import ObjectsBase, VmObject
from smpvm.vm.param import (
    CHAINLK_EXCL,
    CHAINLK_EXCLREQ,
    CHAINLK_MASK,
    CHAINLK_WAIT,
    OBJT_DEFAULT,
    OBJT_SWAP,
)

SHARED_BLOCKED = CHAINLK_EXCL | CHAINLK_EXCLREQ
EXCL_BLOCKED = CHAINLK_EXCL | CHAINLK_MASK


class ChainLocks(ObjectsBase):
    """vm_object_chain_*."""

    vm_shared_fault = True
    """The sysctl of vm_fault.c: when off, shared chain locks are taken exclusively."""

    @c("vm_object_chain_wait", "vm_object.c:547-553", part=True, blocks=True)
    @c("vm_object_chain_acquire", "vm_object.c:600-606", part=True)
    @holds("obj held", "obj held (token released while asleep)")
    def _chain_sleep(self, obj: VmObject, seen: int, add: int, blocked: int, wmesg: str) -> None:
        """Sleep on *obj* if its chain lock is still *seen*; *add* are extra flags to set."""
        sleep = self.k.sleep
        sleep.tsleep_interlock(obj)
        if self.atomic.cmpset_int(obj, "chainlk", seen, seen | CHAINLK_WAIT | add):
            cond: Callable[[], bool] = lambda: not obj.chainlk & blocked  # noqa: E731
            sleep.tsleep(obj, PINTERLOCKED, wmesg, 0, cond=cond)

    @c("vm_object_chain_wait", "vm_object.c:537-584", blocks=True)
    @holds("obj held", "obj held (token released while asleep)")
    def chain_wait(self, obj: VmObject, shared: bool = False) -> None:
        """vm_object_chain_wait, vm_object.c:537-584: sleep until *obj* is not chain locked.

        *obj* is held on entry and return; its token is released while asleep.
        """
        self.assert_held(obj)
        while True:
            seen = obj.chainlk
            if shared:
                if not seen & SHARED_BLOCKED:
                    return
                self._chain_sleep(obj, seen, 0, SHARED_BLOCKED, "objchns")
            elif seen & EXCL_BLOCKED:
                self._chain_sleep(obj, seen, 0, EXCL_BLOCKED, "objchnx")
            elif self.atomic.cmpset_int(obj, "chainlk", seen, seen & ~CHAINLK_WAIT):
                if seen & CHAINLK_WAIT:
                    self.k.sleep.wakeup(obj)
                return

    @c("vm_object_chain_acquire", "vm_object.c:586-640", blocks=True)
    @holds("obj held (exclusively for an exclusive lock)", "obj held and chain locked")
    def chain_acquire(self, obj: VmObject, shared: bool = False) -> None:
        """vm_object_chain_acquire, vm_object.c:586-640: take the chain lock.

        *obj* is held on entry and return (exclusively, for an exclusive lock); its token is
        released while asleep.
        """
        if obj.type not in (OBJT_DEFAULT, OBJT_SWAP):
            return
        shared = shared and self.vm_shared_fault
        while True:
            seen = obj.chainlk
            if shared:
                if seen & SHARED_BLOCKED:
                    self._chain_sleep(obj, seen, 0, SHARED_BLOCKED, "objchns")
                elif self.atomic.cmpset_int(obj, "chainlk", seen, seen + 1):
                    return
            elif seen & EXCL_BLOCKED:
                self._chain_sleep(obj, seen, CHAINLK_EXCLREQ, EXCL_BLOCKED, "objchnx")
            else:
                new = (seen | CHAINLK_EXCL) & ~(CHAINLK_EXCLREQ | CHAINLK_WAIT)
                if self.atomic.cmpset_int(obj, "chainlk", seen, new):
                    if seen & CHAINLK_WAIT:
                        self.k.sleep.wakeup(obj)
                    return

    @c("vm_object_chain_release", "vm_object.c:642-680")
    @holds("obj chain locked (need not be held)", "not chain locked")
    def chain_release(self, obj: VmObject) -> None:
        """vm_object_chain_release, vm_object.c:642-680: release one chain lock; never blocks.

        *obj* need not be held.  The last shared owner, or the exclusive one, wakes the waiters.
        """
        if obj.type not in (OBJT_DEFAULT, OBJT_SWAP):
            return
        k = self.k
        k.kassert(obj.chainlk & EXCL_BLOCKED, "chain-not-locked", str(obj))
        while True:
            seen = obj.chainlk
            if seen & CHAINLK_MASK > 1:
                if self.atomic.cmpset_int(obj, "chainlk", seen, seen - 1):
                    return
                continue
            if seen & CHAINLK_MASK:
                new = (seen - 1) & ~CHAINLK_WAIT
            else:
                k.kassert(seen & CHAINLK_EXCL, "chain-not-locked", str(obj))
                new = seen & ~(CHAINLK_EXCL | CHAINLK_WAIT)
            if self.atomic.cmpset_int(obj, "chainlk", seen, new):
                if seen & CHAINLK_WAIT:
                    k.sleep.wakeup(obj)
                return

    @c("vm_object_chain_release_all", "vm_object.c:690-705")
    @holds("all from first to stop chain locked", "none chain locked")
    def chain_release_all(self, first: VmObject, stop: VmObject) -> None:
        """vm_object_chain_release_all, vm_object.c:690-705.

        Release *stop*, then *first* down to *stop*.

        The objects in between need not be held: their chain locks keep the chain from changing.
        """
        self.chain_release(stop)
        obj: VmObject | None = first
        while obj is not stop:
            if obj is None:
                self.k.panic("chain-broken", f"{stop} is not behind {first}")
            # Read before the release: afterwards a collapse may change it.
            behind = obj.backing_object
            self.chain_release(obj)
            obj = behind
