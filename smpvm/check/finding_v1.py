"""The identity of findings in format version 1, whose fingerprints depended on their wording.

Version 1 is only read: the wordings of titles and sites matched here are no longer written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Final

from smpvm.check.stacks import Frame, identity_of
from smpvm.kern.cname import MARKS
from smpvm.text import nameless

if TYPE_CHECKING:
    from smpvm.check.finding import Finding, Site

Identity = tuple[str, ...]

_PRIMITIVES: Final = ("kern/", "vm/page_busy.py", "vm/page/busy.py")
_HELPERS: Final = ("PageLocks.", "MapBase.lock", "MapBase.unlock", "PageObjects.lookup_busy")
_PROGRAMS: Final = ("scenarios/", "workload/")
"""Files whose frames named no C function, or a wrong one."""

_MISPLACED: Final = {"to": "owned"}
_MISUSES: Final = (("releases as", "mode"), ("releases what", "not-held"), ("ends", "kept"))
_AUDIT: Final = {
    "queue links point both ways": "queue-links",
    "no marker stays on a queue": "marker-left",
    "a page is on one queue": "page-on-two-queues",
    "a page names the queue it is on": "queue-name",
    "a queue's tail is its last page": "queue-tail",
    "a queue's count is its pages": "queue-count",
    "a page is on the queue it names": "page-off-queue",
    "no page is left busy": "page-busy",
    "no page is left in I/O": "page-in-io",
    "no page is left with swap I/O in progress": "swap-io",
    "nobody waits for a page": "page-wanted",
    "no page is held without an owner": "page-held",
    "no page is wired without an owner": "page-wired",
    "no page is lost": "page-lost",
    "a mapped page says so": "mapped-flag",
    "no page stays mapped": "page-mapped",
    "a free page belongs to no object": "free-page-owned",
    "a page in use belongs to an object": "page-unowned",
    "a cached page is clean": "cached-dirty",
    "a cached page is not mapped": "cached-mapped",
    "a free page is neither wired nor held": "free-page-in-use",
    "a page is in its object": "page-index",
    "a writeable page is mapped": "writeable-unmapped",
    "vmstats counts what is there": "vmstats",
    "no paging is left in progress": "paging-in-progress",
    "no object is left held": "object-held",
    "an object counts its pages": "resident-count",
    "an object counts its shadows": "shadow-count",
    "an object's page names it": "page-of-other-object",
    "a swap block has one owner": "swap-shared",
    "no swap block is leaked": "swap-leaked",
    "no process is left": "process-left",
    "anonymous memory ends with its processes": "memory-left",
}
"""The rules of the audit, by their former texts."""


@cache
def _known() -> Mapping[str, str]:
    """Qualified name of a method of the model → its name in fingerprints."""
    import smpvm.vm.build  # all marks are made when the model is imported

    assert smpvm.vm.build
    return {f.__qualname__: identity_of(f.__code__) for f, mark in MARKS if mark.c}


def _called(frame: Frame) -> str:
    """The name of a frame's function in fingerprints."""
    if frame.file.startswith(_PROGRAMS):
        return frame.name
    return _known().get(frame.name) or frame.c or frame.name


def _functions(stack: Sequence[Frame], count: int = 2) -> Identity:
    """``stacks.functions`` for resolved frames."""
    kept = [
        f for f in stack if not f.file.startswith(_PRIMITIVES) and not f.name.startswith(_HELPERS)
    ]
    return tuple(name for name, _ in groupby(map(_called, (kept or list(stack))[:count])))


def _in_parentheses(text: str) -> str:
    return text.rpartition("(")[2].rstrip(")")


def _lock_class(text: str) -> str:
    """The class of a lock, from its text: ``token object obj 3``."""
    family, cls, *_ = [*text.split(), ""]
    return cls if family in ("token", "lock", "spinlock") else ""


def _scenario(f: Finding) -> str:
    return (f.schedule or "").split("/", 5)[-1].rpartition(":")[2]


def _race(f: Finding) -> Identity:
    cls, field = f.title.split()[0].split(".")
    ends = (
        " ".join((s.what.split()[0].removesuffix("s"), *_functions(s.stack, 1))) for s in f.sites
    )
    return cls, field, *sorted(ends)


