"""Mutations: what other threads do while the code blocks (FORMAT.md section 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smpvm.conform.carrier import Stuck
from smpvm.state import names
from smpvm.vm.page.struct import PG_BUSY, Page
from smpvm.vm.param import VM_PROT_NONE, u32

if TYPE_CHECKING:
    from smpvm.conform.env import Env

Op = dict[str, Any]


def apply(env: Env, op: Op) -> None:
    """Apply one mutation."""
    _OPS[op["op"]](env, op)


def busy(env: Env, m: Page) -> None:
    """Set PG_BUSY, whoever may own the page."""
    m.flags |= PG_BUSY
    m.busy_owner = env.k.curthread()


def _page(env: Env, op: Op) -> Page:
    return env.roster.pages[op["page"]]


def _page_free(env: Env, m: Page) -> None:
    busy(env, m)
    env.vm.page.protect(m, VM_PROT_NONE)
    env.vm.page.free(m)


def _page_io_start(env: Env, m: Page) -> None:
    busy(env, m)
    env.vm.page.io_start(m)
    env.vm.page.wakeup(m)


def _page_wire(env: Env, m: Page) -> None:
    busy(env, m)
    env.vm.page.wire(m)
    env.vm.page.wakeup(m)


def _page_cache(env: Env, m: Page) -> None:
    busy(env, m)
    env.vm.page.cache(m)


def _page_alloc(env: Env, m: Page) -> None:
    busy(env, m)
    env.vm.page.unqueue_nowakeup(m)


_PAGE_OPS: dict[str, Callable[[Env, Page], None]] = {
    "page_activate": lambda env, m: env.vm.page.activate(m),
    "page_deactivate": lambda env, m: env.vm.page.deactivate(m),
    "page_hold": lambda env, m: env.vm.page.hold(m),
    "page_unhold": lambda env, m: env.vm.page.unhold(m),
    "page_busy": busy,
    "page_wakeup": lambda env, m: env.vm.page.wakeup(m),
    "page_io_start": _page_io_start,
    "page_wire": _page_wire,
    "page_cache": _page_cache,
    "page_free": _page_free,
    "page_alloc": _page_alloc,
}


def _page_rename(env: Env, op: Op) -> None:
    vm, m = env.vm, _page(env, op)
    busy(env, m)
    new = env.roster.objects[op["object"]]
    old = m.object
    tokens = [obj.token for obj in (old, new) if obj is not None]
    for token in tokens:
        token.get()
    vm.page.rename(m, new, op["pindex"])
    for token in reversed(tokens):
        token.release()
    vm.page.wakeup(m)


def _page_set(env: Env, op: Op) -> None:
    m = _page(env, op)
    for name in ("act_count", "valid", "dirty"):
        if name in op:
            setattr(m, name, op[name])


def _page_flags_set(env: Env, op: Op) -> None:
    _page(env, op).flags |= names.bits_of(op["flags"], names.PAGE_FLAGS)


def _page_flags_clear(env: Env, op: Op) -> None:
    _page(env, op).flags &= ~names.bits_of(op["flags"], names.PAGE_FLAGS)


def _pmap_touch(env: Env, op: Op) -> None:
    env.roster.touch(_page(env, op), op["pv"], bool(op.get("write")))


def _object_handle(env: Env, op: Op) -> None:
    vnode = op["vnode"]
    env.roster.objects[op["object"]].handle = None if vnode is None else env.roster.vnodes[vnode]


def _object_type(env: Env, op: Op) -> None:
    env.roster.objects[op["object"]].type = names.OBJECT_TYPES.index(op["type"])


def _object_ref_count(env: Env, op: Op) -> None:
    env.roster.objects[op["object"]].ref_count = op["value"]


def _object_backing(env: Env, op: Op) -> None:
    obj = env.roster.objects[op["object"]]
    backing = None if op["backing"] is None else env.roster.objects[op["backing"]]
    behind = backing
    while behind is not None:
        if behind is obj:
            raise Stuck(f"{obj} would be behind itself: the code would follow that for ever")
        behind = behind.backing_object
    obj.backing_object = backing


def _global(env: Env, op: Op) -> None:
    if op["name"] in ("ticks", "time_uptime"):
        setattr(env, op["name"], op["value"])
    else:
        env.roster.set_global(op["name"], op["value"])


def _vmstat(env: Env, op: Op) -> None:
    setattr(env.vm.stats, op["name"], u32(op["value"]))


def _phantom_free(env: Env, op: Op) -> None:
    stats = env.vm.stats
    stats.v_free_count = u32(stats.v_free_count + op["value"])


def _on_page(f: Callable[[Env, Page], None]) -> Callable[[Env, Op], None]:
    return lambda env, op: f(env, _page(env, op))


_OPS: dict[str, Callable[[Env, Op], None]] = {
    **{name: _on_page(f) for name, f in _PAGE_OPS.items()},
    "page_rename": _page_rename,
    "page_set": _page_set,
    "page_flags_set": _page_flags_set,
    "page_flags_clear": _page_flags_clear,
    "pmap_touch": _pmap_touch,
    "object_handle": _object_handle,
    "object_type": _object_type,
    "object_ref_count": _object_ref_count,
    "object_backing": _object_backing,
    "global": _global,
    "vmstat": _vmstat,
    "phantom_free": _phantom_free,
}
