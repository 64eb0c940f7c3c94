"""Every way to change one thing in a Python source: a comparison, a condition, a number, a step.

Only what decides anything is changed: no annotation, decorator, docstring, assertion or
`__slots__`, and no text with a space in it, which is for people. The order is that of the source,
the same each time.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import CodeType
from typing import Any

Node = ast.expr | ast.stmt | ast.pattern
Put = Callable[[ast.AST], None]
"""Puts a node in the place of another one."""

SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.Mod: (ast.Add,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
"""What stands instead of an operator."""
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
LEFT_ALONE = frozenset({"annotation", "returns", "decorator_list", "bases"})
NAMING = frozenset({"TypeVar", "NewType", "ParamSpec"})
"""Calls whose arguments are names for people."""


@dataclass(frozen=True)
class Mutant:
    """A source with one thing changed."""

    line: int
    change: str
    code: CodeType


def mutants(source: str, path: str) -> Iterator[Mutant]:
    """Yield every mutant of a source."""
    tree = ast.parse(source)
    for node, put in sorted(_sites(tree), key=lambda site: (site[0].lineno, site[0].col_offset)):
        for changed in _changes(node):
            put(ast.copy_location(changed, node))
            code = compile(ast.fix_missing_locations(tree), path, "exec")
            put(node)
            yield Mutant(node.lineno, f"{_text(node)} → {_text(changed)}", code)


def _sites(parent: ast.AST) -> Iterator[tuple[Node, Put]]:
    """Yield every node below this one that may be changed, and what puts another in its place."""
    if _is_for_people(parent):
        return
    for name, value in ast.iter_fields(parent):
        if name in LEFT_ALONE:
            continue
        places: list[tuple[Any, Put]] = [(value, partial(setattr, parent, name))]
        if isinstance(value, list):
            places = [(child, partial(value.__setitem__, at)) for at, child in enumerate(value)]
        for child, put in places:
            if isinstance(child, Node):
                yield child, put
            if isinstance(child, ast.AST):
                yield from _sites(child)


def _is_for_people(node: ast.AST) -> bool:
    match node:
        case ast.Assert() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in NAMING
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name == "__slots__"
    return False


def _changes(node: Node) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place."""
    match node:
        case ast.Compare(ops=[op]):
            for swap in SWAPS[type(op)]:
                yield _with(node, ops=[swap()])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in SWAPS:
            yield _with(node, op=SWAPS[type(op)][0]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)) | ast.MatchSingleton(value=bool(value)):
            yield _with(node, value=not value)
        case ast.Constant(value=int(value) | float(value)):
            yield _with(node, value=value + 1)
        case ast.Constant(value=str(value)) if value.split() == [value]:
            yield _with(node, value=value + "~")
        case ast.Call(func=ast.Name(id=name)) if name in OPPOSITES:
            yield _with(node, func=ast.Name(OPPOSITES[name], ast.Load()))
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield _with(node, value=ast.Constant(None))
        case ast.GeneratorExp() | ast.ListComp() | ast.SetComp() | ast.DictComp():
            for at, part in enumerate(node.generators):
                if part.ifs:
                    before, after = node.generators[:at], node.generators[at + 1 :]
                    yield _with(node, generators=[*before, _with(part, ifs=[]), *after])
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
                yield _with(node, test=ast.UnaryOp(ast.Not(), test))
    match node:
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Delete() | ast.Raise():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.AugAssign():
            yield ast.Pass()
        case ast.Break() | ast.Continue():
            yield ast.Pass()


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _text(node: ast.AST) -> str:
    """Return the first line of a node's source, not too long."""
    line = ast.unparse(node).split("\n")[0]
    return line if len(line) <= 70 else f"{line[:67]}..."
