"""Test files in JavaScript and TypeScript that note the calls they make of the project: arguments and result.

Calls of what a file imports from the project, and of methods that are called like the project's own functions, go
through a recorder (`scripts/trace.js`), which stands at the end of the file. Lines stay where they are.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePath

from tree_sitter import Node

from crrl.making.issue import STRING
from crrl.making.tracing import Call, Trace
from crrl.making.trees import grammar
from crrl.making.trees.grammar import text
from crrl.making.trees.scope import UNKNOWN_ARGUMENT, local_names
from crrl.making.trees.units import unit_at, units
from crrl.rewards.decoys.grammars import parser, walk

FILE = ".crrl/trace.jsonl"
RECORDER = Path(__file__).parent / "scripts" / "trace.js"
FOREIGN = frozenset(
    [
        *("assert", "expect", "t", "test", "it", "describe", "console", "JSON", "Object", "Array", "Math", "Promise"),
        *("sinon", "chai", "jest", "vi", "process", "path", "fs", "Buffer", "Number", "String", "Reflect", "require"),
    ]
)
PLAIN = frozenset(  # known as they are written, or noted as calls
    [
        *(*grammar.LITERALS, *grammar.CLOSURES, "spread_element", "array", "object", "regex", "unary_expression"),
        *("await_expression", "undefined", "new_expression"),
    ]
)
ASSERTIONS = ("assert", "expect", "t")
BOUND = ("identifier", "shorthand_property_identifier_pattern")
LONGEST_NAME, LONGEST_RECEIVER = 60, 200
UNKNOWN = "<object>"
LONGEST_VALUE = 600
INSIDES = re.compile(r"<ref |\[(?:Function|Circular|Object|Array|class|native|Getter)|Symbol\(")


def traced(path: str, data: bytes, known: frozenset[str], package: str) -> bytes | None:
    """None where it calls nothing of the project. `known`: names of the project's functions; `package`: its name."""
    root = parser(PurePath(path).suffix).parse(data).root_node
    own, inside = _imported(root, package), local_names(root)
    edits: list[tuple[int, int, str]] = []
    for node in walk(root):
        edits += _recorded(node, own, known, inside) or _seen(node, own, known)
    if not edits:
        return None
    parts, at = [], 0
    for start, end, new in sorted(edits, key=lambda edit: edit[0]):  # stable: what is outside comes first
        parts += [data[at:start], new.encode()]
        at = end
    head = b"// @ts-nocheck\n" if path.endswith(("ts", "tsx")) else b""
    recorder = RECORDER.read_text("utf-8").replace("TRACE", f"/workspace/{FILE}")
    return head + b"".join([*parts, data[at:]]) + b"\n" + recorder.encode()


def read(path: str, data: bytes, found: str) -> dict[str, Trace]:
    """Name of a test -> its calls, in the order in which they began, and the values that its assertions look at
    (`property`); under "" those outside of any."""
    tests = units(path, data)
    entries = []
    for line in found.splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # cut short
            continue
    calls: dict[str, list[Call]] = {}
    for entry in sorted(entries, key=lambda entry: entry["place"]):
        unit = unit_at(tests, entry["line"])
        owner, _, member = entry["name"].rpartition(".")
        receiver = _told(owner, entry.get("locals") or {})
        args = [*([("self", receiver)] if owner else []), *map(_argument, entry["args"], entry["names"])]
        after = {name: _value(value) for name, value in zip(entry["names"], entry["after"], strict=True) if name}
        error = (entry["error"][0], entry["error"][1]) if "error" in entry else None
        returned = _value(entry["returned"]) if "returned" in entry else None
        call = Call(
            entry["name"] if receiver == owner else member, path, entry["line"], tuple(args),
            returned=returned, error=error, after=after, property="seen" in entry,
        )  # fmt: skip
        calls.setdefault(unit.name if unit else "", []).append(call)
    return {name: Trace(tuple(made)) for name, made in calls.items()}


