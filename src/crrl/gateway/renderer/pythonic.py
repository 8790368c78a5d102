"""Calls written as Python's: `[name(argument="value"), ...]` (LFM2, Llama's `name.call(...)`), read by hand.

Python's own parser would refuse what models and templates write there: names with a hyphen, line ends inside strings,
JSON's `null`. Some templates (LFM2.5) put text between quotes as it is, quotes and backslashes included: `raw` reads
that, taking the quote for the end that something of the call follows.
"""

from __future__ import annotations

import json
import re
from typing import Any

from crrl import python_syntax
from crrl.gateway.canonical import Call
from crrl.gateway.renderer.api import arguments_text, is_name

_NAME = re.compile(r"[\s,]*([^\s(),=\[\]{}'\"]+)\(")
_KEY = re.compile(r"[\s,]*([^\s(),=\[\]{}'\"]+)=")
_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_RAW = re.compile(r"'(.*?)'(?=\s*(?:,\s*[^\s(),=\[\]{}'\"]+=|\)\s*(?:\Z|,\s*[^\s(),=\[\]{}'\"]+\()))", re.DOTALL)
_END = re.compile(r"\s*[,)]")
_LONGEST_LITERAL = 64  # commas and brackets at which a list's end is looked for
_DECODER = json.JSONDecoder(strict=False)


class _Broken(Exception):
    """It is no call."""


def calls_of(text: str, *, raw: bool = False) -> list[Call] | None:
    """One call, or a list of them in brackets; None: not well formed."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1].strip()
    calls, at = [], 0
    try:
        while at < len(text):
            call, at = _call(text, at, raw)
            calls.append(call)
    except _Broken:
        return None
    return calls or None


def _call(text: str, at: int, raw: bool) -> tuple[Call, int]:
    head = _NAME.match(text, at)
    name = head[1].removesuffix(".call") if head else ""
    if head is None or not is_name(name):
        raise _Broken
    arguments: dict[str, Any] = {}
    at = _skip(text, head.end())
    while not text.startswith(")", at):
        key = _KEY.match(text, at)
        if key is None:
            raise _Broken
        arguments[key[1]], at = _value(text, _skip(text, key.end()), raw)
        at = _skip(text, at)
        if not text.startswith((",", ")"), at):
            raise _Broken
        if text.startswith(",", at) and text.startswith(")", _skip(text, at + 1)):
            at = _skip(text, at + 1)
    return Call(name, arguments_text(arguments)), _skip(text, at + 1)


def _value(text: str, at: int, raw: bool) -> tuple[Any, int]:
    if raw and (plain := _RAW.match(text, at)):
        return plain[1], plain.end()
    try:
        value, end = _DECODER.raw_decode(text, at)
        if _END.match(text, end):
            return value, end
    except (ValueError, RecursionError):
        pass
    if string := _STRING.match(text, at):
        return _literal(string[0].replace("\n", "\\n").replace("\r", "\\r")), string.end()
    for tried, found in enumerate(_END.finditer(text, at)):
        try:
            return _literal(text[at : found.start()]), found.start()
        except _Broken:
            if tried == _LONGEST_LITERAL:
                break
    raise _Broken


def _literal(text: str) -> Any:
    try:
        return python_syntax.literal(text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise _Broken from None


def _skip(text: str, at: int) -> int:
    """Over white space."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at
