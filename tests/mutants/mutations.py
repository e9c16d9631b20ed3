"""Small changes of one module's source, each of which a test should notice."""

import ast
import copy
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_OTHER: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_EDGE: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
_SYNC: Final = re.compile(r"sync\w*\(|durably\(")  # the name of what is called


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change: the bytes from ``start`` to ``stop`` of the file become ``new``."""

    file: str
    line: int
    last: int
    start: int
    stop: int
    kind: str
    old: str
    new: str
    where: str  # Class.function
    text: str  # the line it begins on

    @property
    def key(self) -> str:
        """The same for the same change of the same text, wherever its file and line are now."""
        parts = (self.where, self.text, self.kind, self.old, self.new)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @property
    def syncs(self) -> bool:
        """Whether it takes away a call that makes something durable."""
        return self.kind == "remove-call" and bool(_SYNC.search(self.old))

    def apply(self, source: bytes) -> bytes:
        """The file with the change."""
        return source[: self.start] + self.new.encode() + source[self.stop :]


@dataclass(frozen=True)
class _Change:
    kind: str
    first: ast.stmt | ast.expr  # from here
    last: ast.stmt | ast.expr  # up to the end of this
    new: str
    before: bool = False  # put before the first, in place of nothing


def mutants_of(file: str, source: bytes) -> list[Mutant]:
    """Every change of a file, in the order of its lines."""
    lines = source.split(b"\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    found: dict[tuple[int, int, str], Mutant] = {}
    for node, where in _nodes(ast.parse(source), ()):
        for change in _changes(node, in_function=bool(where)):
            first, last = change.first, change.last
            start = starts[first.lineno - 1] + first.col_offset
            stop = starts[(last.end_lineno or 0) - 1] + (last.end_col_offset or 0)
            stop = start if change.before else stop
            mutant = Mutant(
                file=file,
                line=first.lineno,
                last=first.lineno if change.before else last.end_lineno or 0,
                start=start,
                stop=stop,
                kind=change.kind,
                old=source[start:stop].decode(),
                new=change.new,
                where=".".join(where),
                text=lines[first.lineno - 1].decode().strip(),
            )
            place = (start, stop, change.new)
            if place not in found or found[place].kind == "drop-body":  # another says more
                found[place] = mutant
    return [found[place] for place in sorted(found)]


def _nodes(node: ast.AST, where: tuple[str, ...]) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    """What may be changed, with the class and function around it.

    No messages, annotations, or decorators, whose options change nothing that runs.
    """
    decorators = getattr(node, "decorator_list", ())
    for child in ast.iter_child_nodes(node):
        if child in decorators:
            continue
        match child:
            case ast.Assert() | ast.JoinedStr() | ast.arg():
                pass
            case ast.Raise():
                yield child, where
            case ast.ClassDef() | ast.FunctionDef():
                inner = (*where, child.name)
                yield child, inner
                yield from _nodes(child, inner)
            case ast.AnnAssign(value=value):
                if value is not None:
                    yield value, where
                    yield from _nodes(value, where)
            case _:
                yield child, where
                yield from _nodes(child, where)


def _changes(node: ast.AST, *, in_function: bool) -> Iterator[_Change]:
    match node:
        case ast.Compare():
            yield from _comparisons(node)
        case ast.BoolOp():
            yield from _conditions(node)
        case ast.UnaryOp(op=ast.Not()):
            yield _expression("remove-not", node, node.operand)
        case ast.BinOp(op=ast.Add() | ast.Sub()) if not _has_text(node):
            other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield _expression("plus-minus", node, ast.BinOp(node.left, other, node.right))
        case ast.Constant(value=bool(value)):
            yield _Change("flip-bool", node, node, str(not value))
        case ast.Constant(value=int(value)):
            yield _Change("const", node, node, f"({value + 1})")
            yield _Change("const", node, node, f"({value - 1})")
        case ast.IfExp():
            yield _negated(node.test)
        case ast.comprehension():
            yield from map(_negated, node.ifs)
        case ast.stmt() if in_function:
            yield from _statements(node)


def _statements(node: ast.stmt) -> Iterator[_Change]:
    match node:
        case ast.Expr(value=ast.Call()):
            yield _Change("remove-call", node, node, "pass")
        case ast.Raise(exc=exception) if not _is_impossible(exception):
            yield _Change("remove-raise", node, node, "pass")
        case ast.AugAssign():
            yield _Change("remove-aug", node, node, "pass")
        case ast.Continue() | ast.Break():
            yield _Change("remove-jump", node, node, "pass")
        case ast.While():
            yield _negated(node.test)
        case ast.If():
            yield _negated(node.test)
            yield _Change("drop-body", node.body[0], node.body[-1], "pass")
        case ast.With(items=[ast.withitem(context_expr=ast.Call() as call, optional_vars=None)]):
            yield _Change("drop-with", call, call, "__import__('contextlib').nullcontext()")
        case ast.FunctionDef(returns=ast.Constant(value=None)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if len(body) > 1:
                stop = "return\n" + " " * body[0].col_offset
                yield _Change("return-early", body[0], body[0], stop, before=True)
        case _:
            pass


def _comparisons(node: ast.Compare) -> Iterator[_Change]:
    for at, operator in enumerate(node.ops):
        kind, swap = ("boundary", _EDGE) if type(operator) in _EDGE else ("compare", _OTHER)
        other = copy.copy(node)
        other.ops = [*node.ops[:at], swap[type(operator)](), *node.ops[at + 1 :]]
        yield _expression(kind, node, other)


def _conditions(node: ast.BoolOp) -> Iterator[_Change]:
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield _expression("and-or", node, ast.BoolOp(other, node.values))
    for at in range(len(node.values)):
        left = [*node.values[:at], *node.values[at + 1 :]]
        yield _expression(
            "drop-operand", node, left[0] if len(left) == 1 else ast.BoolOp(node.op, left)
        )


def _negated(test: ast.expr) -> _Change:
    return _expression("negate-if", test, ast.UnaryOp(ast.Not(), test))


def _expression(kind: str, old: ast.expr, new: ast.expr) -> _Change:
    return _Change(kind, old, old, f"({ast.unparse(new)})")


def _is_impossible(exception: ast.expr | None) -> bool:
    """An assertion that a line can't be reached: no test reaches it."""
    name = exception.func if isinstance(exception, ast.Call) else exception
    return isinstance(name, ast.Name) and name.id == "AssertionError"


def _has_text(node: ast.AST) -> bool:
    return any(
        isinstance(part, ast.JoinedStr | ast.List | ast.Tuple)
        or (isinstance(part, ast.Constant) and isinstance(part.value, str | bytes))
        for part in ast.walk(node)
    )
