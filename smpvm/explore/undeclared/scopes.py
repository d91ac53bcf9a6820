"""Which names of a function are its own, and which it shares with functions around and inside."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
COMPREHENSION: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
NESTED: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, *COMPREHENSION)


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    """What *node* runs itself: the bodies of functions in it are not entered."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, NESTED):
            yield from _inside(child)
        elif isinstance(child, COMPREHENSION):  # ``:=`` in it binds outside
            yield from (n for n in ast.walk(child) if isinstance(n, ast.NamedExpr))


def bound(node: ast.AST) -> set[str]:
    """The names that function, class or comprehension *node* binds."""
    if isinstance(node, COMPREHENSION):
        targets = (n for g in node.generators for n in ast.walk(g.target))
        return {n.id for n in targets if isinstance(n, ast.Name)}
    names: set[str] = set()
    given: set[str] = set()
    if isinstance(node, Function):
        names |= {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
    for n in _inside(node):
        match n:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.add(name)
            case ast.NamedExpr(target=ast.Name(id=name)):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name):
                names.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                names.add(name)
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                names.add(name)
            case ast.alias(name=name, asname=asname):
                names.add(asname or name.partition(".")[0])
            case ast.Global(names=elsewhere) | ast.Nonlocal(names=elsewhere):
                given.update(elsewhere)
            case _:
                pass
    return names - given


def says_global(node: ast.AST) -> set[str]:
    """The names that *node* declares global."""
    return {name for n in _inside(node) if isinstance(n, ast.Global) for name in n.names}


class Scopes:
    """The scopes around the node that is being visited, innermost last."""

    def __init__(self, tree: ast.Module) -> None:
        self._stack: list[tuple[ast.AST, set[str], set[str]]] = []
        self._captured: set[tuple[ast.AST, str]] = set()
        """(scope, name) of variables that inner functions use."""
        self._learn(tree)

    def _learn(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Name) and self._stack:
                home = self._home(child.id)
                if home is not None and home is not self._stack[-1][0]:
                    self._captured.add((home, child.id))
            if isinstance(child, NESTED):
                self.enter(child)
                self._learn(child)
                self.leave()
            else:
                self._learn(child)

    def enter(self, node: ast.AST) -> None:
        """The visit goes into a function, class or comprehension."""
        self._stack.append((node, bound(node), says_global(node)))

    def leave(self) -> None:
        """And out again."""
        self._stack.pop()

    def _home(self, name: str) -> ast.AST | None:
        """The scope whose variable *name* is; None: the module's, or a builtin."""
        for at in range(len(self._stack) - 1, -1, -1):
            node, names, elsewhere = self._stack[at]
            if name in elsewhere:
                return None
            inner = at == len(self._stack) - 1
            if name in names and (inner or not isinstance(node, ast.ClassDef)):
                return node
        return None

    def kind(self, name: str) -> str:
        """Of *name* here: ``global``, ``cell`` (shared with other functions), or ``local``."""
        home = self._home(name)
        if home is None:
            return "global"
        if isinstance(home, ast.ClassDef) or isinstance(self._stack[-1][0], ast.ClassDef):
            return "local"
        return "cell" if (home, name) in self._captured else "local"

    @property
    def in_function(self) -> bool:
        """Is it a function's body that is being visited (or a comprehension in one)?"""
        return bool(self._stack) and not isinstance(self._stack[-1][0], ast.ClassDef)
