"""A function of Go, JavaScript, TypeScript, Rust or Java without its body (`making/spec_mask.py` is Python's).

What is between its braces becomes the language's own way to say that it is not there yet. Where that does not compile
(an import that only the body used, a `const` context), the judge says so, and there is no task. The specification is
the signature and the comment that stands right before it.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from textwrap import dedent

from tree_sitter import Node

from crrl.making.outcomes import Refused
from crrl.making.spec_mask import Masked
from crrl.making.trees import grammar
from crrl.making.trees.functions import TreeFunction
from crrl.making.trees.grammar import text
from crrl.rewards.decoys import sites
from crrl.rewards.decoys.grammars import parser, walk

RAISES = {
    ".go": 'panic("not implemented")',
    ".rs": "todo!()",
    ".java": 'throw new UnsupportedOperationException("not implemented");',
}
SCRIPT = 'throw new Error("not implemented");'
OUTER = frozenset({"export_statement", "lexical_declaration", "variable_declaration", "variable_declarator"})
BEFORE = frozenset({"attribute_item", "decorator"})
STUB = re.compile(r"\{\s*(?:todo!|unimplemented!|panic\(|throw new \w*(?:Unsupported|NotImplemented))[^\n]*\s*\}")
MARKS = re.compile(r"^\s*(?:/\*\*?|\*/|\*|///?!?)? ?", re.M)


def masked_tree(function: TreeFunction) -> Masked | Refused:
    source, body = function.source, function.body
    inside = list(body.named_children) if body.type in grammar.BLOCKS else [body]
    statements = [node for node in inside if "comment" not in node.type]
    if not statements or (body.type in grammar.BLOCKS and _is_stub(text(body))):
        return Refused("no body", "a stub")
    suffix = PurePath(function.path).suffix
    raises = RAISES.get(suffix, SCRIPT)
    start, end = inside[0].start_byte, inside[-1].end_byte
    if body.type in grammar.BLOCKS:
        edit = source.edit([sites.Edit(start, end, raises.encode())])
    else:  # an arrow function's expression
        edit = source.edit([sites.Edit(start, end, f"{{ {raises} }}".encode())])
    outer = function.node
    while outer.parent is not None and outer.parent.type in OUTER:
        outer = outer.parent
    doc, first = _comment(outer)
    doc = MARKS.sub("", doc).removesuffix("*/").strip()
    found = Masked(
        function, edit, doc, _head(source.data, first, body),
        tuple(line.strip() for line in source.data[start:end].decode("utf-8", "replace").splitlines() if line.strip()),
        raises, tuple(_parameters(function.node)), tuple(_raised(body)), tuple(_texts(body)),
    )  # fmt: skip
    read = parser(suffix).parse(found.data).root_node.has_error <= source.tree.root_node.has_error
    return found if read else Refused("cannot be masked", f"{function.path}:{function.line}")


def _head(data: bytes, first: int, body: Node) -> str:
    """From the comment on to the body, without indentation."""
    begins = data.rfind(b"\n", 0, first) + 1
    margin = data[begins:first] if not data[begins:first].strip() else b""
    return dedent((margin + data[first : body.start_byte]).decode("utf-8", "replace")).replace("\r", "").strip()


def _comment(node: Node) -> tuple[str, int]:
    """The comment right before it, past attributes, and the byte at which both begin."""
    lines: list[str] = []
    first, at = node, node.prev_named_sibling
    while at is not None and (at.type in BEFORE or "comment" in at.type):
        gap = first.start_point.row - at.end_point.row - (at.end_point.column == 0 and at.end_point.row > 0 and 1)
        if "comment" in at.type:
            if gap > 1:
                break
            lines.insert(0, text(at).rstrip("\n"))
        first, at = at, at.prev_named_sibling
    return "\n".join(lines), first.start_byte


def _is_stub(body: str) -> bool:
    return STUB.fullmatch(body) is not None


def _parameters(node: Node) -> list[str]:
    given = node.child_by_field_name("parameters") or node.child_by_field_name("parameter")
    if given is None:
        return []
    found = [text(given)] if given.type == "identifier" else []
    for child in given.named_children:
        name = (
            child.child_by_field_name("name")
            or child.child_by_field_name("pattern")
            or child.child_by_field_name("left")
        )
        found += [text(name if name is not None else child)]
    return [name for name in found if re.fullmatch(r"[\w$]+", name) and name not in ("self", "this")]


def _raised(body: Node) -> list[str]:
    thrown = [node for node in walk(body) if node.type == "throw_statement"]
    found = [re.match(r"throw\s+new\s+([\w.]+)", text(node)) for node in thrown]
    return list(dict.fromkeys(match[1] for match in found if match))


def _texts(body: Node) -> list[str]:
    kinds = ("string_literal", "string", "interpreted_string_literal", "raw_string_literal", "template_string")
    return list(dict.fromkeys(text(node)[1:-1] for node in walk(body) if node.type in kinds))
