"""Reads search/replace blocks out of whatever a model wrote. Never raises, in time linear in the answer.

Survives: fences around blocks or around the code in them, indented markers, a missing closing marker, a missing
opening marker in a fence, markers of other lengths, Cline's and those of git's conflicts, CRLF, paths in headings,
backticks, fences, comments and sentences, or only before the first of several blocks. Drafts in the reasoning before
the answer do not count. What it cannot read is a `Fault`; the other blocks count.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from crrl.agents.search_replace import Block, Fault, Reading
from crrl.agents.search_replace.marks import (
    CLOSE,
    CONFLICT_CLOSE,
    CONFLICT_OPEN,
    DIVIDE,
    FENCE,
    GLUED_CLOSE,
    GLUED_DIVIDE,
    LIKE_CLOSE,
    OPEN,
)

_OF_PATHS = r"[^\s:<>|\"'`*?“”‘’"
_PATH = re.compile(rf"^(?!.*\]\()(?:{_OF_PATHS}]*{_OF_PATHS}/.]\.\w{{1,10}}|{_OF_PATHS}]+/{_OF_PATHS}/]+)$")
_WORD = re.compile(r"[^\s:<>|\"'`*?(){}\[\],;=“”‘’]+")
_LABEL = re.compile(r"^(?:file(?:name)?|path)\s*[:=]?\s+|^(?:file(?:name)?|path)[:=]\s*", re.IGNORECASE)
REASONING, ANSWERING = "<think>", "</think>"
LONGEST = 512  # line that names a path
LINES_ABOVE = 3  # above a block, not counting blank ones and fences, in which its path is looked for


@dataclass(frozen=True)
class Parsed:
    blocks: list[Block]
    faults: list[Fault]


def parse(answer: str, files: Collection[str] = ()) -> Parsed:
    """`files`: the paths that the answer may be about; where there is one only, blocks need not name it."""
    lines = answer.removeprefix("\ufeff").split("\n")
    if all(line.endswith("\r") for line in lines[:-1]):
        lines = [line.removesuffix("\r") for line in lines]
    return _Reader(_answering(lines), files).read()


def _answering(lines: list[str]) -> list[str]:
    """The lines with those of the reasoning blank: what stands before the first `</think>`, where the answer begins
    with `<think>`, or the template began it so (then the mark stands in a line that no block is around)."""
    opened = next((line for line in lines if line.strip()), "").lstrip().startswith(REASONING)
    inside = False
    for at, line in enumerate(lines):
        if ANSWERING in line and (opened or (not inside and line.strip().startswith(ANSWERING))):
            return [*[""] * at, line.partition(ANSWERING)[2], *lines[at + 1 :]]
        inside = (inside or bool(OPEN.match(line))) and not CLOSE.match(line)
    return lines


class _Reader:
    def __init__(self, lines: list[str], files: Collection[str]) -> None:
        self.lines, self.files = lines, files
        self.known = {name: name for name in files}
        tails: dict[str, list[str]] = {}
        for name in files:
            parts = name.split("/")
            for i in range(1, len(parts)):
                tails.setdefault("/".join(parts[i:]), []).append(name)
        self.known |= {tail: names[0] for tail, names in tails.items() if len(names) == 1 and tail not in self.known}
        self.path: str | None = next(iter(files)) if len(files) == 1 else None
        self.blocks: list[Block] = []
        self.faults: list[Fault] = []
        self.open, self.close = OPEN, CLOSE
        if not any(OPEN.match(line) for line in lines) and any(CONFLICT_OPEN.match(line) for line in lines):
            self.open, self.close = CONFLICT_OPEN, CONFLICT_CLOSE

    def read(self) -> Parsed:
        at = begin = 0  # `begin`: where the previous block ended
        divided = None  # a divider outside any block
        while at < len(self.lines):
            line = self.lines[at]
            if (opened := self.open.match(line)) is not None:
                at = begin = self._block(at, begin, opened)
                divided = None
                continue
            if DIVIDE.match(line):
                divided = at
            elif self.close.match(line):
                self._unopened(begin, divided, at)
                begin, divided = at + 1, None
            at += 1
        return Parsed(self.blocks, self.faults)

    def _block(self, at: int, begin: int, opened: re.Match[str]) -> int:
        """Reads the block whose opening marker is at `at`. Returns the line after it."""
        length = len(opened["mark"])
        end, after = self._end(at, length)
        body = self.lines[at + 1 : end]
        indent = self.lines[at][: len(self.lines[at]) - len(self.lines[at].lstrip())]
        if indent and all(line.startswith(indent) for line in body if line.strip()):
            body = [line.removeprefix(indent) for line in body]
        if end == after and body and (glued := GLUED_CLOSE.match(body[-1])) is not None:
            body[-1] = glued["code"]
        self._add(at, self._path_above(at, begin, (opened["rest"], opened["path"] or "")), self._readings(body, length))
        return after

    def _end(self, at: int, length: int) -> tuple[int, int]:
        """(the line that ends the body, the line to go on with). A body without a closing marker ends at one that is
        nearly it, at the fence in which it stands, or before the next opening one and the path above that."""
        divided, other, like, fence = False, None, None, None
        for i in range(at + 1, len(self.lines)):
            line = self.lines[i]
            if (closed := self.close.match(line)) is not None:
                if len(closed["mark"]) == length:
                    return i, i + 1
                other = i if other is None else other
            elif (opened := self.open.match(line)) is not None and len(opened["mark"]) == length:
                break
            elif DIVIDE.match(line):
                divided = True
            elif divided and like is None and LIKE_CLOSE.match(line):
                like = i
            elif divided and fence is None and (fenced := FENCE.match(line)) is not None and not fenced[1].strip():
                fence = i
        else:
            i = len(self.lines)
        for closing in (other, like):
            if closing is not None:
                return closing, closing + 1
        if fence is not None and self._fenced(at):
            return fence, fence + 1
        follows = i < len(self.lines)
        while i > at + 1 and self._between(self.lines[i - 1], follows):
            i -= 1
        return i, i

    def _between(self, line: str, follows: bool) -> bool:
        """Whether a line at the end of a body without a closing marker is not of it. `follows`: another block does."""
        return not line.strip() or (follows and (FENCE.match(line) is not None or self._named(line) in self.files))

    def _fenced(self, at: int) -> bool:
        """Whether a fence stands shortly above."""
        return any(FENCE.match(line) for line in self.lines[max(0, at - LINES_ABOVE) : at])

    def _readings(self, body: Sequence[str], length: int) -> list[Reading]:
        marks = [(i, len(mark["mark"])) for i, line in enumerate(body) if (mark := DIVIDE.match(line))]
        glued = () if marks else ((i, mark) for i, line in enumerate(body) if (mark := GLUED_DIVIDE.match(line)))
        for i, mark in glued:
            body, marks = [*body[:i], mark["code"], "", *body[i + 1 :]], [(i + 1, length)]
            break
        exact = [i for i, size in marks if size == length] or [i for i, _ in marks]
        readings = []
        for i in exact[:8]:
            search, replace = tuple(body[:i]), tuple(body[i + 1 :])
            readings.append(Reading(search, replace))
            if _in_fence(search) or _in_fence(replace):
                readings.append(Reading(_without_fence(search), _without_fence(replace)))
        return readings

    def _unopened(self, begin: int, divided: int | None, at: int) -> None:
        """A closing marker without an opening one: the search text begins at the fence, or after the path."""
        if divided is None:
            self.faults.append(Fault(at + 1, "REPLACE without SEARCH: write <<<<<<< SEARCH, the old lines, =======."))
            return
        start = next((i + 1 for i in range(divided - 1, begin - 1, -1) if FENCE.match(self.lines[i])), None)
        path = None
        if start is None:
            start = next((i + 1 for i in range(divided - 1, begin - 1, -1) if self._named(self.lines[i])), None)
            path = None if start is None else self._named(self.lines[start - 1])
        elif start < divided and (path := self._named(self.lines[start])) is not None:
            start += 1
        if start is None or start >= divided:
            self.faults.append(Fault(at + 1, "The marker <<<<<<< SEARCH is missing before the old lines."))
            return
        body = self.lines[start:at]
        path = path or self._path_above(start, begin)
        self._add(start, path, [Reading(tuple(body[: divided - start]), tuple(body[divided - start + 1 :]))])

    def _add(self, at: int, path: str | None, readings: Sequence[Reading]) -> None:
        if not readings:
            self.faults.append(Fault(at + 1, "The block has no line ======= between the old and the new lines."))
        elif path is None:
            self.faults.append(Fault(at + 1, "The block names no file: write its path in the line above SEARCH."))
        else:
            self.path = path
            self.blocks.append(Block(path, tuple(readings), at + 1))

    # Paths ------------------------------------------------------------------------------------------------------

    def _path_above(self, at: int, begin: int, beside: Sequence[str] = ()) -> str | None:
        """The path `beside` the opening marker, or in one of the lines above it; else that of the block before."""
        for text in beside:
            if (path := self._named(text)) is not None:
                return path
        seen = 0
        near = []
        for i in range(at - 1, begin - 1, -1):
            line = self.lines[i]
            near.append(line)
            fence = FENCE.match(line)
            candidates = fence[1].split() if fence else [line]
            for candidate in reversed(candidates):
                if (path := self._named(candidate)) is not None:
                    return path
            seen += bool(line.strip()) and fence is None
            if seen == LINES_ABOVE:
                break
        return next((path for line in near if (path := self._mentioned(line)) is not None), self.path)

    def _named(self, line: str) -> str | None:
        """The file that a line names, or None: a known one, or anything that looks like a path."""
        for text in _cleaned(line):
            if (path := self._resolved(text)) is not None:
                return path
        return None

    def _mentioned(self, line: str) -> str | None:
        """The only file shown of which a line speaks."""
        words = _WORD.findall(line) if len(line) <= LONGEST else []
        found = {path for word in words if (path := self._resolved(word.rstrip("."))) in self.files}
        return found.pop() if len(found) == 1 else None

    def _resolved(self, text: str) -> str | None:
        for name in (text, text.removeprefix("./"), text.lstrip("/"), text.replace("\\", "/")):
            if name in self.known:
                return self.known[name]
        plain = text.removeprefix("./")
        if plain[:2] in ("a/", "b/") and plain[2:] in self.known:
            return self.known[plain[2:]]
        parts = text.split("/")
        for i in range(1, len(parts)):  # an absolute path, or one below another folder
            if "/".join(parts[i:]) in self.files:
                return "/".join(parts[i:])
        return plain if _PATH.match(plain) and len(plain) < 256 and ".." not in parts and plain[0] != "/" else None


def _cleaned(line: str) -> list[str]:
    """What of a line may be a path: all of it, without its decoration, without a label, the part in backticks."""
    if len(line) > LONGEST:
        return []
    text = line.strip(" \t\r\u200b\u2060\ufeff")
    bare = text.strip("#*:`\"'“”‘’<>[]() \t-").strip()
    found = [text, bare, _LABEL.sub("", bare).strip("`\"'* \t")]
    found += re.findall(r"`([^`]+)`", text)[:1]
    return [part for part in dict.fromkeys(found) if part]


def _in_fence(lines: Sequence[str]) -> bool:
    return len(lines) >= 2 and bool(FENCE.match(lines[0])) and bool(FENCE.match(lines[-1]))


def _without_fence(lines: tuple[str, ...]) -> tuple[str, ...]:
    return lines[1:-1] if _in_fence(lines) else lines
