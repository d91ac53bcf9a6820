"""The house rules of design.md section 2, checked in the source: imports, no globals."""

import ast
from pathlib import Path

import pytest

import smpvm

ROOT = Path(smpvm.__file__).parent
LEVELS = [
    ["host"],
    ["kern"],
    ["vm"],
    ["repairs", "state"],
    ["check", "machine"],
    ["explore", "conform"],
    ["workload"],
    ["scenarios"],
    ["fuzz"],
    ["report"],
    ["commands"],
    ["cli", "pytest_plugin"],
]
"""Bottom to top.  Parts on one level may use each other, but for check and machine."""
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
EVERYWHERE = {"config", "exits", "files", "interrupt", "shape", "text", "unwritten"}
STRANGERS = {("check", "machine"), ("machine", "check")}
ROOMS = ["page", "pmap", "object", "map", "pager", "fault", "pageout", "proc"]
"""Of vm/, bottom to top.  Above them stands ``build``; below, what all of them use."""
VM_GROUND = {"vm", "param", "vmstats", "console", "meter"}
MODULES = sorted(p.relative_to(ROOT) for p in ROOT.rglob("*.py"))

NAMES = {".".join(("smpvm", *p.with_suffix("").parts)).removesuffix(".__init__") for p in MODULES}


def part_of(path):
    """The first component below smpvm: the layer that a module belongs to."""
    first = path.parts[0]
    return first.removesuffix(".py")


def imported_parts(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "smpvm"
                else [node.module]
            )
        else:
            continue
        for name in names:
            words = name.split(".")
            if words[0] == "smpvm" and len(words) > 1 and not words[1].startswith("__"):
                yield node.lineno, words[1]


def allowed(source, target):
    if source == target or target in EVERYWHERE or source == "__init__":
        return True
    if source in EVERYWHERE or target not in LEVEL or (source, target) in STRANGERS:
        return False
    return LEVEL[target] < LEVEL[source]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_downwards(path):
    source = part_of(path)
    if source in ("__init__", "__main__"):
        return
    assert source in LEVEL or source in EVERYWHERE, f"{path}: not in the layout of design.md"
    tree = ast.parse((ROOT / path).read_text())
    bad = [
        f"{path}:{line} imports {target}"
        for line, target in imported_parts(tree)
        if not allowed(source, target)
    ]
    assert bad == []


def runtime_imports(tree):
    """(line, module) of every import that is not for type checking only."""
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in typing:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield node.lineno, whole if whole in NAMES else node.module


def room_of(module):
    """The room of vm/ that a dotted module is in; the module's own name on the ground floor."""
    return module.split(".")[2] if module.startswith("smpvm.vm.") else ""


def may_enter(source, target):
    if source in VM_GROUND:
        return target in VM_GROUND
    return target in VM_GROUND or ROOMS.index(target) <= ROOMS.index(source)


VM_MODULES = [p for p in MODULES if p.parts[0] == "vm" and p.stem not in ("__init__", "build")]


@pytest.mark.parametrize("path", VM_MODULES, ids=str)
def test_the_rooms_of_vm_are_in_order(path):
    source = room_of("smpvm." + ".".join(path.with_suffix("").parts))
    bad = [
        f"{path}:{line} imports {module}"
        for line, module in runtime_imports(ast.parse((ROOT / path).read_text()))
        if (target := room_of(module)) and not may_enter(source, target)
    ]
    assert bad == []


def test_every_room_is_known():
    rooms = {p.parts[1] for p in VM_MODULES if len(p.parts) > 2}
    assert rooms == set(ROOMS)
    assert not may_enter("page", "object")
    assert not may_enter("param", "page")
    assert may_enter("proc", "page")


PARTS = {
    ".".join(p.with_suffix("").parts).removesuffix(".__init__"): ast.parse((ROOT / p).read_text())
    for p in MODULES
}