def _recorded(
    node: Node, own: frozenset[str], known: frozenset[str], inside: frozenset[str] = frozenset()
) -> list[tuple[int, int, str]]:
    """`inside`: variables of functions, whose values are noted where they make the receiver."""
    function, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
    if node.type != "call_expression" or function is None or arguments is None or arguments.type != "arguments":
        return []
    name = " ".join(text(function).split())
    if "?." in name or len(name) > LONGEST_NAME or name.startswith(("super", "import")):
        return []
    given = grammar.arguments(node)
    names = json.dumps([text(one) if one.type == "identifier" else None for one in given])
    head = f"__crrl_call({node.start_point.row + 1}, {json.dumps(name)}, {names}, "
    tail = (arguments.end_byte - 1, arguments.end_byte, "])")
    if function.type == "identifier" and (name in own or name in known) and name not in FOREIGN:
        start = (node.start_byte, node.start_byte, f"{head}undefined, undefined, ")
        return [start, (function.end_byte, arguments.start_byte + 1, ", ["), tail]
    owner, member = function.child_by_field_name("object"), function.child_by_field_name("property")
    if function.type != "member_expression" or owner is None or member is None or owner.type == "super":
        return []
    root = owner
    while root.type in ("member_expression", "call_expression", "subscript_expression"):
        root = root.named_children[0]
    if text(root) in FOREIGN or not (text(owner) in own or text(member) in known):
        return []
    made_of = sorted({text(n) for n in walk(owner) if n.type == "identifier"} & inside)
    between = f", {json.dumps(text(member))}, ["
    head += f"() => ({{ {', '.join(made_of)} }}), "
    return [(node.start_byte, node.start_byte, head), (owner.end_byte, arguments.start_byte + 1, between), tail]


def _value(told: str) -> str:
    """A value as it can be shown."""
    bare = STRING.sub("''", told)
    return UNKNOWN if len(told) > LONGEST_VALUE or INSIDES.search(bare) else told


def _argument(told: str, source: str | None) -> tuple[str, str]:
    """One that cannot be shown is called by its source."""
    value = _value(told)
    return (UNKNOWN_ARGUMENT, source) if value == UNKNOWN and source else ("*", value)


def _told(owner: str, values: dict[str, str]) -> str:
    """The receiver with the variables' values in their places; as it is written where one of them is no value, or it
    would be long."""
    if not values or UNKNOWN in values.values():
        return owner
    names = "|".join(re.escape(name) for name in values)
    found = re.compile(rf"(?P<quoted>{STRING.pattern})|(?<![\w.$])(?P<name>{names})(?![\w$])")
    told = found.sub(lambda match: match["quoted"] or values[match["name"]], owner)
    return told if len(told) <= LONGEST_RECEIVER else owner


def _seen(node: Node, own: frozenset[str], known: frozenset[str]) -> list[tuple[int, int, str]]:
    """What an assertion looks at, unless it is a call that is noted anyway, or known as it is written."""
    root: Node | None = node.child_by_field_name("function") if node.type == "call_expression" else None
    while root is not None and root.type in ("member_expression", "call_expression"):
        root = root.named_children[0]
    if text(root) not in ASSERTIONS:
        return []
    edits = []
    for given in grammar.arguments(node):
        sides = [given.child_by_field_name(side) for side in ("left", "right")]
        for one in sides if given.type == "binary_expression" else [given]:
            if one is not None and one.type not in PLAIN and not _recorded(one, own, known):
                said = text(one)
                if "\n" not in said and len(said) <= LONGEST_NAME:
                    head = f"__crrl_see({node.start_point.row + 1}, {json.dumps(said)}, "
                    edits += [(one.start_byte, one.start_byte, head), (one.end_byte, one.end_byte, ")")]
    return edits


def _imported(root: Node, package: str) -> frozenset[str]:
    """What is imported from the project."""
    names: set[str] = set()
    for node in walk(root):
        source = target = None
        if node.type == "import_statement":
            source, target = node.child_by_field_name("source"), node
        elif node.type == "variable_declarator" and text(node.child_by_field_name("value")).startswith("require("):
            value = node.child_by_field_name("value")
            assert value is not None
            source = next((n for n in walk(value) if n.type == "string"), None)
            target = node.child_by_field_name("name")
        if source is None or target is None:
            continue
        module = text(source)[1:-1]
        if module.startswith(".") or (package and (module == package or module.startswith(f"{package}/"))):
            names |= {text(n) for n in walk(target) if n.type in BOUND}
    return frozenset(names)
