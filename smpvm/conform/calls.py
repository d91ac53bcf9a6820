"""Calls of the model: from a C function's name to the method (FORMAT.md section 8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smpvm.state import names
from smpvm.vm.pageout.marker import Tally
from smpvm.vm.pageout.scan_cache import BigProc

if TYPE_CHECKING:
    from smpvm.conform.env import Env
    from smpvm.vm.page.struct import Page

Args = dict[str, Any]
Returns = dict[str, Any]


def call(env: Env, function: str, args: Args) -> Returns:
    """Make the call; the result has the form of a vector's ``returns``.

    *args* have been validated (``shapes``).  May raise whatever the model raises.
    """
    return CALLS[function](env, args)


def _value(value: Any) -> Returns:
    return {"value": int(value) if isinstance(value, bool) else value}


def _page_or_none(env: Env, m: Page | None) -> int | str | None:
    return None if m is None else env.roster.page_id(m)


def _pqaverage(env: Env, a: Args) -> Returns:
    return _value([env.vm.pageout.pqaverage(n) for n in a["n"]])


def _page_counts(env: Env, a: Args) -> Returns:
    meter = env.vm.meter
    return _value(
        {
            "severe": int(meter.count_severe()),
            "min": int(meter.count_min(a["donotcount"])),
            "target": int(meter.count_target()),
            "paging_target": meter.paging_target(),
            "paging_needed": int(meter.paging_needed()),
        }
    )


def _flush(env: Env, a: Args) -> Returns:
    pages = [env.roster.pages[n] for n in a["pages"]]
    return _value(env.vm.pageout.flush(pages, a["flags"]))


def _object_deactivate(env: Env, a: Args) -> Returns:
    vm = env.vm
    map_, obj = env.roster.maps[a["map"]], env.roster.objects[a["object"]]
    vm.object.hold(obj)
    vm.pageout.object_deactivate_pages(map_, obj, a["desired"], a["map_remove_only"])
    vm.object.drop(obj)
    return _value(None)


def _map_deactivate(env: Env, a: Args) -> Returns:
    env.vm.pageout.map_deactivate_pages(env.roster.maps[a["map"]], a["desired"])
    return _value(None)


def _scan_inactive(env: Env, a: Args) -> Returns:
    tally = Tally(vnodes_skipped=a["vnodes_skipped"])
    value = env.vm.pageout.scan_inactive(a["pass"], a["q"], a["avail_shortage"], tally)
    return {"value": value, "vnodes_skipped": tally.vnodes_skipped}


def _scan_active(env: Env, a: Args) -> Returns:
    tally = Tally(recycle_count=a["recycle_count"])
    value = env.vm.pageout.scan_active(
        a["pass"], a["q"], a["avail_shortage"], a["inactive_shortage"], tally
    )
    return {"value": value, "recycle_count": tally.recycle_count}


def _scan_cache(env: Env, a: Args) -> Returns:
    env.vm.pageout.scan_cache(
        a["avail_shortage"], a["pass"], a["vnodes_skipped"], a["recycle_count"]
    )
    return _value(None)


def _scan_callback(env: Env, a: Args) -> Returns:
    best = None if a["bigproc"] is None else env.roster.proc(a["bigproc"])
    info = BigProc(best, a["bigsize"])
    value = env.vm.pageout.scan_callback(env.roster.proc(a["proc"]), info)
    pid = None if info.bigproc is None else info.bigproc.p_pid
    return {"value": value, "bigproc": pid, "bigsize": info.bigsize}


def _lookup_busy_try(env: Env, a: Args) -> Returns:
    vm, obj = env.vm, env.roster.objects[a["object"]]
    vm.object.hold(obj)
    m, error = vm.page.lookup_busy_try(obj, a["pindex"], bool(a["also_m_busy"]))
    vm.object.drop(obj)
    return {"value": _page_or_none(env, m), "error": int(error)}


def _list_find(env: Env, a: Args) -> Returns:
    vm = env.vm
    base = 1 + names.QUEUES.index(a["queue"]) * vm.pq.L2_SIZE
    m = vm.page.list_find(base, a["index"], bool(a["prefer_zero"]))
    if m is not None:
        vm.page.spin_unlock(m)
    return _value(_page_or_none(env, m))


def _alloc(env: Env, a: Args) -> Returns:
    vm = env.vm
    obj = None if a["object"] is None else env.roster.objects[a["object"]]
    if obj is not None:
        vm.object.hold(obj)
    m = vm.page.alloc(obj, a["pindex"], a["page_req"])
    if obj is not None:
        vm.object.drop(obj)
    return _value(_page_or_none(env, m))


def _void(body: Callable[[Env, Args], None]) -> Callable[[Env, Args], Returns]:
    """The call of a function that returns nothing."""

    def run(env: Env, a: Args) -> Returns:
        body(env, a)
        return _value(None)

    return run


def _on_page(
    method: Callable[[Env], Callable[..., Any]], *extra: tuple[str, type]
) -> Callable[[Env, Args], Returns]:
    """The call of a method that takes a page and *extra* arguments (name, type)."""

    def run(env: Env, a: Args) -> Returns:
        more = [kind(a[name]) for name, kind in extra]
        return _value(method(env)(env.roster.pages[a["page"]], *more))

    return run


CALLS: dict[str, Callable[[Env, Args], Returns]] = {
    "PQAVERAGE": _pqaverage,
    "vm_pageout_free_page_calc": lambda env, a: _value(env.vm.pageout.free_page_calc(a["count"])),
    "vm_page_counts": _page_counts,
    "vm_pageout_clean": _on_page(lambda env: env.vm.pageout.clean),
    "vm_pageout_flush": _flush,
    "vm_pageout_object_deactivate_pages": _object_deactivate,
    "vm_pageout_map_deactivate_pages": _map_deactivate,
    "vm_pageout_page_free": _on_page(lambda env: env.vm.pageout.page_free),
    "vm_pageout_scan_inactive": _scan_inactive,
    "vm_pageout_scan_active": _scan_active,
    "vm_pageout_scan_cache": _scan_cache,
    "vm_pageout_scan_callback": _scan_callback,
    "vm_pageout_page_stats": _void(lambda env, a: env.vm.pageout.page_stats(a["q"])),
    "pagedaemon_wakeup": _void(lambda env, a: env.vm.pageout.pagedaemon_wakeup()),
    "vm_req_vmdaemon": _void(lambda env, a: env.vm.vmdaemon.req_vmdaemon()),
    "vm_daemon_callback": lambda env, a: _value(
        env.vm.vmdaemon.daemon_callback(env.roster.proc(a["proc"]))
    ),
    "vm_daemon": _void(lambda env, a: env.vm.vmdaemon.daemon()),
    "vm_pageout_thread": _void(lambda env, a: env.vm.pageout.thread()),
    "vm_wait": _void(lambda env, a: env.vm.page.vm_wait(a["timo"])),
    "vm_page_activate": _on_page(lambda env: env.vm.page.activate),
    "vm_page_deactivate": _on_page(lambda env: env.vm.page.deactivate),
    "vm_page_cache": _on_page(lambda env: env.vm.page.cache),
    "vm_page_free": _on_page(lambda env: env.vm.page.free),
    "vm_page_hold": _on_page(lambda env: env.vm.page.hold),
    "vm_page_unhold": _on_page(lambda env: env.vm.page.unhold),
    "vm_page_wire": _on_page(lambda env: env.vm.page.wire),
    "vm_page_wakeup": _on_page(lambda env: env.vm.page.wakeup),
    "vm_page_io_start": _on_page(lambda env: env.vm.page.io_start),
    "vm_page_io_finish": _on_page(lambda env: env.vm.page.io_finish),
    "vm_page_unqueue": _on_page(lambda env: env.vm.page.unqueue),
    "vm_page_unqueue_nowakeup": _on_page(lambda env: env.vm.page.unqueue_nowakeup),
    "vm_page_test_dirty": _on_page(lambda env: env.vm.page.test_dirty),
    "vm_page_dirty": _on_page(lambda env: env.vm.page.dirty),
    "vm_page_unwire": _on_page(lambda env: env.vm.page.unwire, ("activate", bool)),
    "vm_page_busy_try": _on_page(lambda env: env.vm.page.busy_try, ("also_m_busy", bool)),
    "vm_page_busy_wait": _void(
        lambda env, a: env.vm.page.busy_wait(
            env.roster.pages[a["page"]], bool(a["also_m_busy"]), "testwt"
        )
    ),
    "vm_page_protect": _on_page(lambda env: env.vm.page.protect, ("prot", int)),
    "pmap_ts_referenced": _on_page(lambda env: env.vm.pmap.ts_referenced),
    "vm_page_try_to_cache": _on_page(lambda env: env.vm.page.try_to_cache),
    "vm_page_try_to_free": _on_page(lambda env: env.vm.page.try_to_free),
    "vm_page_dontneed": _on_page(lambda env: env.vm.page.dontneed),
    "vm_page_lookup_busy_try": _lookup_busy_try,
    "vm_page_list_find": _list_find,
    "vm_page_select_cache": lambda env, a: _value(
        _page_or_none(env, env.vm.page.select_cache(a["color"] & 0xFFFF))
    ),
    "vm_page_select_free": lambda env, a: _value(
        _page_or_none(env, env.vm.page.select_free(a["color"] & 0xFFFF, bool(a["prefer_zero"])))
    ),
    "vm_page_alloc": _alloc,
}
