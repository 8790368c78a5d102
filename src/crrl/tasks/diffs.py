"""Unified diffs as corpora need them: made of two texts, reversed, and the files and lines that one changes.

Some corpora keep the patch that makes the bug (SWE-smith, Defects4J): its reverse is the repair.
"""

from __future__ import annotations

import difflib
import re

from crrl.unified_diff import Hunk, bare, parse

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
    """The diff that undoes `patch`. Raises ValueError where it is no unified diff, or binary, which cannot be turned
    round."""
    made: list[str] = []
    for piece in (piece for part in parse(patch) for piece in part.pieces):
        if isinstance(piece, Hunk):
            made += [f"@@ -{piece.new} +{piece.old} @@{piece.section}", *_turned(piece.body)]
        elif piece.startswith(("GIT binary patch", "Binary files ")):
            raise ValueError("a binary patch has no reverse")
        elif piece.startswith("+++ ") and made and made[-1].startswith("--- "):
            made[-1:] = [f"--- {_side(piece[4:], 'a/')}", f"+++ {_side(made[-1][4:], 'b/')}"]
        else:
            made.append(_header(piece))
    return "".join(f"{line}\n" for line in made)


def touched(patch: str) -> list[str]:
    """Paths that a patch changes, makes or deletes, in its order. Raises ValueError where it is no unified diff."""
    return list(dict.fromkeys(name for part in parse(patch) for name in part.names))


def changes(patch: str) -> list[tuple[str, list[str]]]:
    """(path, changed lines with their signs) of each part of a patch; a renamed file has a part under each name.

    Raises ValueError where it is no unified diff, or a hunk is cut short.
    """
    found: list[tuple[str, list[str]]] = []
    for part in parse(patch):
        *before, name = part.names
        found += [*((path, []) for path in before), (name, [line for line in part.lines if line[0] in "+-"])]
    return found


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
    if name.startswith("/dev/null"):
        return name
    quote, name = ('"', name[1:]) if name.startswith('"') else ("", name)
    return f"{quote}{prefix}{bare(name)}"


def _header(line: str) -> str:
    for prefix, other in SWAPPED.items():
        if line.startswith(prefix):
            return other + line[len(prefix) :]
    if match := re.match(r'^diff --git ("a/(?:[^"\\]|\\.)*"|a/.*) ("b/(?:[^"\\]|\\.)*"|b/.*)$', line):
        return f"diff --git {_side(match[2], 'a/')} {_side(match[1], 'b/')}"
    return re.sub(r"^index ([0-9a-f]+)\.\.([0-9a-f]+)", r"index \2..\1", line)
