"""Mutation operators: they make generated bugs and random repair attempts.

Every mutant differs from its source in exactly one line, other than the signature and the docstring, and that line
occurs once, so that one search and replace can repair it. We skip mutants whose operators gained or
lost parentheses: their repair is many tokens long.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from crrl import python_syntax

COMPARE: dict[type, list[type]] = {
    ast.Gt: [ast.GtE, ast.Lt],
    ast.Lt: [ast.LtE, ast.Gt],
    ast.GtE: [ast.Gt, ast.LtE],
    ast.LtE: [ast.Lt, ast.GtE],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}
OPERATE: dict[type, list[type]] = {
    ast.Add: [ast.Sub, ast.Mult],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Add, ast.FloorDiv],
    ast.FloorDiv: [ast.Mult, ast.Mod],
    ast.Mod: [ast.FloorDiv],
}
CALLS: dict[str, list[str]] = {
    "upper": ["lower"],
    "lower": ["upper"],
    "startswith": ["endswith"],
    "endswith": ["startswith"],
    "max": ["min"],
    "min": ["max"],
    "sum": ["max", "len"],
    "any": ["all"],
    "all": ["any"],
}
WEIGHTS = {
    "comparison": 3.0,
    "operator": 3.0,
    "swapped": 2.0,
    "boolean": 3.0,
    "negation": 2.0,
    "constant": 2.0,
    "variable": 1.0,
    "call": 3.0,
    "dropped": 0.5,
    "early_return": 0.5,
}
"""How often each kind is drawn, among the kinds that a program offers."""

Change = Callable[[Any], None]


@dataclass(frozen=True)
class Mutant:
    source: str
    kind: str
    old_line: str  # of the source that was mutated, stripped
    new_line: str


def mutant(rng: random.Random, source: str) -> Mutant | None:
    """A mutant of `source` (one function), its kind drawn by `WEIGHTS`; None where twenty draws found none."""
    tree = python_syntax.parse(source)
    by_kind: dict[str, list[tuple[int, Change]]] = {}
    for index, kind, change in single_changes(tree):
        by_kind.setdefault(kind, []).append((index, change))
    kinds = list(by_kind)
    for _ in range(20 if kinds else 0):
        kind = rng.choices(kinds, [WEIGHTS[k] for k in kinds])[0]
        index, change = rng.choice(by_kind[kind])
        changed = copy.deepcopy(tree)
        change(list(ast.walk(changed))[index])
        found = _one_line(source, ast.unparse(changed) + "\n", kind)
        if found is not None:
            return found
    return None


def _one_line(source: str, changed: str, kind: str) -> Mutant | None:
    before, after = source.split("\n"), changed.split("\n")
    if len(before) != len(after):
        return None
    lines = [i for i in range(len(before)) if before[i] != after[i]]
    if len(lines) != 1 or lines[0] < 2:  # the signature and the docstring stay
        return None
    old, new = before[lines[0]].strip(), after[lines[0]].strip()
    if source.count(old) != 1 or changed.count(new) != 1:
        return None
    if kind not in ("dropped", "early_return") and old.count("(") != new.count("("):
        return None
    return Mutant(changed, kind, old, new)


def single_changes(tree: ast.Module) -> Iterator[tuple[int, str, Change]]:
    """(index of the node in `ast.walk`, kind, what to do with it) for every single change there is."""
    nodes = list(ast.walk(tree))
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    names = sorted({n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)})
    names = sorted({*names, *(a.arg for a in function.args.args)} - {"row"})
    result = next((n.value for n in reversed(function.body) if isinstance(n, ast.Return)), None)
    loops = [n for n in nodes if isinstance(n, ast.For | ast.AsyncFor | ast.While)]
    inside = {id(child) for loop in loops for child in ast.walk(loop)}
    for index, node in enumerate(nodes):
        match node:
            case ast.Compare():
                for operator in COMPARE.get(type(node.ops[0]), []):
                    yield index, "comparison", put("ops", 0, operator())
            case ast.BinOp() | ast.AugAssign():
                for operator in OPERATE.get(type(node.op), []):
                    yield index, "operator", set_to("op", operator())
                if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub | ast.FloorDiv | ast.Mod):
                    yield index, "swapped", _swap_operands
            case ast.BoolOp():
                yield index, "boolean", _other_boolean
            case ast.Constant(value=bool()):
                yield index, "constant", set_to("value", not node.value)
            case ast.Constant(value=int(number)):
                for step in (1, -1):  # off by one
                    yield index, "constant", set_to("value", abs(number + step))
            case ast.Name(ctx=ast.Load()) if node.id in names:
                for other in names:
                    if other != node.id:
                        yield index, "variable", set_to("id", other)
            case ast.If(test=ast.UnaryOp(op=ast.Not())):
                yield index, "negation", _drop_not
            case ast.Call(func=ast.Name(id=called)) if called in CALLS:
                for other in CALLS[called]:
                    yield index, "call", set_to("func.id", other)
            case ast.Call(func=ast.Attribute(attr=called)) if called in CALLS:
                for other in CALLS[called]:
                    yield index, "call", set_to("func.attr", other)
        if isinstance(node, ast.Call) and len(node.args) == 2:
            yield index, "swapped", _swap_arguments
        body = getattr(node, "body", None)  # of a lambda or a conditional expression: one expression, no list
        for position, statement in enumerate(body if id(node) in inside and isinstance(body, list) else []):
            if isinstance(statement, ast.AugAssign | ast.Expr):
                yield index, "dropped", put("body", position, ast.Pass())
                if isinstance(result, ast.Name):
                    early = ast.Return(ast.Name(result.id, ast.Load()))
                    yield index, "early_return", put("body", position, early)


def set_to(path: str, value: Any) -> Change:
    *owners, name = path.split(".")

    def change(node: Any) -> None:
        for owner in owners:
            node = getattr(node, owner)
        setattr(node, name, value)

    return change


def put(name: str, position: int, value: ast.AST) -> Change:
    def change(node: Any) -> None:
        getattr(node, name)[position] = value

    return change


def _drop_not(node: ast.If) -> None:
    assert isinstance(node.test, ast.UnaryOp)
    node.test = node.test.operand


def _swap_arguments(node: ast.Call) -> None:
    node.args.reverse()


def _swap_operands(node: ast.BinOp) -> None:
    node.left, node.right = node.right, node.left


def _other_boolean(node: ast.BoolOp) -> None:
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
