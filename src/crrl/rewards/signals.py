"""What an agent's tool calls were for, turn by turn: commands, reads, edits, tests; what failed, what was repeated.

Read off the calls that the policy sampled and the results that it was told, whatever the agent: by the names of
arguments (`cmd`, `command`, `old_str`...), the words that commands begin with, and the words in which agents report an
exit code. A heuristic, for metrics and the reward `process`: an agent whose tools have other names shows calls only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from crrl.gateway.canonical import Call
from crrl.rewards.conduct import TEXTS

COMMAND = ("cmd", "command", "commands", "cmds", "script", "code")
"""Arguments that hold a shell command."""
_LONGEST, _TOLD = 1 << 12, 1 << 16  # characters of a command, and of results (their end), that are looked at

_EDITOR = {"view": "reads", "str_replace": "edits", "create": "edits", "insert": "edits", "undo_edit": "edits"}
"""Values of `command` of an editing tool."""
_EDITS = re.compile(r"edit|write|create|replace|patch|insert", re.IGNORECASE)
_READS = re.compile(r"read|view|open|cat\b", re.IGNORECASE)

_HEREDOC = re.compile(r"<<-?[ \t]*(['\"]?)(\w+)\1([^\n]*)\n.*?^[ \t]*\2[ \t]*$", re.DOTALL | re.MULTILINE)
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"")
_PARTS = re.compile(r"(&&|\|\||[;|\n&])")
_BEFORE = re.compile(r"^\s*(?:[({]\s*|\w+=\S*\s+|(?:sudo|env|time|exec|(?:poetry|uv)\s+run|timeout\s+\S+)\s+)+")
_READING = re.compile(r"^(?:cat|head|tail|less|more|nl|bat|sed\s+-n)\b(?!.*\s>)")
_EDITING = re.compile(r"^(?:sed\s+(?:-\w+\s+)*-\w*i|perl\s+-\w*i|patch\b|git\s+apply\b|apply_patch\b|tee\b|ed\b)")
_WRITING = re.compile(r"(?<![\d&>])>>?\s*(?!&|/dev/|/tmp/)[\w./~-]")
_TESTING = re.compile(
    r"^(?:\S*/)?(?:"
    r"(?:pytest|py\.test|tox|nox|jest|vitest|mocha|ctest|rspec|phpunit|runtests\.py|manage\.py\s+test)\b"
    r"|python[\d.]*\s+(?:-\w+\s+)*(?:-m\s+(?:pytest|unittest|nose2?|doctest)|\S*manage\.py\s+test|\S*test\w*\.py)\b"
    r"|(?:go|cargo|dotnet|swift|mix|bundle\s+exec|npx|gradle|gradlew|mvn|mvnw)\s+(?:\S+\s+)*?(?:\S*:)?"
    r"(?:test|verify|rspec|jest|vitest|mocha)\b"
    r"|(?:npm|yarn|pnpm|bun)\s+(?:run\s+)?test\b|make\s+(?:\S+\s+)*?(?:test|check)\b"
    r")"
)
_NO_RUN = re.compile(r"\s(?:--version|--help|-h|--collect-only|--co|--no-run|--list)\b")

_CODES = (
    re.compile(r"^[ \t]*exit code (\d+)[ \t]*$", re.MULTILINE),
    re.compile(r"<returncode>\s*(-?\d+)\s*</returncode>"),
    re.compile(r"[\"']?(?:exit|return)_?(?: ?status| ?code)?[\"']?\s*[:=]\s*(-?\d+)", re.IGNORECASE),
    re.compile(r"\bexit(?:ed)? (?:with )?(?:code|status) (\d+)", re.IGNORECASE),
)
_FAILED = re.compile(r"^[ \t]*(?:error\b|killed after|killed: )|\bcommand not found\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Turn:
    """One model call, in numbers of its tool calls; `repeated`: as an earlier one, with no edit in between."""

    calls: int = 0
    commands: int = 0
    reads: int = 0
    edits: int = 0
    tests: int = 0
    failed: int = 0
    repeated: int = 0


def turns_of(said: Sequence[tuple[Sequence[Call], str]]) -> list[Turn]:
    """`said`: of each model call in order, its tool calls, and all that the policy was told of their results."""
    turns, seen = [], set[tuple[str, str]]()
    for calls, told in said:
        kinds = [kinds_of(call) for call in calls]
        repeated = 0
        for call, kind in zip(calls, kinds, strict=True):
            repeated += (call.name, call.arguments.strip()) in seen
            seen.add((call.name, call.arguments.strip()))
            if "edits" in kind:
                seen.clear()
        counted = {name: sum(name in kind for kind in kinds) for name in ("commands", "reads", "edits", "tests")}
        failed = min(len(calls), _failures(told, testing=counted["tests"] > 0))
        turns.append(Turn(calls=len(calls), **counted, failed=failed, repeated=repeated))
    return turns


COUNTS = ("commands", "files_read", "tests_run", "failed", "repeated", "turns_before_edit")


def counts(turns: Sequence[Turn]) -> dict[str, int]:
    """Of an episode, by the names in `COUNTS`; nothing of an agent that made no calls. `turns_before_edit`: all turns
    where there is no edit."""
    if not any(turn.calls for turn in turns):
        return {}
    edited = next((i for i, turn in enumerate(turns) if turn.edits), len(turns))
    sums = (sum(getattr(t, name) for t in turns) for name in ("commands", "reads", "tests", "failed", "repeated"))
    return dict(zip(COUNTS, (*sums, edited), strict=True))


def kinds_of(call: Call) -> set[str]:
    """Any of commands, reads, edits, tests."""
    try:
        arguments: Any = msgspec.json.decode(call.arguments)
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        return set()
    command = next((text for key in COMMAND if (text := _text(arguments.get(key)))), None)
    if command in _EDITOR:
        return {_EDITOR[command]}
    if TEXTS & arguments.keys() or (command is None and _EDITS.search(call.name)):
        return {"edits"}
    if command is None:
        return {"reads"} if _READS.search(call.name) else set()
    return {"commands", *_shell(command)}


def _text(value: Any) -> str | None:
    if isinstance(value, list):
        words = [word for word in value if isinstance(word, str)]
        return words[2] if len(words) == 3 and words[1].startswith("-") else " ".join(words)  # bash -lc TEXT
    return value if isinstance(value, str) else None


def _shell(command: str) -> Iterator[str]:
    text = _HEREDOC.sub(r"\3", command[:_LONGEST])
    bare = _QUOTED.sub("Q", text)
    if _WRITING.search(bare):
        yield "edits"
    parts = _PARTS.split(bare)
    for part, behind in zip(parts[::2], ["", *parts[1::2]], strict=True):
        said = _BEFORE.sub("", part).strip()
        if _EDITING.match(said):
            yield "edits"
        elif _TESTING.match(said) and not _NO_RUN.search(said):
            yield "tests"
        elif _READING.match(said) and behind != "|":
            yield "reads"


def _failures(told: str, testing: bool) -> int:
    """Results that report a failure. Of a test run, exit code 1 says that tests failed, which is what it is for."""
    told = told[-_TOLD:]
    codes: Sequence[int] = next((found for pattern in _CODES if (found := _numbers(pattern, told))), ())
    if codes:
        return sum(code not in ((0, 1) if testing else (0,)) for code in codes)
    return len(_FAILED.findall(told))


def _numbers(pattern: re.Pattern[str], text: str) -> list[int]:
    return [int(number) for number in pattern.findall(text)]
