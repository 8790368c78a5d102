"""What a repair brings and its tests use: nobody could guess it, so the issue of a mined task lists it.

Of functions and classes the signature is told, of constants and types the name alone: a value may be the repair
(invariant 5). A function that is there already is told where its tests use parameters that it does not have yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from crrl.tasks.diffs import changes

NAME = re.compile(r"[A-Za-z_]\w*")
SIGNATURE = re.compile(
    r"\s*(?:(?:async\s+)?def\s+(\w+)\s*\(|class\s+(\w+)|func\s+(?:\([^)]*\)\s*)?(\w+)\s*[\[(]"
    r"|(?:pub(?:\([^)]*\))?\s+)?(?:async\s+)?fn\s+(\w+)|(?:export\s+)?(?:default\s+)?(?:async\s+)?function\s*\*?\s*(\w+)\s*\("
    r"|(?:export\s+)?const\s+(\w+)\s*=\s*(?:async\s*)?\([^)]*\)\s*=>"
    r"|(?:(?:public|protected)\s+)(?:static\s+|final\s+)*[\w<>\[\], .?]+\s(\w+)\s*\()"
)
NAMED = re.compile(
    r"([A-Za-z_]\w*)\s*(?::[^=]+)?=(?!=)|\s+([A-Z][A-Z0-9_]+)\s*(?::[^=]+)?=(?!=)|(?:type|const|var)\s+([A-Z]\w*)"
    r"|\s*pub(?:\([^)]*\))?\s+(?:struct|enum|trait|const|static|type|mod)\s+(\w+)"
    r"|\s*export\s+(?:const|let|var|class|interface|type|enum)\s+(\w+)|\s*(?:module\.)?exports\.(\w+)\s*="
    r"|\s*(?:(?:public|protected|static|final|abstract)\s+)+(?:class|interface|enum|record)\s+(\w+)"
    r"|\s*(?:public\s+)?static\s+final\s+[\w<>\[\]]+\s+(\w+)\s*="
)
LONGEST = 12  # lines of a signature


def interface(solution: str, tests: str) -> list[str]:
    """A line for each, without what the tests do not use. `solution`, `tests`: diffs."""
    used = {name for _, lines in _changed(tests) for line in lines if line[0] == "+" for name in NAME.findall(line)}
    gone = [line[1:] for _, lines in _changed(solution) for line in lines if line[0] == "-"]
    before = {name for line in gone for name in NAME.findall(line)}
    old = {name: set(NAME.findall(text)) for name, text in _signatures(gone)}
    found = []
    for path, lines in _changed(solution):
        come = [line[1:] for line in lines if line[0] == "+"]
        for name, text in _signatures(come):
            more = set(NAME.findall(text)) - old.get(name, set(NAME.findall(text)))
            if name in used and (name not in before or more & used):
                found.append(f"`{text}` in {path}")
        for line in come:
            if not SIGNATURE.match(line) and (match := NAMED.match(line)):
                name = next(group for group in match.groups() if group)
                if name in used and name not in before:
                    found.append(f"`{name}` in {path}")
    return list(dict.fromkeys(found))


def _changed(patch: str) -> list[tuple[str, list[str]]]:
    return changes(patch) if patch.strip() else []


def _signatures(lines: list[str]) -> Iterator[tuple[str, str]]:
    """(name, signature in one line), as far as its brackets go."""
    for place, line in enumerate(lines):
        if match := SIGNATURE.match(line):
            end = next((n for n in range(1, LONGEST) if _closed(lines[place : place + n])), 1)
            text = " ".join(part.strip() for part in lines[place : place + end])
            text = re.sub(r"([(\[]) | ?,? (?=[)\]])", r"\1", text)
            end = max(_end(text), match.end(match.lastindex or 0) - (len(line) - len(line.lstrip())))
            text = text[:end] + re.split(r"\s*(?:[:{;]|=>?)", text[end:], maxsplit=1)[0]  # without the body
            yield next(group for group in match.groups() if group), text.strip()


def _end(text: str) -> int:
    """Behind the bracket that closes the first; 0 where there is none."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and depth == 0:
            return place + 1
    return 0


def _closed(lines: list[str]) -> bool:
    text = "".join(lines)
    return text.count("(") == text.count(")")
