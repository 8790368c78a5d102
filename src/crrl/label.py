"""Classification of functions: what is true of one (`Label`), what is answered (`Answer`), and the reader of answers.

An agent answers in the file `ANSWER` at the root of the workspace, so its patch is the answer, and nothing else of the
patch counts (`rewards/label_judge.py`). `read` takes what models write: reasoning before the answer, a fence, bullets,
bold, JSON. It never guesses: two labels in one answer, or a probability that contradicts its label, are no answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

ANSWER = "ANSWER"
"""The file that holds the answer."""
FORM = """\
label: vulnerable, or not vulnerable, or cannot tell
cwe: the weakness as CWE-N, if it is vulnerable
probability: how probable it is that this label is right, from 0.5 to 1
lines: numbers of the lines that a fix would change, such as 3, 7-9"""
LARGEST = 64 << 10  # characters of an answer, its reasoning included
MOST_LINES = 10_000  # that an answer may cite

Said = Literal["vulnerable", "not vulnerable", "cannot tell"]
_WORDS: dict[str, Said] = {
    "vulnerable": "vulnerable",
    "not vulnerable": "not vulnerable",
    "non vulnerable": "not vulnerable",
    "cannot tell": "cannot tell",
    "can not tell": "cannot tell",
    "can't tell": "cannot tell",
}
_KEYS = ("label", "cwe", "probability", "lines")
_FIELD = re.compile(
    rf"^[ \t>#*_`•-]*(?:\d+[.)][ \t]*[*_`]*)?({'|'.join(_KEYS)})[*_`]*[ \t]*[:=：][*_`]*(.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_OBJECT = re.compile(r"\{[^{}]*\}")
_CWE = re.compile(r"(?:CWE[-_ ]?)?0*([1-9]\d{0,4})", re.IGNORECASE)
_AROUND = " \t\r*_`\"',;"
_NOTHING = re.compile(
    r"(?:(?:none|nil|null|n/?a|not applicable|unknown|\[\]|[-–—]{1,3})(?: needed| known)?"
    r"(?:[ \t]*[(,;:–—].*)?)?",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"\([^()]*\)$")  # behind a value


class Unreadable(ValueError):
    """A text that is no answer; the message says why, in words that help to do better."""


@dataclass(frozen=True)
class Label:
    """What is true of a function. No agent sees it.

    Args:
        cwe: its weaknesses, as `CWE-89`; those that were mended, where it is not vulnerable.
        lines: of its file, from 1, that the fix changes; where it only adds some, the lines on either side. Empty: not
            known.
        pair: the same for a function before and after its fix; "": it stands alone.
    """

    vulnerable: bool
    cwe: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    pair: str = ""

    def __post_init__(self) -> None:
        if any(line < 1 for line in self.lines):
            raise ValueError("label.lines count from 1")
        if unknown := [cwe for cwe in self.cwe if not re.fullmatch(r"CWE-[1-9]\d*", cwe)]:
            raise ValueError(f"label.cwe: {unknown[0][:60]!r} is not CWE-N")

    @property
    def said(self) -> Said:
        """The right answer's label."""
        return "vulnerable" if self.vulnerable else "not vulnerable"


@dataclass(frozen=True)
class Answer:
    """`probability`: of its label being right, 0.5 to 1; None where it states none."""

    label: Said
    cwe: tuple[str, ...] = ()
    probability: float | None = None
    lines: tuple[int, ...] = ()

    @property
    def vulnerable(self) -> float:
        """The probability that the function is vulnerable. Who states none is taken at their word; who cannot tell says
        one half."""
        if self.label == "cannot tell":
            return 0.5
        sure = 1.0 if self.probability is None else self.probability
        return sure if self.label == "vulnerable" else 1.0 - sure


def read(text: str) -> Answer:
    """The answer that stands in `text`. Raises Unreadable."""
    if len(text) > LARGEST:
        raise Unreadable(f"longer than {LARGEST} characters")
    fields = _fields(_answering(text))
    if not fields["label"]:
        raise Unreadable("there is no line `label: ...`")
    said = {_word(value) for value in fields["label"]}
    if len(said) > 1:
        raise Unreadable("two different labels")
    label = said.pop()
    cwe = tuple(dict.fromkeys(name for value in fields["cwe"] for name in _cwes(value)))
    lines = tuple(sorted({number for value in fields["lines"] for number in _numbers(value)}))
    return Answer(label, cwe, _probability(label, fields["probability"]), lines)


