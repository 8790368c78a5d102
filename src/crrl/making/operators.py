"""Mutation operators for real code, as changes of the syntax tree, and how often each is drawn.

Those of `tasks/mutation.py`, and the mistakes that people make: a boundary off by one, the wrong variable of several
that are used alike, a case left out, branches swapped, a state gone stale, a slice one short, a wrong default, a copy
not made. Weighted so that most mutants go on to a wrong value: what crashes at once is found too easily.
"""

from __future__ import annotations

import ast
import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from crrl.tasks.mutation import Change, put, set_to, single_changes

FunctionLike = ast.FunctionDef | ast.AsyncFunctionDef
COMPARE: dict[type, type] = {ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.NotIn: ast.In}
OPERATE: dict[type, type] = {ast.Div: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult}
BOUNDARY: dict[type, type] = {ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt}
CALLS = {
    "lstrip": "rstrip",
    "rstrip": "lstrip",
    "find": "rfind",
    "rfind": "find",
    "index": "rindex",
    "split": "rsplit",
    "rsplit": "split",
    "partition": "rpartition",
    "rpartition": "partition",
    "floor": "ceil",
    "ceil": "floor",
    "title": "capitalize",
    "capitalize": "title",
    "isalnum": "isalpha",
    "isdigit": "isalpha",
}
COPIES = ("list", "dict", "set", "copy", "deepcopy")
WEIGHTS = {
    "boundary": 5.0,
    "slice": 5.0,
    "default": 4.0,
    "dropped_case": 4.0,
    "swapped_branches": 4.0,
    "stale_state": 4.0,
    "missed_copy": 4.0,
    "variable": 3.0,
    "forgotten_condition": 3.0,
    "forgotten_argument": 2.0,
    "boolean": 2.0,
    "negation": 1.5,
    "constant": 2.0,
    "comparison": 1.0,
    "operator": 1.0,
    "swapped": 1.5,
    "call": 1.5,
    "loop": 2.0,
    "dropped": 1.0,
    "early_return": 1.0,
    "returned": 0.3,
}
"""How often each kind is drawn, among the kinds that a function offers."""


def changes(function: FunctionLike) -> Iterator[tuple[int, str, Change]]:
    """(index of the node in `ast.walk` of the module that holds the function alone, kind, what to do with it)."""
    tree = ast.Module([function], [])
    alike = _alike(function)
    nodes = list(ast.walk(tree))
    for index, kind, change in itertools.chain(single_changes(tree), _more(nodes, function)):
        node = nodes[index]
        if kind == "comparison" and isinstance(node, ast.Compare) and type(node.ops[0]) in BOUNDARY:
            trial = ast.Compare(node.left, list(node.ops), node.comparators)
            change(trial)
            if type(trial.ops[0]) is BOUNDARY[type(node.ops[0])]:
                kind = "boundary"
        if kind == "variable":
            assert isinstance(node, ast.Name)
            trial_name = ast.Name(node.id, ast.Load())
            change(trial_name)
            if trial_name.id not in alike[node.id]:
                continue
        if kind == "call" and isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "sum":
            continue  # the length or the greatest of what is summed up: mostly a crash
        yield index, kind, change


def _more(nodes: list[ast.AST], function: FunctionLike) -> Iterator[tuple[int, str, Change]]:
    for index, node in enumerate(nodes):
        match node:
            case ast.Compare(ops=[operator]) if type(operator) in COMPARE:
                yield index, "comparison", put("ops", 0, COMPARE[type(operator)]())
            case ast.BinOp(op=operator) if type(operator) in OPERATE:
                yield index, "operator", set_to("op", OPERATE[type(operator)]())
            case ast.Call(func=ast.Attribute(attr=called)) if called in CALLS:
                yield index, "call", set_to("func.attr", CALLS[called])
            case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant):
                yield index, "returned", set_to("value", ast.Constant(None))
            case ast.BoolOp(values=[_, _]):
                for kept in (0, 1):
                    yield index, "forgotten_condition", _forget("values", 1 - kept)
            case ast.Break():
                yield index, "loop", set_to("__class__", ast.Continue)
            case ast.Continue():
                yield index, "loop", set_to("__class__", ast.Break)
            case ast.IfExp():
                yield index, "swapped_branches", _swap_branches
            case ast.Slice():
                for end in ("lower", "upper"):
                    if (bound := getattr(node, end)) is not None and not isinstance(bound, ast.Constant):
                        yield index, "slice", set_to(end, _off_by_one(bound))
            case ast.arguments() if node is function.args:
                yield from _defaults(index, node)
        if isinstance(node, ast.If | ast.IfExp) and not isinstance(node.test, ast.UnaryOp):
            yield index, "negation", _negate
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            cases = node.comparators[0]
            if isinstance(cases, ast.Tuple | ast.List | ast.Set) and len(cases.elts) > 2:
                for position in range(len(cases.elts)):
                    yield index, "dropped_case", _drop_case(position)
        if isinstance(node, ast.Call):
            yield from _calls(index, node)


