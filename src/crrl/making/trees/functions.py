"""The functions of a file in Go, JavaScript, TypeScript, Rust or Java, and their mutants.

A file is read as bytes and changed as bytes: what a mutant does not change comes back as it was, whatever its encoding
and line ends. A mutant that the parser does not read is none.
"""

from __future__ import annotations

import bisect
import codecs
import itertools
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath

from tree_sitter import Node, Tree

from crrl.making.real_mutation import Mutant
from crrl.making.source_file import Edit, TextFile, UnreadableError
from crrl.making.trees import grammar
from crrl.making.trees.grammar import text
from crrl.making.trees.operators import Operators
from crrl.rewards.decoys import sites
from crrl.rewards.decoys.grammars import parser, walk

LONGEST_LINE = 1000  # beyond it, a file was written by a program
GENERATED = (b"DO NOT EDIT", b"@generated")


@dataclass(frozen=True)
class TreeFile(TextFile):
    """A file and its syntax tree. Bytes that are no UTF-8 are kept as surrogates."""

    tree: Tree = field(kw_only=True)

    @staticmethod
    def read(path: str, data: bytes) -> TreeFile:
        """Raises UnreadableError."""
        bare = data.removeprefix(codecs.BOM_UTF8)
        lines = [line.decode("utf-8", "surrogateescape") for line in bare.splitlines(keepends=True)]
        if any(len(line) > LONGEST_LINE for line in lines) or any(sign in data[:2000] for sign in GENERATED):
            raise UnreadableError(f"{path}: not written by hand")
        tree = parser(PurePath(path).suffix).parse(data)
        encoding = "utf-8" if bare == data else "utf-8-sig"
        return TreeFile(path, data, encoding, lines, errors="surrogateescape", tree=tree)

    @cached_property
    def starts(self) -> list[int]:
        """Of each line, the byte that it begins with."""
        lengths = (len(line.encode("utf-8", "surrogateescape")) for line in self.lines)
        mark = len(codecs.BOM_UTF8) if self.encoding == "utf-8-sig" else 0
        return list(itertools.accumulate(lengths, initial=mark))

    def line(self, byte: int) -> int:
        return min(bisect.bisect_right(self.starts, byte), max(1, len(self.lines)))

    def edit(self, changes: Sequence[sites.Edit]) -> Edit:
        """The changes of bytes as one of whole lines."""
        first, end = min(change.start for change in changes), max(change.end for change in changes)
        whole = all(not change.text and self._is_start(change.start, change.end) for change in changes)
        last = self.line(max(first, end - 1))
        if whole:
            return Edit(self.line(first), last, ())
        before, after = self.starts[self.line(first) - 1], self.starts[last]
        moved = [sites.Edit(change.start - before, change.end - before, change.text) for change in changes]
        changed = sites.rewritten(self.data[before:after], moved).decode("utf-8", "surrogateescape")
        return Edit(self.line(first), last, tuple(line.rstrip("\r") for line in changed.rstrip("\r\n").split("\n")))

    def _is_start(self, *places: int) -> bool:
        return all(self.starts[bisect.bisect_right(self.starts, byte) - 1] == byte for byte in places)


