"""How many fields of the kernel are declared, how many are left, and why."""

import ast
import importlib
import inspect
import pkgutil
from collections import Counter
from pathlib import Path

import smpvm
import smpvm.kern
import smpvm.vm

HOME = Path(smpvm.__file__).parent

ONE_THREAD = "on the stack of one thread"
PRIMITIVE = "what order is made of: its own host lock, or its owner only"
LOCAL = {
    **dict.fromkeys(
        ("Around", "FaultState", "CleanScan", "_Scan", "Round", "DeactivateInfo", "Tally"),
        ONE_THREAD,
    ),
    **dict.fromkeys(("ActiveScan", "BigProc", "InactiveScan", "SchedulerInfo"), ONE_THREAD),
    **dict.fromkeys(("Atomics", "ProbedAtomics", "Kernel", "Lock", "Request", "Sched"), PRIMITIVE),
    **dict.fromkeys(("Hook", "Spinlock", "SpinPool", "End", "Thread", "TokRef"), PRIMITIVE),
    **dict.fromkeys(("Token", "Sleeper", "SleepQueue", "Mmu", "Marks", "Probes"), PRIMITIVE),
}
"""Classes whose fields are all left for one reason."""

DEVICE = "the model's device: passed on by submit and done, under the device's own lock"
BUSY = "whoever has the page busy; the hardware names its accesses (stress/undeclared.py)"
ENTRY = "with its map locked: an entry does not know its map, VmMap.tree stands for it"
SPACE = "its process alone, or nobody else yet"
DAEMON = "one daemon's static variable"
LEFT = {
    **dict.fromkeys(
        [
            f"Io.{f}"
            for f in [
                "disk",
                "done",
                "due",
                "error",
                "first",
                "object",
                "reqpage",
                "slots",
                "store",
            ]
        ],
        DEVICE,
    ),
    **dict.fromkeys(("Disk.reads", "Disk.writes", "Disk.thread"), DEVICE),
    **dict.fromkeys(("Slots.limit", "Slots.users"), DEVICE),
    **dict.fromkeys(("SwapCompletion.store", "SwapIo.swbio", "File.blocks", "File.size"), DEVICE),
    **dict.fromkeys(("SwapCompletion.disk", "VnodeIo.disk"), DEVICE),
    **dict.fromkeys(("Page.busy_owner", "Page.contents"), BUSY),
    **dict.fromkeys(
        [
            "VmMapEntry." + f
            for f in [
                "aux",
                "eflags",
                "end",
                "freed",
                "inheritance",
                "maptype",
                "max_protection",
                "offset",
                "prev",
                "protection",
                "start",
            ]
        ],
        ENTRY,
    ),
    **dict.fromkeys(("PageTree._keys", "PageTree._pages", "PageTree._scans"), "VmObject.rb_memq"),
    **dict.fromkeys(("Blist.free_count", "Blist._best", "Blist._free"), "SwapSpace.blist"),
    **dict.fromkeys(("SwBlock.swb_count", "SwBlock.swb_pages"), "found in VmObject.swblock_root"),
    **dict.fromkeys(("SwapSpace.nswap_hiwat", "SwapSpace.nswap_lowat"), "set at boot"),
    **dict.fromkeys(("VmMap.flags", "VmMap.pmap", "VmMap.vmspace", "Pmap.map"), SPACE),
    **dict.fromkeys(
        [
            "VmSpace.vm_" + f
            for f in ["daddr", "dsize", "maxsaddr", "ssize", "swrss", "taddr", "tsize"]
        ],
        SPACE,
    ),
    **dict.fromkeys(("Proc.p_rlimit_rss_cur", "Proc.p_rlimit_rss_max"), SPACE),
    **dict.fromkeys(("ScanCache.lastkillticks", "ScanCache.lsec"), DAEMON),
    **dict.fromkeys(("PageStats.fullintervalcount", "VmDaemon.lastrun"), DAEMON),
    **dict.fromkeys(
        ["Syncer." + f for f in ["delayno", "rounds", "slot", "syncer_rushjob"]], DAEMON
    ),
    "PageReclaim.dnweight": "a static counter that only spreads pages; races are harmless",
    "ObjectsBase.quick_color": "per CPU; only spreads colours",
    "ObjectsBase.lists": "a table made at boot; ObjectList.objects are its lists",
    "ObjectsBase.list_tokens": "a table made at boot",
    "ObjectsBase.collapses": "a statistic of the model",
    "ObjectsBase.bypasses": "a statistic of the model",
    "Collapse.collapses": "a statistic of the model",
    "Collapse.bypasses": "a statistic of the model",
    "SwapPager.nsw_wcount_async_max": "changed under the pool's counts, which are atomic",
    "SwapCompletion.nsw_wcount_async_max": "changed under the pool's counts, which are atomic",
    "SwapPager.swap_async_max": "a sysctl",
    "SwapCompletion.swap_async_max": "a sysctl",
    "VmObject.pg_color": "set once, before anybody else knows the object",
    "VmObject.zfreed": "the model's own mark of what is freed",
    "PvEntry.pmap": "with the pv locked; a lock word has no owner to ask for",
    "Pmap.ptes": "each step is atomic, and a schedule point of its own",
    "Clock.start": "set at boot",
    "Clock.uptime_start": "set at boot",
    "Proc.p_pptr": "with p_token of the child, or of the parent: either will do (kern_exit.c:1213)",
    "Proc.p_swtime": "a statistic that only swap-in looks at",
    "Procs.procglob": "filled under a host lock: the C has all buckets from boot on",
    "Vnode.data": "set before anybody else knows the vnode",
    "Vnodes._all": "under a host lock: for reports",
    "Processes.families": "the model's index: one step each",
    "Vm.queues": "filled at boot",
    "Vm.page_array": "filled at boot",
    "PageBase.queues": "filled at boot",
    "Blist.blocks": "set once",
    **dict.fromkeys(
        ("Idents.v_free_count", "Idents.vm_pageout_pages_needed", "Idents.vm_pages_needed"),
        "set once",
    ),
}


