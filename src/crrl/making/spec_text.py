"""Whether a docstring says enough to implement a function from it, and the text of the task.

A specification says enough when it has words of its own beside the function's name, with an example that shows a
result, or in sentences; when it names each parameter that its callers must give, as far as there are several; and when
what the tests compare does not hang on texts that nobody but the body has. The rule is `lacks`; its numbers are below.
The text shows signature and docstring, where they stand, the shortest of the tests, and calls that others expect to
raise what the docstring does not name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent, indent

from crrl import python_syntax
from crrl.making.source_file import SourceFile, UnreadableError
from crrl.making.spec_mask import Masked

WORDS, WITH_EXAMPLE = 8, 2  # of its own that a docstring needs: alone, and beside an example
SHOWN_TESTS, SHOWN_LINES = 3, 40  # tests in the issue, and lines of all of them
SHOWN_CALLS = 3  # of those that are expected to raise
ASSERTS = re.compile(r"\bassert|\braises\b|\bfail\(|\bwarns\b")  # self.assertEqual, too
EXPECTS = ("raises", "assertraises", "assertraisesregex")
LEAST_TEXT = 4  # characters of a text that tests may compare
WORD = re.compile(r"[A-Za-z]+")
EXAMPLE = re.compile(r"(?m)^\s*(?:>>>|In \[\d+\]:|\$ )|=>|-->|#\s*=|^\s*assert |\breturns? [\[({'\"\d]")
DOCTEST = re.compile(r"(?ms)^\s*>>>.*?(?=^\s*$|\Z)")
EMPTY = {
    *(
        "a",
        "an",
        "and",
        "are",
        "as",
        "be",
        "by",
        "can",
        "for",
        "from",
        "given",
        "has",
        "have",
        "if",
        "in",
        "into",
        "is",
    ),
    *("it", "its", "of", "on", "or", "return", "returns", "see", "should", "that", "the", "then", "this", "to", "todo"),
    *("use", "used", "uses", "we", "when", "whether", "which", "will", "with", "you"),
}
"""Words that say nothing of what a function does."""
REFERS = re.compile(r"\b(?:see|same as|like|like the|alias (?:for|of)|refer to)\b\W{0,3}[:`\w.]+\W*\Z", re.I)


def lacks(one: Masked) -> str:
    """What the specification does not say; "" where it says enough."""
    if not one.doc:
        return "no docstring"
    prose = DOCTEST.sub("", one.doc)
    own = {word.lower() for word in WORD.findall(prose)} - EMPTY
    own -= {part.lower() for part in _parts(one.function.name)}
    example = EXAMPLE.search(one.doc) is not None
    if len(own) < (WITH_EXAMPLE if example else WORDS):
        return f"{len(own)} words{' and an example' if example else ' and no example'}"
    if len(prose.split()) < 2 * WORDS and REFERS.search(prose.strip()):
        return "refers to something else"
    if not example and len(one.parameters) > 1:
        said = one.doc + one.head.partition("(")[2]
        unnamed = [name for name in one.parameters if not _named(name, one.doc, said)]
        if len(unnamed) > len(one.parameters) // 2:
            return f"does not name {', '.join(unnamed)}"
    return ""


def _parts(name: str) -> list[str]:
    """`Box.to_json` -> Box, to, json."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)


def _named(name: str, doc: str, said: str) -> bool:
    """In the docstring; or with a type or a default in the signature, which says as much."""
    stem = name.strip("_*")
    return re.search(rf"(?i)\b{re.escape(stem)}\b", doc) is not None or (
        re.search(rf"\b{re.escape(name)}\s*[:=]", said) is not None
    )


def unsaid(one: Masked, tests: Mapping[str, str]) -> str:
    """A text that tests compare which are not shown, and of the whole file only the body has."""
    seen = shown(one, tests)
    compared = [text for test, source in tests.items() if test not in seen for text in _constants(source)]
    told = "\n".join([one.head, one.data.decode("utf-8", "replace"), *seen.values()])
    for text in one.texts:
        plain = text.strip()
        if len(plain) < LEAST_TEXT or plain in told or not re.search(r"[A-Za-z]{2}", plain):
            continue
        for other in compared:
            if plain in other or (len(other.strip()) >= LEAST_TEXT and other.strip() in plain):
                return plain[:60]
    return ""


