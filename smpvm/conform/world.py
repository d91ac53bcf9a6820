"""Changes that replace the model where FORMAT.md says that the environment answers.

Each is a subclass of the model's class, made for one Env, and replaces only the functions that the
recording replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from smpvm.conform.env import Env
from smpvm.kern.clock import Clock
from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_NOWAIT, LK_RELEASE, LK_TYPE_MASK
from smpvm.kern.lwkt import Sched
from smpvm.kern.proc import SZOMB, Proc, Procs
from smpvm.kern.token import Token
from smpvm.kern.tsleep import SleepQueue
from smpvm.kern.vnode import Vnode, Vnodes
from smpvm.vm.object.objects import Objects
from smpvm.vm.page.pages import Pages
from smpvm.vm.page.struct import PG_SWAPINPROG, PG_SWAPPED, Page
from smpvm.vm.pager.pagers import Pagers
from smpvm.vm.pager.swap import SwapPager
from smpvm.vm.pager.syncer import Syncer
from smpvm.vm.param import (
    OBJT_DEAD,
    OBJT_DEFAULT,
    OBJT_DEVICE,
    OBJT_MGTDEVICE,
    OBJT_PHYS,
    OBJT_SWAP,
    VM_PAGER_AGAIN,
    VM_PAGER_NAMES,
    VM_PAGER_PEND,
)
from smpvm.vm.pmap.pmaps import Pmaps
from smpvm.vm.proc.glue import Glue

if TYPE_CHECKING:
    from smpvm.vm.object.struct import VmObject
    from smpvm.vm.pmap.pmaps import Pmap


def kernel_world(env: Env) -> dict[str, type]:
    """Changed parts of the kernel (``kern.kernel.default_parts``)."""

    class ScriptSleep(SleepQueue):
        def tsleep_interlock(self, ident: Any, flags: int = 0, *, step: bool = True) -> None:
            pass

        def tsleep(
            self,
            ident: Any,
            flags: int,
            wmesg: str,
            timo: int,
            cond: Callable[[], bool] | None = None,
            *,
            step: bool = True,
        ) -> int:
            td = self.k.curthread()
            if td.spins:
                self.k.misuse("sleep-with-spinlock", f"{wmesg} with {td.spins[-1]} held")
            return env.tsleep(ident, wmesg, timo)

        def wakeup(
            self, ident: Any, first: Callable[[], object] | None = None, *, step: bool = True
        ) -> None:
            if first is not None:
                first()
            env.log("wakeup", ident=env.ident(ident))

    class ScriptSched(Sched):
        def lwkt_yield(self) -> None:
            td = self.k.curthread()
            if td.spins:
                self.k.misuse("sleep-with-spinlock", f"yield with {td.spins[-1]} held")
            env.yields += 1
            env.at("lwkt_yield")

    class ScriptClock(Clock):
        def ticks(self) -> int:
            return int(env.ticks)

        def time_uptime(self) -> int:
            return int(env.time_uptime)

        def set(self, ticks: int, time_uptime: int) -> None:
            env.ticks, env.time_uptime = ticks, time_uptime

    class ScriptVnodes(Vnodes):
        def vget(self, vp: Vnode, flags: int) -> int:
            return env.vget(vp, flags)

        def vput(self, vp: Vnode) -> None:
            env.log("vput", vnode=env.roster.vnode_ids[vp])

    class ScriptProcs(Procs):
        def allproc_scan(self, callback: Callable[[Proc, Any], int], data: Any) -> None:
            for p in env.roster.procs:
                if p.p_stat == SZOMB:
                    continue
                self.phold(p)
                r = callback(p, data)
                self.prele(p)
                if r < 0:
                    break

        def killproc(self, p: Proc, why: str) -> None:
            env.log("killproc", pid=p.p_pid, why=why)

        def resetpriority(self, p: Proc) -> None:
            env.log("resetpriority", pid=p.p_pid, nice=p.p_nice)

    return {
        "clock": ScriptClock,
        "sched": ScriptSched,
        "sleep": ScriptSleep,
        "proc": ScriptProcs,
        "vnode": ScriptVnodes,
    }


class HeldToken(Token):
    """A token that another thread holds for a moment: try_ fails, get succeeds."""

    __slots__ = ()

    def try_(self) -> bool:
        return False


class LoggedLock(Lock):
    """A map lock that logs its calls as events."""

    __slots__ = ("env", "map_id")

    env: Env
    map_id: int

    def lockmgr(self, flags: int, timo: int = 0) -> int:
        result = super().lockmgr(flags)
        names = ["RELEASE"] if flags & LK_TYPE_MASK == LK_RELEASE else ["EXCLUSIVE"]
        if flags & LK_TYPE_MASK not in (LK_RELEASE, LK_EXCLUSIVE):
            names = [f"{flags:#x}"]
        if flags & LK_NOWAIT:
            names.append("NOWAIT")
        self.env.log("lockmgr", map=self.map_id, flags=names, result=result)
        return result


def vm_world(env: Env) -> list[type]:
    """Changes of the VM's subsystems."""

    class ScriptPages(Pages):
        def cpu_topology(self, cpuid: int) -> tuple[int, int, int, int]:
            c = env.config
            return c["phys_ids"], c["core_ids"], c["phys_id"], c["core_id"]

    class ScriptObjects(Objects):
        def lock(self, obj: VmObject) -> None:
            env.at("object_hold")
            super().lock(obj)

        def lock_shared(self, obj: VmObject) -> None:
            env.at("object_hold")
            super().lock_shared(obj)

        def zfree(self, obj: VmObject) -> None:
            env.log("object_zfree", object=env.roster.object_ids[obj])

    class ScriptPmaps(Pmaps):
        def collect(self) -> None:
            env.log("pmap_collect")

        def remove(self, pmap: Pmap, sva: int, eva: int) -> None:
            env.log("pmap_remove", map=env.roster.pmap_id(pmap), start=sva, end=eva)
            super().remove(pmap, sva, eva)

    class ScriptPagers(Pagers):
        def put_pages(self, obj: VmObject, mc: Sequence[Page], flags: int) -> list[int]:
            return put_pages(env, obj, mc, flags)

    class ScriptSwap(SwapPager):
        def swap_init(self) -> None:
            env.log("swap_pager_swap_init")

    class ScriptSyncer(Syncer):
        def speedup_syncer(self, wake: bool = True) -> None:
            env.log("speedup_syncer")

    class ScriptGlue(Glue):
        def swapout_procs(self, action: int) -> None:
            env.log("swapout_procs", action=action)

    return [
        ScriptPages,
        ScriptObjects,
        ScriptPmaps,
        ScriptPagers,
        ScriptSwap,
        ScriptSyncer,
        ScriptGlue,
    ]


