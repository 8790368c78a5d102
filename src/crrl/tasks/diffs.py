"""Unified diffs as corpora need them: between two texts, backwards, and the paths that one touches.

Some corpora keep the patch that makes the bug (SWE-smith, Defects4J): its reverse is the repair.
"""

from __future__ import annotations

import difflib
import re

HUNK = re.compile(r"^@@ -(\d+(?:,\d+)?) \+(\d+(?:,\d+)?) @@(.*)$", re.DOTALL)
NO_NEWLINE = "\\ No newline at end of file\n"
SWAPPED = {
    "new file mode ": "deleted file mode ",
    "rename from ": "rename to ",
    "copy from ": "copy to ",
    "old mode ": "new mode ",
}
SWAPPED |= {new: old for old, new in SWAPPED.items()}


def between(path: str, old: str | None, new: str | None, *, context: int = 3) -> str:
    """The git diff from `old` to `new` (None: no such file); empty where they are equal. `context`: lines around."""
    if old == new:
        return ""
    mode = "new file mode 100644\n" if old is None else "deleted file mode 100644\n" if new is None else ""
    names = ("/dev/null" if old is None else f"a/{path}", "/dev/null" if new is None else f"b/{path}")
    lines = difflib.unified_diff(_lines(old), _lines(new), *names, n=context)
    body = "".join(line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}" for line in lines)
    return f"diff --git a/{path} b/{path}\n{mode}{body}"


def _lines(text: str | None) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text or "")  # not splitlines: a form feed ends no line of a diff


def reverse(patch: str) -> str:
    """The diff that undoes `patch`. Raises ValueError for binary patches, which cannot be turned round."""
    lines, made, at = _lines(patch), [], 0
    while at < len(lines):
        line = lines[at]
        if line.startswith(("GIT binary patch", "Binary files ")):
            raise ValueError("a binary patch has no reverse")
        if match := HUNK.match(line):
            end = _hunk_end(lines, at)
            made += [f"@@ -{match[2]} +{match[1]} @@{match[3]}", *_turned(lines[at + 1 : end])]
            at = end
            continue
        if line.startswith("--- ") and at + 1 < len(lines) and lines[at + 1].startswith("+++ "):
            made += [f"--- {_side(lines[at + 1][4:], 'a/')}", f"+++ {_side(line[4:], 'b/')}"]
            at += 2
            continue
        for prefix, other in SWAPPED.items():
            if line.startswith(prefix):
                line = other + line[len(prefix) :]
                break
        made.append(_header(line))
        at += 1
    return "".join(made)


def touched(patch: str) -> list[str]:
    """Paths that a patch changes, makes or deletes, in its order. Raises ValueError where it is no unified diff."""
    return list(dict.fromkeys(path for path, _ in changes(patch)))


def changes(patch: str) -> list[tuple[str, list[str]]]:
    """(path, changed lines with their signs) of each part of a patch; a renamed file has a part under each name.

    Raises ValueError where it is no unified diff, or a hunk is cut short.
    """
    found: list[tuple[str, list[str]]] = []
    lines, at = _lines(patch), 0
    while at < len(lines):
        line = lines[at]
        if HUNK.match(line):
            end = _hunk_end(lines, at)
            if not found:
                raise ValueError("a hunk before any file name")
            found[-1][1].extend(body.rstrip("\n") for body in lines[at + 1 : end] if body[0] in "+-")
            at = end
            continue
        if match := re.match(r'^diff --git "?a/(.*?)"? "?b/(.*?)"?\n', line):
            found += [(name, []) for name in dict.fromkeys(match.groups())]
        elif line.startswith("--- ") and at + 1 < len(lines) and lines[at + 1].startswith("+++ "):
            names = [re.sub(r"^[ab]/", "", text.split("\t")[0].strip()) for text in (line[4:], lines[at + 1][4:])]
            named = [name for name in names if name != "/dev/null"]
            if named and (not found or found[-1][0] not in named):
                found.append((named[-1], []))
            at += 1
        at += 1
    if patch.strip() and not found:
        raise ValueError("not a unified diff")
    return found


def _hunk_end(lines: list[str], at: int) -> int:
    match = HUNK.match(lines[at])
    assert match is not None
    left = [int(count.partition(",")[2] or 1) for count in match.groups()[:2]]
    first, at = at, at + 1
    while max(left) > 0 or (at < len(lines) and lines[at].startswith("\\")):
        if at == len(lines) or (mark := lines[at][0]) not in " +-\\\n":
            raise ValueError(f"a hunk is cut short: {lines[first].strip()}")
        left[0] -= mark in " -\n"
        left[1] -= mark in " +\n"
        at += 1
    return at


def _turned(body: list[str]) -> list[str]:
    """The lines of a hunk with their signs changed; in each run of changes, what goes away comes first."""
    made: list[str] = []
    gone: list[str] = []
    come: list[str] = []
    into = made
    for line in [*body, " "]:
        if line[0] == "+":
            into = gone
            into.append("-" + line[1:])
        elif line[0] == "-":
            into = come
            into.append("+" + line[1:])
        elif line[0] == "\\":
            into.append(line)
        else:
            made += [*gone, *come, line]
            gone, come, into = [], [], made
    return made[:-1]


def _side(name: str, prefix: str) -> str:
    return name if name.startswith("/dev/null") else prefix + re.sub(r"^[ab]/", "", name)


def _header(line: str) -> str:
    if match := re.match(r"^diff --git a/(.*) b/(.*)\n$", line):
        return f"diff --git a/{match[2]} b/{match[1]}\n"
    return re.sub(r"^index ([0-9a-f]+)\.\.([0-9a-f]+)", r"index \2..\1", line)
