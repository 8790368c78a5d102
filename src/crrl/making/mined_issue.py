"""The issue of a mined task: the commit's message as far as it reports, or what the failing tests say.

Invariant 5: what tells the repair is left out, whether a line of it stands in the message, a name that only the repair
brings, or prose ("use fmt.Errorf to ..."). What the tests use and only the repair brings is told (`interface.py`).
"""

from __future__ import annotations

import re

from crrl.tasks.diffs import changes

TRAILER = re.compile(
    r"^(signed-off-by|co-authored-by|reviewed-by|change-id|cherry.picked|cc|acked-by)\b.*$|^\(cherry picked.*\)$",
    re.I | re.M,
)
LEAST_WORDS = 3  # of a message that says anything
LEAST_CHARS = 8  # of a line that is no commonplace
NAME = re.compile(r"[A-Za-z_][\w]*(?:(?:\.|::|->)[A-Za-z_]\w*)*")
CODE_LIKE = re.compile(r"[._]|::|->|[a-z][A-Z]|\d")
REPAIRS = re.compile(
    r"\binstead of\b|(?:^|[,:;(]\s*|\b(?:by|now|to|and|should|must|so)\s+)(?:us(?:e|ing)|replac(?:e|ing)|switch(?:ing)?"
    r"|call(?:ing)?|wrap(?:ping)?|check(?:ing)?|add(?:ing)?|return(?:ing)?|mov(?:e|ing)|remov(?:e|ing)|set(?:ting)?"
    r"|swap(?:ping)?|chang(?:e|ing)|initiali[sz](?:e|ing)|cast(?:ing)?|convert(?:ing)?)\b",
    re.I,
)
SENTENCE = re.compile(r"(?<=[.!?])\s+")


def report(message: str, solution: str, tests: str) -> str:
    """What of the message reports the bug; "" where that says too little. `tests`: the diff of the commit's tests."""
    message = TRAILER.sub("", message).strip()
    added, removed = _lines(solution, "+"), _lines(solution, "-")
    new = _names(added) - _names(removed) - _names(_lines(tests, "+"))
    kept = []
    for line in message.split("\n"):
        parts = SENTENCE.split(line)
        telling = parts if _holds(line, added) else [part for part in parts if _names_it(part, new)]
        kept.append(" ".join(part for part in parts if part not in telling) if telling else line)
    text = "\n".join(kept).strip()
    if not kept[0].strip() or len(text.split()) < LEAST_WORDS:  # what is left without a title is no report
        return ""
    return re.sub(r"\n{3,}", "\n\n", text)


def _holds(text: str, added: list[str]) -> bool:
    """Whether a line that the repair adds stands in it."""
    said = " ".join(text.split())
    return any(len(line) >= LEAST_CHARS and line in said for line in (" ".join(line.split()) for line in added))


def _names_it(sentence: str, new: set[str]) -> bool:
    """Whether it names what the repair brings (`new`): as code, or as what is to be used, added, called..."""
    quoted = set(re.findall(r"[`'\"]([^`'\"]+)[`'\"]", sentence))
    words = set(NAME.findall(sentence))
    if any(CODE_LIKE.search(word) or word in quoted or f"{word}(" in sentence for word in words & new):
        return True
    return REPAIRS.search(sentence) is not None and any(len(word) > 3 for word in words & new)


def _lines(patch: str, sign: str) -> list[str]:
    return [line[1:] for _, lines in changes(patch) for line in lines if line[0] == sign] if patch.strip() else []


def _names(lines: list[str]) -> set[str]:
    """Names, and the parts of dotted ones."""
    whole = {name for line in lines for name in NAME.findall(line)}
    return whole | {part for name in whole for part in re.split(r"\.|::|->", name)}