def put_pages(env: Env, obj: VmObject, mc: Sequence[Page], flags: int) -> list[int]:
    """The pager of FORMAT.md section 6."""
    k = env.k
    if obj.type in (OBJT_DEVICE, OBJT_MGTDEVICE):
        k.panic("device-pager-put", f"{obj}")
    if obj.type == OBJT_PHYS:
        k.panic("phys-pager-put", f"{obj}")
    event = env.log(
        "put_pages",
        object=env.roster.object_ids[obj],
        pages=[env.roster.page_id(m) for m in mc],
        flags=flags,
    )
    if obj.type == OBJT_DEAD:  # not the scripted pager: its own answers at once
        event["statuses"] = ["AGAIN"] * len(mc)
        return [VM_PAGER_AGAIN] * len(mc)
    entry, n = env.reach("put_pages")
    if obj.type == OBJT_DEFAULT:
        obj.type = OBJT_SWAP
    names = [env.next_status(entry, i) for i in range(len(mc))]
    event["statuses"] = names
    for m, name in zip(mc, names, strict=True):
        put_page(env, obj, m, name)
    env.mutate(entry, "put_pages", n)
    return [VM_PAGER_PEND if name == "PEND_DONE" else VM_PAGER_NAMES.index(name) for name in names]


def put_page(env: Env, obj: VmObject, m: Page, status: str) -> None:
    """The effect of a status on one page, inside the pager."""
    vm = env.vm
    page = vm.page
    swap = obj.type == OBJT_SWAP
    if status == "OK":
        page.undirty(m)
    elif status == "PEND":
        if swap:
            page.dirty(m)
            page.flag_set(m, PG_SWAPINPROG)
    elif status == "PEND_DONE":
        if swap:
            page.dirty(m)
        page.busy_wait(m, False, "swadpg")
        if swap:
            page.undirty(m)
            page.flag_clear(m, PG_SWAPINPROG)
            page.flag_set(m, PG_SWAPPED)
        if vm.meter.count_severe():
            page.deactivate(m)
        page.io_finish(m)
        page.wakeup(m)
        vm.object.pip_wakeup(obj)