def classes():
    for package in (smpvm.vm, smpvm.kern):
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            module = importlib.import_module(info.name)
            for cls in vars(module).values():
                own = inspect.isclass(cls) and cls.__module__ == module.__name__
                if own and not issubclass(cls, (tuple, BaseException)):
                    yield cls


class Stores(ast.NodeVisitor):
    """Names of attributes that are set outside constructors, and those that hold a container."""

    def __init__(self):
        self.changed, self.containers, self.inside = set(), set(), [""]

    def visit_FunctionDef(self, node):
        self.inside.append(node.name)
        self.generic_visit(node)
        self.inside.pop()

    def visit_Attribute(self, node):
        if not isinstance(node.ctx, ast.Load) and self.inside[-1] not in ("__init__", "__new__"):
            self.changed.add(node.attr)
        self.generic_visit(node)

    def _assigned(self, target, value):
        many = value.left if isinstance(value, ast.BinOp) else value
        kinds = (ast.Dict, ast.List, ast.ListComp, ast.DictComp, ast.Set)
        if isinstance(target, ast.Attribute) and isinstance(many, kinds):
            self.containers.add(target.attr)

    def visit_Assign(self, node):
        self._assigned(node.targets[0], node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node):
        self._assigned(node.target, node.value)
        self.generic_visit(node)


def stores():
    found = Stores()
    for package in ("vm", "kern"):
        for path in sorted((HOME / package).rglob("*.py")):
            found.visit(ast.parse(path.read_text()))
    return found


def fields(cls):
    """The names of its own fields."""
    slots = vars(cls).get("__slots__")
    if slots is not None:
        return [name for name in slots if name != "__weakref__"]
    tree = ast.parse(inspect.getsource(cls))
    return sorted(
        {
            at.attr
            for at in ast.walk(tree)
            if isinstance(at, ast.Attribute)
            and isinstance(at.ctx, ast.Store)
            and isinstance(at.value, ast.Name)
            and at.value.id == "self"
        }
    )


def census():
    """(class.field, what it is) of every field."""
    found = stores()
    for cls in classes():
        for name in fields(cls):
            whole = f"{cls.__name__}.{name}"
            if name in getattr(cls, "__guards__", {}):
                yield whole, "guarded"
            elif name in getattr(cls, "__shared__", ()):
                atomic = name in cls.__instant__
                yield whole, "atomic" if atomic else "shared"
            elif cls.__name__ in LOCAL:
                yield whole, "left"
            elif name in found.changed or name in found.containers:
                yield whole, "left" if whole in LEFT else "?"
            else:
                yield whole, "constant"


def test_every_field_is_declared_or_left_with_a_reason():
    rows = list(census())
    count = Counter(kind for _, kind in rows)
    print(
        f"{len(rows)} fields of vm/ and kern/: {count['guarded']} belong to a lock, "
        f"{count['atomic']} are atomic, {count['shared']} ordered by happens-before; "
        f"{count['constant']} never change; {count['left']} are left:"
    )
    reasons = Counter(
        LOCAL.get(whole.partition(".")[0]) or LEFT[whole] for whole, kind in rows if kind == "left"
    )
    for why, n in sorted(reasons.items()):
        print(f"  {n:3} {why}")
    assert [whole for whole, kind in rows if kind == "?"] == []
    assert count["guarded"] >= 40


def test_no_reason_is_left_over():
    left = {whole for whole, kind in census() if kind == "left"}
    assert [whole for whole in LEFT if whole not in left] == []
    names = {whole.partition(".")[0] for whole in left}
    assert [cls for cls in LOCAL if cls not in names] == []


def test_every_guard_cites_the_c_and_names_a_field():
    for cls in classes():
        for name, guards in vars(cls).get("__guards__", {}).items():
            assert name in fields(cls) or hasattr(cls, "__slots__") is False, (cls, name)
            for guard in guards:
                assert ".c:" in guard.at or ".h:" in guard.at, guard
                assert all(site.why and site.at for site in guard.sites), guard
