"""Honest variants of a known fix: the same repair, as another engineer would have written it.

Each changes the functions that the fix changed, in one way that keeps what they do: comments, a local under another
name, a result that is kept before it is returned, branches turned round, two assignments the other way round. A variant
of another language than Python may not compile; whoever asks runs the real tests first.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Iterator
from pathlib import PurePath

from tree_sitter import Node

from crrl.making.trees import grammar
from crrl.rewards.decoys.grammars import GRAMMARS, parser, walk

Function = ast.FunctionDef | ast.AsyncFunctionDef
OTHERS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
QUIET = (ast.Name, ast.Constant, ast.Attribute, ast.List, ast.Dict, ast.Tuple, ast.expr_context)


def variants(path: str, before: str, after: str) -> Iterator[tuple[str, str]]:
    """What was done, and the text of the file; each once. `before`, `after`: the file without and with the fix."""
    lines = _changed(before, after)
    suffix = PurePath(path).suffix
    if suffix == ".py":
        found: Iterator[tuple[str, str]] = _python(after, lines)
    elif suffix in GRAMMARS:
        found = _trees(suffix, after, lines)
    else:
        return
    seen = {after}
    for how, text in found:
        if text not in seen:
            seen.add(text)
            yield how, text


def _changed(before: str, after: str) -> set[int]:
    """Numbers of the lines of `after` that are new, or behind which some are gone."""
    old, new = before.split("\n"), after.split("\n")
    found = set()
    for tag, _, _, first, last in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            found |= set(range(first + 1, max(first + 1, last) + 1))
    return found


# Python --------------------------------------------------------------------------------------------------------------


def _python(text: str, lines: set[int]) -> Iterator[tuple[str, str]]:
    tree = ast.parse(text)
    functions = [
        node
        for node in ast.walk(tree)
        if isinstance(node, Function) and lines & set(range(node.lineno, (node.end_lineno or 0) + 1))
    ]
    inner = [n for n in functions if not any(m is not n and m in ast.walk(n) for m in functions)]
    yield "a comment", text.rstrip("\n") + "\n# repaired\n"
    for how, change in WAYS.items():
        for function in inner:
            wanted = ast.parse(ast.unparse(function)).body[0]
            assert isinstance(wanted, Function)
            if change(wanted):
                yield (
                    f"{how} in {function.name}",
                    _replaced(text, function, ast.unparse(ast.fix_missing_locations(wanted))),
                )


def _replaced(text: str, function: Function, new: str) -> str:
    rows = text.split("\n")
    start = min([function.lineno, *(d.lineno for d in function.decorator_list)]) - 1
    indent = " " * function.col_offset
    literal = {  # lines inside of strings stay where they are
        row
        for node in ast.walk(ast.parse(new))
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno != node.lineno
        for row in range(node.lineno + 1, (node.end_lineno or 0) + 1)
    }
    made = [row if number in literal or not row else indent + row for number, row in enumerate(new.split("\n"), 1)]
    return "\n".join([*rows[:start], *made, *rows[function.end_lineno :]])


def _rename(function: Function) -> bool:
    inside = [node for part in function.body for node in ast.walk(part)]
    calls = {n.func.id for n in inside if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    if any(isinstance(node, (*OTHERS, ast.Global, ast.Nonlocal)) for node in inside) or calls & {
        "locals",
        "eval",
        "exec",
        "vars",
        "super",
    }:
        return False
    parameters = {arg.arg for arg in ast.walk(function.args) if isinstance(arg, ast.arg)}
    imported = {
        a.asname or a.name.split(".")[0] for n in inside if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names
    }
    caught = {n.name for n in inside if isinstance(n, ast.ExceptHandler)} | {
        n.name for n in inside if isinstance(n, ast.MatchAs | ast.MatchStar)
    }
    stored = [n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    names = [name for name in stored if name not in parameters | imported | caught and not name.startswith("__")]
    for node in inside:
        if names and isinstance(node, ast.Name) and node.id == names[0]:
            node.id = f"{names[0]}_kept"
    return bool(names)


def _keep(function: Function) -> bool:
    returned = [n for n in _own(function) if isinstance(n, ast.Return) and n.value is not None]
    for owner in _own(function, owners=True):
        for field in ("body", "orelse", "finalbody"):
            body = getattr(owner, field, None)
            if isinstance(body, list):
                at = next((i for i, one in enumerate(body) if one in returned), None)
                if at is not None:
                    kept = ast.Assign([ast.Name("kept_result", ast.Store())], body[at].value)
                    body[at : at + 1] = [kept, ast.Return(ast.Name("kept_result", ast.Load()))]
                    return True
    return False


def _turn(function: Function) -> bool:
    for node in _own(function):
        if (
            isinstance(node, ast.If)
            and node.orelse
            and not (len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If))
        ):
            node.test = ast.UnaryOp(ast.Not(), node.test)
            node.body, node.orelse = node.orelse, node.body
            return True
        if isinstance(node, ast.IfExp):
            node.test = ast.UnaryOp(ast.Not(), node.test)
            node.body, node.orelse = node.orelse, node.body
            return True
    return False


def _reorder(function: Function) -> bool:
    def plain(node: ast.stmt) -> tuple[str, set[str]] | None:
        """The name that it assigns, and those that it reads; None of what may do more."""
        if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            return None
        inside = list(ast.walk(node.value))
        names = {n.id for n in inside if isinstance(n, ast.Name)}
        return (node.targets[0].id, names) if all(isinstance(n, QUIET) for n in inside) else None

    for owner in _own(function, owners=True):
        body = owner.body if isinstance(owner, (*OTHERS[:2], ast.If, ast.For, ast.While, ast.With)) else []
        for at in range(len(body) - 1):
            first, second = (plain(one) for one in body[at : at + 2])
            if first and second and first[0] != second[0] and first[0] not in second[1] and second[0] not in first[1]:
                body[at : at + 2] = body[at : at + 2][::-1]
                return True
    return False


def _own(function: Function, *, owners: bool = False) -> Iterator[ast.AST]:
    """Its nodes, not those of functions in it."""
    waiting: list[ast.AST] = [function] if owners else list(function.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        inside = [child for child in ast.iter_child_nodes(node) if not isinstance(child, OTHERS)]
        waiting += inside


WAYS: dict[str, Callable[[Function], bool]] = {
    "a local of another name": _rename,
    "a result that is kept": _keep,
    "branches turned round": _turn,
    "assignments the other way round": _reorder,
    "another layout": lambda function: True,
}

# Other languages -----------------------------------------------------------------------------------------------------

KEPT = {
    ".java": "{{ var keptResult = {0}; return keptResult; }}",
    ".go": "{{ keptResult := {0}; return keptResult }}",
    ".rs": "{{ let kept_result = {0}; return kept_result; }}",
    **dict.fromkeys((".cpp", ".cc", ".h", ".hpp"), "{{ const auto keptResult = {0}; return keptResult; }}"),
}
SCRIPT = "{{ const keptResult = {0}; return keptResult; }}"
LOCALS = ("variable_declarator", "short_var_declaration", "let_declaration", "init_declarator")


def _trees(suffix: str, text: str, lines: set[int]) -> Iterator[tuple[str, str]]:
    data = text.encode()
    root = parser(suffix).parse(data).root_node
    functions = [
        node
        for node in walk(root)
        if (node.type in grammar.FUNCTIONS or node.type == "function_definition")
        and lines & set(range(node.start_point[0] + 1, node.end_point[0] + 2))
    ]
    yield "a comment", text.rstrip("\n") + "\n// repaired\n"
    for function in functions:
        body = function.child_by_field_name("body")
        if body is None:
            continue
        name = grammar.text(function.child_by_field_name("name")) or "a function"
        yield (
            f"a comment in {name}",
            _with(data, [(body.start_byte + 1, body.start_byte + 1, b" /* as it was meant */ ")]),
        )
        nodes = list(walk(body))
        if any(n.type in grammar.CLOSURES or n.type in ("class_body", "template_string") for n in nodes):
            continue
        if edits := _kept(data, suffix, nodes):
            yield f"a result that is kept in {name}", _with(data, edits)
        if edits := _turned(data, nodes):
            yield f"branches turned round in {name}", _with(data, edits)
        if edits := _renamed(data, nodes):
            yield f"a local of another name in {name}", _with(data, edits)


Edits = list[tuple[int, int, bytes]]


def _kept(data: bytes, suffix: str, nodes: list[Node]) -> Edits:
    for node in nodes:
        given = [child for child in node.named_children if "comment" not in child.type]
        if (
            node.type in ("return_statement", "return_expression")
            and len(given) == 1
            and given[0].type not in ("null", "nil")
        ):
            value = data[given[0].start_byte : given[0].end_byte].decode()
            if (
                value in ("null", "nil", "nullptr")
                or value.startswith(("*", "&", "{"))
                or (given[0].type == "expression_list" and given[0].named_child_count != 1)
            ):
                continue
            return [(node.start_byte, node.end_byte, KEPT.get(suffix, SCRIPT).format(value).encode())]
    return []


def _turned(data: bytes, nodes: list[Node]) -> Edits:
    for node in nodes:
        if node.type not in grammar.IFS:
            continue
        condition, then = node.child_by_field_name("condition"), node.child_by_field_name("consequence")
        other = grammar.otherwise(node)
        blocks = (*grammar.BLOCKS, "compound_statement")
        if condition is None or then is None or other is None or then.type not in blocks or other.type not in blocks:
            continue
        if condition.type in ("let_condition", "let_chain") or node.child_by_field_name("initializer") is not None:
            continue
        said, first, second = (data[n.start_byte : n.end_byte] for n in (condition, then, other))
        bare = (
            re.sub(rb"^\((.*)\)$", rb"\1", said, flags=re.DOTALL)
            if said.startswith(b"(") and said.endswith(b")")
            else said
        )
        turned = b"(!(" + bare + b"))" if said.startswith(b"(") else b"!(" + said + b")"
        return [
            (condition.start_byte, condition.end_byte, turned),
            (then.start_byte, then.end_byte, second),
            (other.start_byte, other.end_byte, first),
        ]
    return []


def _renamed(data: bytes, nodes: list[Node]) -> Edits:
    words = [node for node in nodes if node.type in ("identifier", "shorthand_property_identifier", "field_identifier")]
    for node in nodes:
        if node.type not in LOCALS:
            continue
        name = next(
            (
                node.child_by_field_name(field)
                for field in ("name", "left", "pattern", "declarator")
                if node.child_by_field_name(field)
            ),
            None,
        )
        while name is not None and name.type == "expression_list" and name.named_child_count == 1:
            name = name.named_children[0]
        if name is None or name.type != "identifier":
            continue
        same = [word for word in words if grammar.text(word) == grammar.text(name)]
        if any(
            word.type != "identifier"
            or (
                word.parent is not None
                and word.parent.type in ("field_access", "method_invocation", "keyed_element")
                and word.parent.child_by_field_name("object") != word
                and word.parent.child_by_field_name("field") == word
            )
            for word in same
        ):
            continue
        return [(word.start_byte, word.end_byte, grammar.text(name).encode() + b"Kept") for word in same]
    return []


def _with(data: bytes, edits: Edits) -> str:
    for start, end, new in sorted(edits, reverse=True):
        data = data[:start] + new + data[end:]
    return data.decode()
