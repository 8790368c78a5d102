"""Calls that a model writes without its template's marks (`renderer.calls=lenient`): in a fence, or as bare JSON.

Small models were seen to answer a request with tools in this way alone. Ids are never changed: only what they are taken
for is. A call is read from

- a fenced block that holds JSON calls and nothing else ("fence");
- the answer's first JSON object, and those that follow it ("bare");
- either of them with its last brackets missing ("repaired"), or behind a mark that has no end ("marked").

An object is a call if it has a tool's name and an object of arguments. What looks like one and is none stays in the
content, and counts as malformed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from crrl.gateway.canonical import Call
from crrl.gateway.renderer.api import Parsed, Tools, arguments_text, is_name

Read = Callable[[Parsed, Tools], Parsed]
BEGINNINGS = "{[`<"
"""Characters at which a call may begin: content in front of the first of them can be shown as it is sampled."""

_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_MARK = re.compile(r"</?(?:tool_call|function_call|tools?|\|tool_call\|)>|\[TOOL_CALLS\]")
_NAME = re.compile(r"""(?:name|function|tool)["']?\s{0,99}:""")
_ARGUMENTS = re.compile(r"""(?:arguments|parameters)["']?\s{0,99}:""")
_DECODER = json.JSONDecoder(strict=False)  # models write line ends into strings as they are
_CLOSERS = {"{": "}", "[": "]"}
_LONGEST = 1 << 18  # characters that are searched for calls
_MOST = 64  # calls, and places at which one is looked for


@dataclass(frozen=True)
class _Found:
    start: int
    calls: list[Call]
    how: str


def strict(parsed: Parsed, tools: Tools) -> Parsed:
    """As the family reads its answers."""
    return parsed


def lenient(parsed: Parsed, tools: Tools) -> Parsed:
    """`parsed`, with the calls in its content where the family's own form had none."""
    if parsed.calls or not parsed.content or len(parsed.content) > _LONGEST:
        return parsed
    names = _names(tools)
    found = _in_fences(parsed.content, names) or _bare(parsed.content, names)
    if found is None:
        name = _NAME.search(parsed.content)
        looks = name is not None and _ARGUMENTS.search(parsed.content, name.end()) is not None
        return replace(parsed, malformed=max(parsed.malformed, int(looks)))
    before = _MARK.sub("", parsed.content[: found.start]).strip()
    how = "marked" if found.how == "bare" and _MARK.search(parsed.content) else found.how
    return replace(parsed, content=before, calls=found.calls, malformed=0, read=how)


def _names(tools: Tools) -> frozenset[str] | None:
    """None: any name will do (it is not said which tools there are)."""
    if tools is None:
        return None
    return frozenset(str(tool.get("function", tool).get("name")) for tool in tools)


def _in_fences(text: str, names: frozenset[str] | None) -> _Found | None:
    calls: list[Call] = []
    start, how = 0, "fence"
    for fence in _FENCE.finditer(text):
        values, repaired = _values(fence[1].strip())
        read = [_call(value, names) for value in values]
        good = [call for call in read if call is not None]
        if not good or len(good) < len(read):
            continue
        start = start if calls else fence.start()
        calls += good
        how = "repaired" if repaired else how
    return _Found(start, calls[:_MOST], how) if calls else None


def _bare(text: str, names: frozenset[str] | None) -> _Found | None:
    """From the first object on that is a call."""
    for start in _beginnings(text):
        first = next((_call(value, names) for value in _values(text, start, loose=True, most=1)[0]), None)
        if first is None:
            continue
        values, repaired = _values(text, start, loose=True)
        others = [_call(value, names) for value in values[1:]]
        calls = [first, *(call for call in others if call is not None)]
        head = text[:start].rstrip()
        start = len(head) - 1 if head.endswith("[") else start
        return _Found(start, calls[:_MOST], "repaired" if repaired else "bare")
    return None


def _beginnings(text: str) -> Iterator[int]:
    """Of JSON objects that hold no earlier one's inside."""
    at = text.find("{")
    for _ in range(_MOST):
        if at < 0:
            return
        yield at
        try:
            _, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        at = text.find("{", end)


def _values(text: str, at: int = 0, *, loose: bool = False, most: int = _MOST) -> tuple[list[Any], bool]:
    """JSON values that follow each other, and whether brackets were missing at the end of the last. `loose`: other text
    may stand between and behind them; else nothing but white space and commas."""
    unmarked = _MARK.sub(lambda m: " " * len(m[0]), text)
    begins = re.compile(r"[{\[]" if loose else r"[\s,]*(?=[{\[])")
    values: list[Any] = []
    while len(values) < most:
        gap = begins.search(unmarked, at) if loose else begins.match(unmarked, at)
        if gap is None:
            clean = loose or not unmarked[at:].strip(" \t\r\n,`")
            return (values if clean else []), False
        start = gap.start() if loose else gap.end()
        try:
            value, at = _DECODER.raw_decode(text, start)
        except RecursionError:
            return [], False
        except ValueError:
            whole = _closed(text[start:])
            if whole is None:
                return (values if loose else []), False
            values += whole if isinstance(whole, list) else [whole]
            return values, True
        values += value if isinstance(value, list) else [value]
    return values, False


def _closed(text: str) -> Any:
    """The value of a text whose last brackets are missing; None: that is not what is wrong with it."""
    text = _MARK.sub("", text).rstrip("` \t\r\n")
    open_, inside, escaped = [], False, False
    for character in text:
        if inside:
            inside = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            inside = True
        elif character in _CLOSERS:
            open_.append(_CLOSERS[character])
        elif open_ and character == open_[-1]:
            open_.pop()
    if inside or not open_:
        return None
    try:
        return json.loads(text + "".join(reversed(open_)), strict=False)
    except (ValueError, RecursionError):
        return None


def _call(value: Any, names: frozenset[str] | None) -> Call | None:
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    value = inner if isinstance(inner, dict) else value
    name = value.get("name", value.get("tool", inner))
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):  # as the API has them: JSON in a string
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    if not is_name(name) or not isinstance(arguments, dict) or (names is not None and name not in names):
        return None
    return Call(name, arguments_text(arguments))


READS: dict[str, Read] = {"strict": strict, "lenient": lenient}
"""By `renderer.calls`."""
