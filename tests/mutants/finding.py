"""Find every small change of a source file that a test should notice, in an order that does not vary.

Conditions, comparisons, constants, statements and exception classes of the Python code; the SQL in its string literals
(:mod:`.sql_text`). Left alone: messages (whatever is inside ``raise``, or the words for a person), docstrings, type
annotations, numbers that are defaults, pauses.
"""

from __future__ import annotations

import ast
import bisect
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import sql_text

_COMPARED: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}
_FOR_PEOPLE = {"expected", "next_step", "seen", "warnings"}  # keyword arguments and names that hold words
_SIMPLE = (ast.Name, ast.Call, ast.Attribute, ast.Subscript, ast.NamedExpr)


@dataclass(frozen=True)
class Mutant:
    """One change of one file. ``name`` stays the same when lines above it are added or removed."""

    file: str
    scope: str  # the function, by its qualified name, or the module's constant
    line: int
    start: int  # characters
    end: int
    new: str
    name: str = ""

    def applied(self, source: str) -> str:
        return source[: self.start] + self.new + source[self.end :]


def find(directory: Path, file: str) -> list[Mutant]:
    """Every mutant of a file below ``directory`` that is Python still; sorted by place, each with a name of its own."""
    source = (directory / file).read_text()
    finder = _Finder(file, source)
    finder.visit(ast.parse(source))
    names: Counter[str] = Counter()
    named = []
    for mutant in sorted(set(finder.found), key=lambda one: (one.start, one.end, one.new)):
        try:
            ast.parse(mutant.applied(source))
        except SyntaxError:
            continue
        name = f"{mutant.file} {mutant.scope}: {_around(source, mutant)}"
        names[name] += 1
        if names[name] > 1:
            name += f" ({names[name]})"
        named.append(Mutant(*_place(mutant), name))
    return named


