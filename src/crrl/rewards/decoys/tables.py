"""Rows of cases that a Python test file writes out: those of `parametrize`, of a loop, of a table of the module."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping


def tables(tree: ast.Module) -> dict[str, ast.expr]:
    """What the module writes out under a name that it assigns once and reads once: by one test, that is."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    times = Counter((node.id, type(node.ctx)) for node in names)
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        once = times[name, ast.Store] == times[name, ast.Load] == 1
        if once and isinstance(value, ast.List | ast.Tuple | ast.Dict):
            found[name] = value
    return found


def rows(values: ast.expr, width: int, tables: Mapping[str, ast.expr]) -> list[list[ast.expr] | None] | None:
    """Of a list that is written out, here or in a table of the module; None where it is not."""
    match values:
        case ast.Name(id=name) if name in tables:
            return rows(tables[name], width, tables)
        case ast.List(elts=[_, *_]) | ast.Tuple(elts=[_, *_]):
            return [_row(value, width) for value in values.elts]
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="values"), args=[]) if name in tables:
            table = tables[name]
            return [_row(value, width) for value in table.values] if isinstance(table, ast.Dict) else None
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="items"), args=[]) if name in tables:
            table = tables[name]
            if isinstance(table, ast.Dict) and width == 2 and None not in table.keys:
                return [[ast.Name("", ast.Load()), value] for value in table.values]  # a key is an input
    return None


def names(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [name.strip() for name in node.value.split(",") if name.strip()]
    parts = node.elts if isinstance(node, ast.List | ast.Tuple) else []
    return [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)


def item(row: ast.expr, part: ast.Subscript | ast.Attribute) -> ast.expr | None:
    """What `row["key"]`, `row[1]`, `row.key` is, of a row that is written out; None where it is not."""
    try:
        key = ast.literal_eval(part.slice) if isinstance(part, ast.Subscript) else None
    except ValueError:
        return None
    match row:
        case ast.Dict(keys=keys, values=values) if key is not None and None not in keys:
            found = [v for k, v in zip(keys, values, strict=True) if isinstance(k, ast.Constant) and k.value == key]
            return found[0] if len(found) == 1 else None
        case ast.Tuple(elts=elts) | ast.List(elts=elts) if type(key) is int and -len(elts) <= key < len(elts):
            return None if any(isinstance(each, ast.Starred) for each in elts) else elts[key]
        case ast.Call(keywords=keywords) if isinstance(part, ast.Attribute):
            return next((k.value for k in keywords if k.arg == part.attr), None)
    return None


def _row(value: ast.expr, width: int) -> list[ast.expr] | None:
    if width == 1 and not (isinstance(value, ast.Call) and getattr(value.func, "attr", "") == "param"):
        return [value]
    parts = value.args if isinstance(value, ast.Call) else getattr(value, "elts", [])
    return parts if len(parts) == width else None