def test_no_module_imports_itself_in_a_circle():
    arrows = {}
    for name, tree in PARTS.items():
        wanted = {m.removeprefix("smpvm.") for _, m in runtime_imports(tree) if m}
        arrows[name] = {m for m in wanted if m in PARTS and m != name}
    done, path = set(), []

    def walk(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            path.append(name)
            for target in sorted(arrows[name]):
                walk(target)
            path.pop()
            done.add(name)

    for name in arrows:
        walk(name)


def test_the_rule_itself():
    assert allowed("vm", "kern")
    assert not allowed("kern", "vm")
    assert not allowed("vm", "check")
    assert not allowed("check", "machine")
    assert not allowed("machine", "check")
    assert allowed("machine", "vm")
    assert allowed("kern", "config")
    assert not allowed("config", "kern")
    assert allowed("explore", "check")
    assert not allowed("explore", "workload")


MUTABLE_CALLS = {
    "list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict",
    "count", "Lock", "RLock", "local", "Event", "Queue", "SimpleQueue", "WeakValueDictionary",
}  # fmt: skip
MUTABLE_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)


def called(node):
    f = node.func
    return f.id if isinstance(f, ast.Name) else f.attr if isinstance(f, ast.Attribute) else ""


def module_level(body):
    """Statements that run at import, outside classes and functions."""
    for node in body:
        if isinstance(node, ast.If | ast.Try | ast.For | ast.While | ast.With):
            yield from module_level(node.body)
            for more in ("orelse", "finalbody"):
                yield from module_level(getattr(node, more, []))
        else:
            yield node


def is_constant(node):
    """An upper-case name promises that nobody changes it; the test below holds code to that."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return all(isinstance(t, ast.Name) and t.id.lstrip("_").isupper() for t in targets)


def mutable_globals(tree):
    for node in module_level(tree.body):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        value = node.value
        dunder = isinstance(node, ast.Assign) and all(
            isinstance(t, ast.Name) and t.id.startswith("__") for t in node.targets
        )
        if dunder:
            continue
        made = isinstance(value, ast.Call) and called(value) in MUTABLE_CALLS
        if made or (isinstance(value, MUTABLE_DISPLAYS) and not is_constant(node)):
            yield node.lineno


MUTATORS = {
    "append", "extend", "insert", "remove", "pop", "popitem", "clear", "update", "setdefault",
    "add", "discard", "sort", "reverse",
}  # fmt: skip


MEMOS = {"_WALKED"}
"""Memos of a pure function, keyed by what never changes: as harmless as functools.cache."""


def changed_constants(tree):
    """Places inside functions that change an upper-case module-level name, or say ``global``."""
    constants = {
        t.id
        for node in module_level(tree.body)
        if isinstance(node, ast.Assign | ast.AnnAssign) and is_constant(node)
        for t in (node.targets if isinstance(node, ast.Assign) else [node.target])
    } - MEMOS
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in constants and node.func.attr in MUTATORS:
                yield node.lineno
        if isinstance(node, ast.Assign | ast.AugAssign | ast.Delete):
            targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
            for t in targets:
                if (
                    isinstance(t, ast.Subscript)
                    and isinstance(t.value, ast.Name)
                    and t.value.id in constants
                    and node not in tree.body
                ):
                    yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_module_level_mutable_globals(path):
    tree = ast.parse((ROOT / path).read_text())
    found = [*mutable_globals(tree), *changed_constants(tree)]
    assert [f"{path}:{line}" for line in found] == []


@pytest.mark.parametrize(
    "source",
    [
        "cache = {}",
        "seen: list[int] = []",
        "import threading\nLOCK = threading.Lock()",
        "if True:\n    state = set()",
        "TABLE = {}\ndef f():\n    TABLE[1] = 2",
        "NAMES = []\ndef f():\n    NAMES.append(1)",
        "N = 0\ndef f():\n    global N\n    N += 1",
    ],
)
def test_the_search_for_globals_finds_them(source):
    tree = ast.parse(source)
    assert [*mutable_globals(tree), *changed_constants(tree)]


@pytest.mark.parametrize("source", ["NAMES = {1: 'a'}", "T = (1, 2)", "__all__ = ['a']"])
def test_the_search_for_globals_accepts_constants(source):
    tree = ast.parse(source)
    assert not [*mutable_globals(tree), *changed_constants(tree)]