def uses(tree: ast.Module) -> dict[str, set[str]]:
    """For each name, the functions of the module that use it; what a constant uses counts for who uses the constant."""
    by_name: dict[str, set[str]] = {}
    constants: dict[str, set[str]] = {}
    for scope, node in _scoped(tree):
        used = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
        used |= {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
        for name in used:
            by_name.setdefault(name, set()).add(scope)
    for statement in tree.body:
        for name in assigned(statement):
            constants[name] = {one.id for one in ast.walk(statement) if isinstance(one, ast.Name)} - {name}
    for _ in constants:  # as often as constants can be nested
        for outer, inner in constants.items():
            for name in inner:
                by_name.setdefault(name, set()).update(by_name.get(outer, set()))
    return by_name


def assigned(statement: ast.stmt) -> list[str]:
    """The names that a statement assigns to."""
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return [name.id for target in targets if target for name in ast.walk(target) if isinstance(name, ast.Name)]


def _scoped(tree: ast.AST, outer: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            name = f"{outer}{node.name}"
            if isinstance(node, ast.FunctionDef):
                yield name, node
            yield from _scoped(node, f"{name}." if isinstance(node, ast.ClassDef) else f"{name}.<locals>.")


def _place(mutant: Mutant) -> tuple[str, str, int, int, int, str]:
    return mutant.file, mutant.scope, mutant.line, mutant.start, mutant.end, mutant.new


def _around(source: str, mutant: Mutant, width: int = 24) -> str:
    """What stands there and what takes its place, with a little of the line around it."""
    first = max(source.rfind("\n", 0, mutant.start) + 1, mutant.start - width)
    last = source.find("\n", mutant.end)
    last = min(len(source) if last < 0 else last, mutant.end + width)
    head, tail = source[first : mutant.start], source[mutant.end : last]
    texts = (head + middle + tail for middle in (source[mutant.start : mutant.end], mutant.new))
    return " -> ".join(" ".join(text.split()) for text in texts)


class _Finder(ast.NodeVisitor):
    def __init__(self, file: str, source: str) -> None:
        self.file, self.source = file, source
        lines = source.splitlines(keepends=True)
        self.lines = [line.encode() for line in lines]
        self.starts = [0]
        for line in lines:
            self.starts.append(self.starts[-1] + len(line))
        self.scope: list[str] = []
        self.functions = 0
        self.found: list[Mutant] = []

    def _offset(self, line: int, column: int) -> int:
        return self.starts[line - 1] + len(self.lines[line - 1][:column].decode())

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)

    def _text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self._span(node)
        return self.source[start:end]

    def _add(self, start: int, end: int, new: str) -> None:
        line = bisect.bisect_right(self.starts, start)
        self.found.append(Mutant(self.file, "".join(self.scope), line, start, end, new))

    def _replace(self, node: ast.expr | ast.stmt, new: str) -> None:
        self._add(*self._span(node), new)

    def _between(self, left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        start = self.source.find(old, self._span(left)[1], self._span(right)[0])
        if start >= 0:
            self._add(start, start + len(old), new)

    # Scopes

    def visit_Module(self, node: ast.Module) -> None:
        for statement in node.body:
            names = assigned(statement)
            self.scope = names[:1]
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.scope.append(f"{node.name}.")
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef):
                self.visit(statement)
        self.scope.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        inner = ".<locals>." if self.functions else ""
        self.scope.append(inner + node.name)
        self.functions += 1
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if isinstance(default, ast.Constant) and isinstance(default.value, bool):
                self.visit(default)
        for statement in node.body:
            self.visit(statement)
        self.functions -= 1
        self.scope.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    # Statements

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            if self._text(node.value.func) == "time.sleep":
                return
            self._replace(node, "pass")
        if not isinstance(node.value, ast.Constant):
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if not (isinstance(node.target, ast.Name) and node.target.id in _FOR_PEOPLE):
            self._replace(node, "pass")
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace(node, "pass")

    def visit_If(self, node: ast.If | ast.While | ast.IfExp) -> None:
        if isinstance(node.test, _SIMPLE):
            self._replace(node.test, f"not ({self._text(node.test)})")
        self.generic_visit(node)

    visit_While = visit_IfExp = visit_If

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if isinstance(node.type, ast.Tuple):
            for left_out in node.type.elts:
                kept = [self._text(one) for one in node.type.elts if one is not left_out]
                self._replace(node.type, f"({', '.join(kept)},)")
        elif node.type:
            self._replace(node.type, "()")
        for statement in node.body:
            self.visit(statement)

    # Expressions

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
            self._between(left, right, *_COMPARED[type(operator)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between(left, right, old, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace(node, f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = self._text(node.func)
        if called.endswith("Error"):
            return
        if called in _SWAPPED:
            self._replace(node.func, _SWAPPED[called])
        if called == "contextlib.suppress":
            for argument in node.args:
                self._replace(argument, "()")
            return
        for argument in node.args:
            if called == "sql.SQL" and isinstance(argument, (ast.Constant, ast.JoinedStr)):
                self._sql(argument)
            else:
                self.visit(argument)
        for keyword in node.keywords:
            if keyword.arg not in _FOR_PEOPLE and keyword.arg != "strict":
                self.visit(keyword.value)
        self.visit(node.func)

    def visit_Tuple(self, node: ast.Tuple | ast.Set) -> None:
        words = [one.value for one in node.elts if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        if len(words) == len(node.elts) > 1 and all(re.fullmatch(r"[\w ]+", word) for word in words):
            for left_out in node.elts:
                kept = ", ".join(self._text(one) for one in node.elts if one is not left_out)
                self._replace(node, f"({kept},)")
        self.generic_visit(node)

    visit_Set = visit_Tuple

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._replace(node, str(not node.value))
        elif isinstance(node.value, int) and node.value <= 2 and self.functions:
            self._replace(node, str(node.value + 1))
        elif isinstance(node.value, str):
            self._sql_if_any(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._sql_if_any(node)

    def _sql_if_any(self, node: ast.Constant | ast.JoinedStr) -> None:
        text = self._text(node)
        if sql_text.LIKE_SQL.search(text) and not text.rstrip("\"')").endswith((".", "...", ";")):
            self._sql(node)

    def _sql(self, node: ast.Constant | ast.JoinedStr) -> None:
        start = self._span(node)[0]
        for change in sql_text.changes(self._text(node)):
            self._add(start + change.start, start + change.end, change.new)