def _raising(source: str, error: str) -> Iterator[str]:
    """The statements of a test that expect this error, as they are written; a block with its first statement."""
    try:
        tree = python_syntax.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.With | ast.Expr | ast.Assert):
            continue
        expects = [item.context_expr for item in node.items] if isinstance(node, ast.With) else [node]
        words = {getattr(part, "id", getattr(part, "attr", "")) for one in expects for part in ast.walk(one)}
        if error in words and any(word.lower().replace("_", "") in EXPECTS for word in words):
            last = node.body[0].end_lineno if isinstance(node, ast.With) else node.end_lineno
            lines = source.splitlines()[node.lineno - 1 : last]
            yield dedent("\n".join(lines))


def _constants(source: str) -> Iterator[str]:
    try:
        tree = python_syntax.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def tests_of(tree: Path, tests: Iterable[str]) -> dict[str, str]:
    """The source of test functions (`path::Class::function`) of Python files; of others the whole file, by its path."""
    found: dict[str, str] = {}
    files: dict[str, SourceFile | None] = {}
    for test in dict.fromkeys(test.partition("[")[0] for test in tests):
        path, *names = test.split("::")
        if path not in files:
            try:
                files[path] = SourceFile.read(path, (tree / path).read_bytes())
            except (UnreadableError, OSError):
                files[path] = None
        if (source := files[path]) is not None:
            found[test] = _source_of(source, names)
        elif (tree / path).is_file():
            found[path] = (tree / path).read_text("utf-8", "replace")
    return found


def shown(one: Masked, tests: Mapping[str, str]) -> dict[str, str]:
    """The shortest of them that name the function, then the others, as far as the issue has room: documentation rarely
    says all that tests ask for. Of either those that assert something come first."""
    named = re.compile(rf"\b{re.escape(one.function.name.rpartition('.')[2])}\b")
    kept: dict[str, str] = {}
    left = SHOWN_LINES

    def order(test: str) -> tuple[bool, bool, int, str]:
        source = tests[test]
        return not named.search(source), not ASSERTS.search(source), source.count("\n"), test

    for test in sorted(tests, key=order):
        source = tests[test]
        left -= source.count("\n") + 1
        if "::" in test and source and left >= 0 and len(kept) < SHOWN_TESTS:
            kept[test] = source
    return kept


def _source_of(source: SourceFile, names: list[str]) -> str:
    body = source.tree.body
    for name in names:
        node = next((node for node in body if getattr(node, "name", "") == name), None)
        if node is None:
            return ""
        if not isinstance(node, ast.ClassDef):
            assert isinstance(node, ast.stmt)
            first = min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", ()))])
            lines = source.bare[first - 1 : node.end_lineno]
            margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
            return "\n".join(line[margin:] for line in lines)
        body = node.body
    return ""


def text(one: Masked, line: int, tests: Mapping[str, str], first: str) -> str:
    """The issue. `line`: of the signature; `tests`: the source of those that judge, of which some are `shown`; `first`:
    one that the agent can run, where none can be shown ("": none judges)."""
    function = one.function
    raised = [error for error in one.raised if error and error not in one.doc]
    told = shown(one, tests)
    hidden = [source for test, source in tests.items() if test not in told]
    calls = list(dict.fromkeys(call for source in hidden for error in raised for call in _raising(source, error)))
    parts = [
        f"Implement `{function.name}` in {function.path}. Its body is missing (line {line}); "
        "signature and documentation say what it has to do:",
        indent(one.head, "    "),
        "Keep the signature and the documentation as they are.",
    ]
    if told:
        parts.append(f"{'Some of its tests' if len(told) < len(tests) else 'Its tests'}:")
        parts += [indent(f"# {test.partition('::')[0]}\n{source}", "    ") for test, source in told.items()]
    elif first:
        parts.append(f"Tested by `{first.partition('[')[0]}`{', among others' if len(tests) > 1 else ''}.")
    if calls:
        parts += ["Tests expect errors that it does not name:", indent("\n".join(calls[:SHOWN_CALLS]), "    ")]
    return "\n\n".join(parts) + "\n"