def _wakeup(f: Finding) -> Identity:
    return _in_parentheses(f.sites[0].what), *_functions(f.sites[0].stack)


def _audit(f: Finding) -> Identity:
    rule = f.evidence[0].removeprefix(f"{f.objects[0]}: ") if f.evidence else f.title
    return (next((code for said, code in _AUDIT.items() if said in rule), rule),)


def _marker(f: Finding) -> Identity:
    if f.title.startswith("a marker "):
        how = f.title.split()[3]
        return "misplaced", _MISPLACED.get(how, how), *_functions(f.sites[0].stack)
    return f.sites[1].what, *_functions(f.sites[0].stack)


def _deadlock(f: Finding) -> Identity:
    waits = [s for s in f.sites if s.what.startswith("waits for ")]
    return tuple(sorted(map(_wait, waits))) if waits else _stuck(f)


def _wait(site: Site) -> str:
    what = site.what.removeprefix("waits for ")
    cls = _lock_class(what)
    kind = {"busy": "page", "paging_in_progress": "pip"}.get(
        what.split()[0], "lock" if cls else "slot"
    )
    return f"{kind} {cls} {' '.join(_functions(site.stack, 1))}"


def _order(f: Finding) -> Identity:
    first, last = f.sites[0], f.sites[-1]
    if f.title.startswith("cycle "):
        held = [s.what.removeprefix("took ") for s in f.sites[::2]]
        then = [s.what.removeprefix("then took ") for s in f.sites[1::2]]
        return "cycle", *map("{}>{}".format, held, then)
    if nested := re.match(r"two of class (\S+):", f.title):
        return "nested", nested[1], *_functions(first.stack), *_functions(last.stack)
    return f.title.partition(":")[0], *(fn for s in f.sites for fn in _functions(s.stack, 1))


def _release(f: Finding) -> Identity:
    (site,) = f.sites
    how = next(how for begins, how in _MISUSES if site.what.startswith(begins))
    cls = _lock_class(f.objects[0]) or "busy"
    return how, cls, *_functions(site.stack)


def _panic(f: Finding) -> Identity | None:
    code = f.sites[-1].what if f.sites else ""
    if not code.startswith("panics with "):
        return None
    return code.removeprefix("panics with "), *_functions(f.sites[-1].stack, 1)


def _assertion(f: Finding) -> Identity:
    """Without the number of the assertion within its function, which version 1 did not store."""
    said = _functions(f.sites[0].stack) if f.sites else (nameless(f.title),)
    return _scenario(f), *said


def _stuck(f: Finding) -> Identity:
    ops = (f"{s.thread} {s.what.removeprefix('is at ')}" for s in f.sites)
    if f.kind != "livelock" or f.title.startswith("every "):
        return _scenario(f), *sorted(map(nameless, ops))
    return _scenario(f), *sorted(nameless(s.thread) for s in f.sites)


def _stall(f: Finding) -> Identity:
    if f.sites:
        return _stuck(f)
    profile = re.search(r"--profile[ =](\S+)", f.command)
    return (profile[1] if profile else "default",)


def _stale(f: Finding) -> Identity:
    got = f.evidence[0].removeprefix("read:").strip()
    place = "file" if f.title.startswith("file ") else "memory"
    return place, "zero" if got.startswith("0 (") else "old"


_READERS: Final[Mapping[str, Callable[[Finding], Identity]]] = {
    "race": _race,
    "lost-wakeup": _wakeup,
    "masked-lost-wakeup": _wakeup,
    "audit": _audit,
    "marker": _marker,
    "deadlock": _deadlock,
    "lock-order": _order,
    "sleep-with-spinlock": _order,
    "wrong-release": _release,
    "assertion": _assertion,
    "livelock": _stuck,
    "starvation": _stuck,
    "stall": _stall,
    "stale-data": _stale,
}


def identity(f: Finding) -> Identity:
    """The identity of *f*, as far as its file contains it; empty if not."""
    try:
        return _panic(f) or _READERS[f.kind](f)
    except (IndexError, KeyError, StopIteration, ValueError):
        return ()