@dataclass(frozen=True)
class TreeFunction:
    """A function or method. `node`: all of it, `body`: its block, or the expression of an arrow function; `nested`:
    functions in it that stand for themselves."""

    source: TreeFile
    name: str
    node: Node
    body: Node
    nested: list[Node]

    @property
    def path(self) -> str:
        return self.source.path

    @property
    def starts(self) -> int:
        return self.source.line(self.node.start_byte)

    @property
    def line(self) -> int:
        return self.starts

    @property
    def first(self) -> int:
        inside = [child for child in self.body.named_children if "comment" not in child.type]
        return self.source.line((inside[0] if inside else self.body).start_byte)

    @property
    def last(self) -> int:
        return self.source.line(max(self.body.start_byte, self.body.end_byte - 1))

    def mutants(self, rng: random.Random, weights: Mapping[str, float]) -> Iterator[Mutant]:
        go = self.path.endswith(".go")
        offered = list(Operators(self.node, self.body, self.source.data, self.nested, go=go).changes())
        share = Counter(kind for kind, _ in offered)
        key = {
            place: rng.random() ** (share[kind] / weights[kind])
            for place, (kind, _) in enumerate(offered)
            if weights.get(kind, 0) > 0
        }
        seen: set[Edit] = set()
        for place in sorted(key, key=key.__getitem__, reverse=True):
            kind, changes = offered[place]
            edit = self.source.edit(changes)
            old = self.source.bare[edit.first - 1 : edit.last]
            if edit in seen or list(edit.new) == old or not self._is_read(edit):
                continue
            seen.add(edit)
            edit = self._formatted(edit)
            old = self.source.bare[edit.first - 1 : edit.last]
            yield Mutant(kind, edit, old[0].strip(), edit.new[0].strip() if edit.new else "")

    def _formatted(self, edit: Edit) -> Edit:
        """As gofmt would write it: what is not would show where the fault is."""
        if not self.path.endswith(".go") or (gofmt := shutil.which("gofmt")) is None:
            return edit
        made = subprocess.run([gofmt], input=self.source.with_edits([edit]), capture_output=True, check=False)
        new = [line.decode("utf-8", "surrogateescape") for line in made.stdout.splitlines()]
        old = self.source.bare
        first, last = edit.first - 1, len(old) - edit.last  # lines before, and after
        same = made.returncode == 0 and new[:first] == old[:first] and new[len(new) - last :] == old[len(old) - last :]
        return Edit(edit.first, edit.last, tuple(new[first : len(new) - last])) if same else edit

    def _is_read(self, edit: Edit) -> bool:
        changed = parser(PurePath(self.path).suffix).parse(self.source.with_edits([edit]))
        return changed.root_node.has_error <= self.source.tree.root_node.has_error


def functions(path: str, data: bytes) -> list[TreeFunction]:
    """Those of a file, in its order; one that the parser does not read is left out. Raises UnreadableError."""
    source = TreeFile.read(path, data)
    found = [(node, _name(node)) for node in walk(source.tree.root_node) if _name(node) and not _of_tests(node)]
    named = {node.id for node, _ in found}
    made = []
    for node, name in found:
        body = node.child_by_field_name("body")
        if body is None or node.has_error:
            continue
        nested = [n for n in walk(body) if n.id in named and n.id != node.id]
        made.append(TreeFunction(source, name, node, body, nested))
    return made


def _name(node: Node) -> str:
    """With its class; "" where it is no function, or has no name."""
    if node.type in grammar.FUNCTIONS:
        name = text(node.child_by_field_name("name"))
    elif node.type in grammar.CLOSURES and node.parent is not None and node.parent.type in grammar.NAMED_BY:
        name = text(node.parent.child_by_field_name(grammar.NAMED_BY[node.parent.type]))
        name = name.removeprefix("module.").removeprefix("exports.").removeprefix("this.")
    else:
        return ""
    receiver = node.child_by_field_name("receiver")
    owners = [text(n) for n in walk(receiver) if n.type == "type_identifier"][:1] if receiver is not None else []
    at = node.parent
    while at is not None and not owners:
        if at.type in grammar.OWNERS:
            owners = [text(at.child_by_field_name(grammar.OWNERS[at.type])).partition("<")[0]]
        at = at.parent
    return ".".join([*filter(None, owners), name])


def _of_tests(node: Node) -> bool:
    """Rust's tests stand beside the code."""
    at: Node | None = node
    while at is not None:
        before = at.prev_named_sibling
        while before is not None and before.type in ("attribute_item", "line_comment"):
            if "test" in text(before) and before.type == "attribute_item":
                return True
            before = before.prev_named_sibling
        at = at.parent
    return False
