"""A scenario's source with a call before each access to what threads could share.

The accesses themselves stay where they are, in the scenario's own frames, on their lines: stacks
and fingerprints are those of the code as written.  ``HOOK`` is the name of the object that is
called (``watch.Watch``).
"""

from __future__ import annotations

import ast
import builtins
from typing import Any, Final

from smpvm.explore.undeclared.scopes import NESTED, Scopes

HOOK: Final = "__smpvm__"
TEXT: Final = "as_written"
"""The attribute of a node that has its text."""
BY_KEY: Final = frozenset(("get", "setdefault", "pop", "add", "discard", "remove"))
"""Methods whose first argument is the element that they are about."""
BY_NAME: Final = frozenset(("getattr", "setattr", "delattr", "hasattr"))
LEFT_ALONE: Final = frozenset(("super", "locals", "globals", "vars", "eval", "exec"))


class Rewriter(ast.NodeTransformer):
    """Of one file; ``visit`` the module."""

    def __init__(self, tree: ast.Module) -> None:
        self._scopes = Scopes(tree)

    # -- making calls

    def _hook(self, at: ast.AST, method: str, *args: ast.expr) -> ast.expr:
        load = ast.Load()
        hook = ast.Attribute(ast.Name(HOOK, load), method, load)
        call = ast.Call(hook, list(args), [])
        return ast.fix_missing_locations(ast.copy_location(call, at))

    def _named(self, method: str, of: ast.expr, new: ast.expr, *args: ast.expr) -> ast.expr:
        """A call that also gets the text of *of*, to call by it what it is about."""
        return self._hook(of, method, new, *args, ast.Constant(getattr(of, TEXT, "")))

    def _plain(self, node: Any) -> Any:
        """Visit *node*, whose value goes on without anybody looking into it."""
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        if isinstance(node, ast.Name):
            return self._name(node)
        return self.visit(node)

    def _looked_into(self, node: ast.expr, new: ast.expr) -> ast.expr:
        if not self._scopes.in_function or not isinstance(getattr(node, "ctx", None), ast.Load):
            return new
        return self._named("whole", node, new)

    # -- scopes and statements

    def generic_visit(self, node: ast.AST) -> ast.AST:
        nested = isinstance(node, NESTED)
        if nested:
            self._scopes.enter(node)
        for name, value in ast.iter_fields(node):
            if nested and name in ("args", "decorator_list", "returns", "bases", "keywords"):
                continue  # run elsewhere, or say nothing
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                setattr(node, name, self._block(value))
            elif isinstance(value, list):
                setattr(node, name, [self.visit(v) if isinstance(v, ast.AST) else v for v in value])
            elif isinstance(value, ast.AST):
                setattr(node, name, self.visit(value))
        if nested:
            self._scopes.leave()
        return node

    def _block(self, stmts: list[ast.stmt]) -> list[ast.stmt]:
        """*stmts* rewritten; behind each what must be said of the variables that it has written."""
        out: list[ast.stmt] = []
        for stmt in stmts:
            names = [] if hasattr(stmt, "body") else _stored(stmt)
            out += [self.visit(stmt), *self._told(stmt, names)]
        return out

    def _told(self, stmt: ast.stmt, names: list[str]) -> list[ast.stmt]:
        kinds = {name: self._scopes.kind(name) for name in names if self._scopes.in_function}
        asked = [
            ast.Expr(self._ask(stmt, name, kind, write=True))
            for name, kind in kinds.items()
            if kind != "local"
        ]
        return [ast.copy_location(expr, stmt) for expr in asked]

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self._scopes.enter(node)
        node.body = self._plain(node.body)
        self._scopes.leave()
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.target = self._plain(node.target)
        node.value = self._plain(node.value) if node.value is not None else None
        return node

    def visit_MatchValue(self, node: ast.MatchValue) -> ast.AST:
        return node

    # -- names

    def _name(self, node: ast.Name) -> ast.expr:
        kind = self._scopes.kind(node.id) if self._scopes.in_function else "local"
        if kind == "global" and hasattr(builtins, node.id):
            return node
        if kind == "local" or not isinstance(node.ctx, ast.Load):
            return node
        ask = self._ask(node, node.id, kind, write=False)
        both = ast.Subscript(
            ast.Tuple([ask, node], ast.Load()), ast.Constant(1), ast.Load()
        )  # said first, then read
        return ast.fix_missing_locations(ast.copy_location(both, node))

    def _ask(self, at: ast.AST, name: str, kind: str, *, write: bool) -> ast.expr:
        flag = ast.Constant(write)
        if kind == "global":
            namespace = ast.Call(ast.Name("globals", ast.Load()), [], [])
            return self._hook(at, "variable", namespace, ast.Constant(name), flag)
        nothing = ast.arguments([], [], None, [], [], None, [])
        cell = ast.Lambda(nothing, ast.Name(name, ast.Load()))  # its closure has the very cell
        return self._hook(at, "cell", cell, ast.Constant(name), flag)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._looked_into(node, self._name(node))

    # -- attributes and elements

    def _attribute(self, node: ast.Attribute, *, both: bool = False) -> ast.Attribute:
        of, node.value = node.value, self._plain(node.value)
        if self._scopes.in_function:
            how = "rw" if both else "r" if isinstance(node.ctx, ast.Load) else "w"
            args = ast.Constant(node.attr), ast.Constant(how)
            node.value = self._named("attribute", of, node.value, *args)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return self._looked_into(node, self._attribute(node))

    def _subscript(self, node: ast.Subscript, *, both: bool = False) -> ast.Subscript:
        of, node.value, node.slice = node.value, self._plain(node.value), self.visit(node.slice)
        if not self._scopes.in_function:
            return node
        how = "rw" if both else "r" if isinstance(node.ctx, ast.Load) else "w"
        if isinstance(node.slice, ast.Slice | ast.Tuple):
            node.value = self._named("container", of, node.value, ast.Constant(how))
            return node
        node.value = self._named("base", of, node.value, ast.Constant(how))
        node.slice = self._hook(node, "key", node.slice)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return self._looked_into(node, self._subscript(node))

    # -- where a value only goes on

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        node.value = self._plain(node.value)
        node.targets = [self._plain(t) for t in node.targets]
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        node.value = self.visit(node.value)
        target = node.target
        if isinstance(target, ast.Attribute):
            node.target = self._attribute(target, both=True)
        elif isinstance(target, ast.Subscript):
            node.target = self._subscript(target, both=True)
        elif self._scopes.in_function and (kind := self._scopes.kind(target.id)) != "local":
            # A read as well.
            ask = self._ask(node, target.id, kind, write=False)
            value = ast.Subscript(
                ast.Tuple([ask, node.value], ast.Load()), ast.Constant(1), ast.Load()
            )
            node.value = ast.fix_missing_locations(ast.copy_location(value, node))
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        node.value = self._plain(node.value) if node.value is not None else None
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        node.value = self._plain(node.value)
        return node

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        node.elts = [self._plain(e) for e in node.elts]
        return node

    def visit_List(self, node: ast.List) -> ast.AST:
        node.elts = [self._plain(e) for e in node.elts]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        same = all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops)
        look = self._plain if same else self.visit
        node.left, node.comparators = look(node.left), [look(c) for c in node.comparators]
        return node

    def visit_For(self, node: ast.For) -> ast.AST:
        of, node.iter = node.iter, self._plain(node.iter)
        if self._scopes.in_function:
            node.iter = self._named("each", of, node.iter)
        told = self._told(node, _stored(node.target))
        node.target = self._plain(node.target)
        node.body = told + self._block(node.body)
        node.orelse = self._block(node.orelse)
        return node

    # -- calls

    def visit_Call(self, node: ast.Call) -> ast.AST:
        func = node.func
        if isinstance(func, ast.Name) and func.id in LEFT_ALONE:
            return node
        if not self._scopes.in_function:
            return self.generic_visit(node)
        if self._by_name(node) or self._by_key(node):
            return node
        to: ast.expr = ast.Constant(None)
        if isinstance(func, ast.Name):
            to = ast.Name(func.id, ast.Load())
        elif isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
            to = ast.Tuple(
                [ast.Name(func.value.id, ast.Load()), ast.Constant(func.attr)], ast.Load()
            )
        node.func = self._plain(func)
        node.args = [self._argument(a, to) for a in node.args]
        for keyword in node.keywords:
            keyword.value = self._argument(keyword.value, to)
        return node

    def _argument(self, node: ast.expr, to: ast.expr) -> ast.expr:
        if isinstance(node, ast.Starred | ast.Constant | ast.Lambda):
            new: ast.expr = self.visit(node)
            return new
        return self._named("argument", node, self._plain(node), to)

    def _by_name(self, node: ast.Call) -> bool:
        """``setattr(x, "n", v)`` and the like: an attribute after all."""
        func, args = node.func, node.args
        if not (isinstance(func, ast.Name) and func.id in BY_NAME and len(args) >= 2):
            return False
        if any(isinstance(a, ast.Starred) for a in args):
            return False
        said = self._hook(node, "named", ast.Constant(func.id), *(self._plain(a) for a in args))
        node.args = [ast.copy_location(ast.Starred(said, ast.Load()), node)]
        return True

    def _by_key(self, node: ast.Call) -> bool:
        """``d.get(key)`` and the like: one element."""
        func, args = node.func, node.args
        if not (isinstance(func, ast.Attribute) and func.attr in BY_KEY and args):
            return False
        if isinstance(args[0], ast.Starred):
            return False
        args = [self._plain(a) for a in args]
        of, value = func.value, self._plain(func.value)
        func.value = self._named("base", of, value, ast.Constant(func.attr))
        node.args = [self._hook(node, "key", args[0]), *args[1:]]
        node.keywords = [self.visit(k) for k in node.keywords]
        return True


def _stored(node: ast.AST) -> list[str]:
    """The variables that a simple statement writes, or a target."""
    found = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return list(dict.fromkeys(n.id for n in found if isinstance(n.ctx, ast.Store)))


def rewritten(source: str, filename: str) -> ast.Module:
    """The module's tree with the calls.  Raises SyntaxError."""
    tree = ast.parse(source, filename)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            setattr(node, TEXT, ast.unparse(node))
    new: ast.Module = ast.fix_missing_locations(Rewriter(tree).visit(tree))
    return new