def _calls(index: int, node: ast.Call) -> Iterator[tuple[int, str, Change]]:
    called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if node.keywords and all(k.arg for k in node.keywords):
        for position in range(len(node.keywords)):
            yield index, "forgotten_argument", _forget("keywords", position)
    if called == "range" and node.args and not isinstance(node.args[-1], ast.Constant) and len(node.args) < 3:
        yield index, "slice", put("args", -1, _off_by_one(node.args[-1]))
    if called in COPIES and len(node.args) == 1 and not node.keywords:
        if isinstance(node.args[0], ast.Name | ast.Attribute):
            yield index, "missed_copy", _become(node.args[0])
    elif called == "copy" and isinstance(node.func, ast.Attribute) and not node.args:
        yield index, "missed_copy", _become(node.func.value)
    if called in ("get", "pop", "getattr", "setdefault") and len(node.args) > 1:
        for value in _other_defaults(node.args[-1]):
            yield index, "default", put("args", -1, value)


def _defaults(index: int, arguments: ast.arguments) -> Iterator[tuple[int, str, Change]]:
    for name in ("defaults", "kw_defaults"):
        for position, default in enumerate(getattr(arguments, name)):
            for value in _other_defaults(default):
                yield index, "default", put(name, position, value)


def _other_defaults(default: ast.expr | None) -> Iterator[ast.expr]:
    match default:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from (ast.Constant(abs(value + step)) for step in (1, -1))
        case ast.Constant(value=str(value)) if len(value) < 2:
            yield ast.Constant("" if value else " ")


def _alike(function: FunctionLike) -> dict[str, set[str]]:
    """Variable -> those that are used as it is: likely of one type."""
    uses: dict[str, set[str]] = defaultdict(set)
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    for argument in every:
        if argument.annotation is not None:
            uses[argument.arg].add(f"is {ast.dump(argument.annotation)}")
    for node in ast.walk(function):
        match node:
            case ast.Subscript(value=ast.Name(id=name)):
                uses[name].add("indexed")
            case ast.Attribute(value=ast.Name(id=name), attr=attr):
                uses[name].add(f".{attr}")
            case ast.For(iter=ast.Name(id=name)) | ast.comprehension(iter=ast.Name(id=name)):
                uses[name].add("iterated")
            case ast.Call(func=ast.Name(id=called)):
                for argument_ in node.args:
                    if isinstance(argument_, ast.Name):
                        uses[argument_.id].add(f"{called}()")
            case ast.BinOp():
                for side in (node.left, node.right):
                    if isinstance(side, ast.Name):
                        uses[side.id].add("reckoned with")
            case ast.Compare(ops=[ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE(), *_]):
                for side in (node.left, *node.comparators):
                    if isinstance(side, ast.Name):
                        uses[side.id].add("ordered")
            case ast.For(target=ast.Tuple(elts=elements)) | ast.comprehension(target=ast.Tuple(elts=elements)):
                for element in elements:
                    if isinstance(element, ast.Name):
                        uses[element.id].add(f"unpacked {id(node)}")
    return defaultdict(set, {a: {b for b in uses if b != a and uses[a] & uses[b]} for a in uses})


def _off_by_one(bound: ast.expr) -> ast.expr:
    """One less; without the offset where there is one."""
    match bound:
        case ast.BinOp(left=rest, op=ast.Add() | ast.Sub(), right=ast.Constant(value=1)):
            return rest
    return ast.BinOp(bound, ast.Sub(), ast.Constant(1))


def _become(value: ast.expr) -> Change:
    def change(node: Any) -> None:
        node.__class__ = type(value)
        node.__dict__ = {**vars(value), **{name: vars(node)[name] for name in ("lineno", "col_offset")}}

    return change


def _forget(name: str, position: int) -> Change:
    def change(node: Any) -> None:
        del getattr(node, name)[position]

    return change


def _drop_case(position: int) -> Change:
    def change(node: Any) -> None:
        del node.comparators[0].elts[position]

    return change


def _swap_branches(node: Any) -> None:
    node.body, node.orelse = node.orelse, node.body


def _negate(node: Any) -> None:
    node.test = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)
