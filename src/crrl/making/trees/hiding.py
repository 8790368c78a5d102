"""Tests taken out of files in Go, JavaScript, Rust and Java; what is left still compiles.

An import of Go that nothing uses any more goes, too. A file that would have no test left keeps all of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from crrl.making.trees import grammar
from crrl.making.trees.grammar import text
from crrl.making.trees.units import units
from crrl.rewards.decoys.grammars import parser, walk
from crrl.rewards.decoys.sites import Edit, rewritten


def without_tests(path: str, data: bytes, names: Collection[str]) -> bytes:
    """The file without the tests of these names; as it was where none can go."""
    found = units(path, data)
    gone = [unit for unit in found if unit.name in names]
    if not gone or len(gone) == len(found):
        return data
    left = rewritten(data, [_lines(data, unit.start, unit.node.end_byte) for unit in gone])
    if path.endswith(".go"):
        left = _without_imports(left)
    before = parser(path[path.rindex(".") :])
    return left if not before.parse(left).root_node.has_error else data


def _lines(data: bytes, start: int, end: int) -> Edit:
    """What stands on these lines, and the empty line before."""
    first = data.rfind(b"\n", 0, start) + 1
    last = data.find(b"\n", end)
    last = len(data) if last < 0 else last + 1
    if data[first:start].strip() or data[end:last].strip(b" \t\r\n;,"):
        return Edit(start, end, b"")
    while first > 1 and data[data.rfind(b"\n", 0, first - 1) + 1 : first].strip() == b"":
        first = data.rfind(b"\n", 0, first - 1) + 1
    return Edit(first, last, b"")


def _without_imports(data: bytes) -> bytes:
    root = parser(".go").parse(data).root_node
    used = {text(n) for n in walk(root) if n.type in ("identifier", "package_identifier") and _is_use(n.parent)}
    edits = []
    for spec in (n for n in walk(root) if n.type == "import_spec"):
        named, path = spec.child_by_field_name("name"), text(spec.child_by_field_name("path")).strip('"`')
        parts = [part for part in path.split("/") if not re.fullmatch(r"v\d+", part)]
        name = text(named) if named is not None else re.sub(r"^go-|[.-]go$|\.v\d+$", "", parts[-1]).replace("-", "")
        if name not in ("_", ".") and name not in used and parts[-1] not in used:
            whole = spec if spec.parent is not None and spec.parent.type == "import_spec_list" else spec.parent
            assert whole is not None
            edits.append(_lines(data, whole.start_byte, whole.end_byte))
    return rewritten(data, edits)


def _is_use(parent: object) -> bool:
    return getattr(parent, "type", "") in (*grammar.MEMBERS, "qualified_type", "qualified_identifier")