def write(answer: Answer) -> str:
    """As `read` reads it."""
    said = {
        "label": answer.label,
        "cwe": ", ".join(answer.cwe),
        "probability": "" if answer.probability is None else f"{answer.probability:g}",
        "lines": ", ".join(map(str, answer.lines)),
    }
    return "".join(f"{key}: {value}\n" for key, value in said.items() if value)


def right(label: Label) -> Answer:
    """The answer that says what is true."""
    if not label.vulnerable:
        return Answer("not vulnerable", (), 1.0)
    return Answer("vulnerable", tuple(label.cwe), 1.0, tuple(label.lines))


def _answering(text: str) -> str:
    """Without the reasoning."""
    if "<think>" in text and "</think>" not in text:
        raise Unreadable("the reasoning never ends")
    text = text.rpartition("</think>")[2]
    if (opened := text.count("<answer>")) > 1:
        raise Unreadable("two answers")
    return text.partition("<answer>")[2].partition("</answer>")[0] if opened else text


def _fields(text: str) -> dict[str, list[str]]:
    """key -> all that is said of it."""
    found: dict[str, list[str]] = {key: [] for key in _KEYS}
    for key, value in [*_in_objects(text), *((m[1], m[2]) for m in _FIELD.finditer(text))]:
        if key.lower() in found:
            found[key.lower()].append(value.lstrip(_AROUND).rstrip(_AROUND + "."))
    return found


def _in_objects(text: str) -> Iterator[tuple[str, str]]:
    """Of JSON objects that state a label."""
    for match in _OBJECT.finditer(text):
        try:
            pairs = json.loads(match[0], object_pairs_hook=list)
        except (ValueError, RecursionError):
            continue
        if any(key.lower() == "label" for key, _ in pairs):
            yield from ((key, ", ".join(map(str, v)) if isinstance(v, list) else str(v)) for key, v in pairs)


def _word(value: str) -> Said:
    word = " ".join(re.split(r"[\s_-]+", _ASIDE.sub("", value).rstrip(_AROUND).lower()))
    if word not in _WORDS:
        raise Unreadable(f"label: {value[:60]!r} is none of vulnerable, not vulnerable, cannot tell")
    return _WORDS[word]


def _probability(label: Said, values: list[str]) -> float | None:
    said = {_number(value) for value in values if not _NOTHING.fullmatch(value)}
    if len(said) > 1:
        raise Unreadable("two different probabilities")
    if not said or label == "cannot tell":
        return None
    if not 0.5 <= (probability := said.pop()) <= 1:
        raise Unreadable(f"probability: {probability:g} contradicts the label: it is the label's, from 0.5 to 1")
    return probability


def _number(value: str) -> float:
    plain = re.sub(r"^(?:~|≈|about |around |approximately )\s*", "", _ASIDE.sub("", value), flags=re.IGNORECASE)
    match = re.fullmatch(r"(\d{1,3}(?:[.,]\d{1,20})?|\.\d{1,20})\s*(%?)", plain.rstrip(_AROUND))
    if match is None:
        raise Unreadable(f"probability: {value[:60]!r} is no number")
    return float(match[1].replace(",", ".")) / (100 if match[2] else 1)


def _cwes(value: str) -> list[str]:
    if _NOTHING.fullmatch(value):
        return []
    if named := re.findall(r"CWE[-_ ]?0*([1-9]\d{0,4})", value, re.IGNORECASE):
        return [f"CWE-{number}" for number in named]
    match = _CWE.fullmatch(value)
    if match is None:
        raise Unreadable(f"cwe: {value[:60]!r} is not CWE-N")
    return [f"CWE-{match[1]}"]


def _numbers(value: str) -> Iterator[int]:
    if _NOTHING.fullmatch(value):
        return
    count = 0
    plain = re.sub(r"\blines?\b[ \t]*", "", _ASIDE.sub("", value), flags=re.IGNORECASE)
    joined = re.sub(r" ?(?:[-–—]|\bto\b) ?", "-", " ".join(plain.strip(" []").split()))
    for part in re.split(r"(?:[,;\s]|\band\b)+", joined):
        match = re.fullmatch(r"[lL]?(\d{1,7})(?:-[lL]?(\d{1,7}))?", part)
        if match is None:
            raise Unreadable(f"lines: {part[:60]!r} is no number of a line")
        first, last = int(match[1]), int(match[2] or match[1])
        count += last - first + 1
        if not 1 <= first <= last or count > MOST_LINES:
            raise Unreadable(f"lines: {part[:60]} is no range, or there are more than {MOST_LINES}")
        yield from range(first, last + 1)
