"""The arguments of calls that are written without quotes: which of them are text, byte for byte.

Between the tags of an XML call stands `123` for the number and for the text alike, and white space at a value's edges
belongs to it: only the tool's JSON schema says which is meant. `Schemas.is_text` reads it; `written` finds the values
in a call's sampled text, for families whose own parser strips them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from crrl.gateway.renderer.api import Tools

_ALL = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})
_DEPTH = 16  # of references and alternatives: schemas may refer to themselves


@dataclass(frozen=True)
class _Form:
    """How a family writes something that has a name (group 1 of `opens`). It ends at the tag that something of the call
    follows, so that it may itself hold that tag."""

    opens: re.Pattern[str]
    closes: re.Pattern[str]

    def found(self, text: str) -> Iterator[tuple[re.Match[str], re.Match[str]]]:
        """Each one's opening and closing, in time linear in the text: where one is never closed, no later one is."""
        at = 0
        while (opened := self.opens.search(text, at)) and (closed := self.closes.search(text, opened.end())):
            yield opened, closed
            at = closed.end()


_FORMS = (
    _Form(
        re.compile(r"<parameter=([^<>\n]+)>\n?"),
        re.compile(r"\n?</parameter>(?=\s*(?:<parameter=|</function>|\Z))"),
    ),
    _Form(
        re.compile(r'<parameter name="([^"<\n]+)">'),
        re.compile(r"</parameter>(?=\s*(?:<parameter name=|</invoke>|\Z))"),
    ),
    _Form(
        re.compile(r"<arg_key(?::\w+)?>([^<]*)</arg_key(?::\w+)?>\s*<arg_value(?::\w+)?>"),
        re.compile(r"</arg_value(?::\w+)?>(?=\s*(?:<arg_key|</tool_call|\Z))"),
    ),
)
_INVOKE = _Form(re.compile(r'<invoke name="([^"<\n]+)">'), re.compile(r"</invoke>(?=\s*(?:<invoke|</|\Z))"))


class Schemas:
    """What a request says of its tools' parameters.

    Args:
        python: the template writes `True`, `False` and `None` for what JSON calls `true`, `false` and `null`.
    """

    def __init__(self, tools: Tools, *, python: bool = False) -> None:
        self._python = python
        self._of: dict[tuple[str, str], tuple[Any, Any]] = {}  # (tool, parameter) -> its schema, the whole schema
        for tool in tools or []:
            function = tool.get("function", tool)
            whole = function.get("parameters")
            properties = whole.get("properties") if isinstance(whole, dict) else None
            for name, schema in (properties if isinstance(properties, dict) else {}).items():
                self._of[str(function.get("name")), str(name)] = schema, whole

    def read(self, tool: str, parameter: str, text: str) -> Any:
        """The value that `text`, written without quotes, stands for."""
        return text if self.is_text(tool, parameter, text) else _value(text)

    def is_text(self, tool: str, parameter: str, text: str) -> bool:
        """Whether `text` is itself the value: it is no JSON of another type that the schema allows. Without a schema
        what reads as JSON is JSON. Python's words for values are such where the template writes them, and where the
        schema allows no text."""
        value = _value(text)
        if value is _NO_VALUE:
            return True
        schema, whole = self._of.get((tool, parameter), (True, True))
        types, listed = _types(schema, whole, 0), _listed(schema)
        if text.strip() in _WORDS and "string" in types and not self._python:
            return True
        if any(type(one) is type(value) and one == value for one in listed or []) and not isinstance(value, str):
            return False
        if isinstance(value, str) and "string" in types:
            return schema is not True and schema != {}  # its quotes are its own where the schema says that it is text
        return not _allowed(value, types)


def declared(tools: Tools) -> Tools:
    """Tools in the part of JSON Schema that families which declare them as types can express (Kimi K2.5): what has no
    type, and what refers to nothing, is `any` and keeps its description."""
    return _with_parameters(tools, lambda whole: _declared(whole, whole, 0))


def spelled(tools: Tools) -> Tools:
    """Tools in which a parameter that may be anything says so as `{}`: some families cannot render `true`."""
    return _with_parameters(tools, _spelled)


def _with_parameters(tools: Tools, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> Tools:
    """Tools with another schema for their parameters."""
    if not tools:
        return tools
    shown = []
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(whole := function.get("parameters"), dict):
            function = {**function, "parameters": changed(whole)}
        shown.append({**tool, "function": function} if "function" in tool else function)
    return shown


def _spelled(whole: dict[str, Any]) -> dict[str, Any]:
    properties = whole.get("properties")
    if not isinstance(properties, dict):
        return whole
    return {**whole, "properties": {name: {} if one is True else one for name, one in properties.items()}}


def _declared(schema: Any, whole: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _DEPTH:
        return True
    schema = dict(schema)
    if "$defs" in schema and isinstance(schema["$defs"], dict):
        schema["$defs"] = {name: _declared(one, whole, depth + 1) for name, one in schema["$defs"].items()}
    for one in schema.pop("allOf", None) or []:
        schema = {**one, **schema} if isinstance(one, dict) else schema
    if "$ref" in schema:
        reference = schema["$ref"]
        name = reference.removeprefix("#/$defs/") if isinstance(reference, str) else ""
        if isinstance(whole, dict) and name in (whole.get("$defs") or {}):
            return schema
        resolved = None if reference == "#" else _resolved(reference, whole)
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _declared({**resolved, **rest} if isinstance(resolved, dict) else rest, whole, depth + 1)
    if "oneOf" in schema:
        schema.setdefault("anyOf", schema.pop("oneOf"))
    if isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [_declared(one, whole, depth + 1) for one in schema["anyOf"]]
        return schema
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if "enum" in schema:
        return schema
    if "type" not in schema:
        guessed = "object" if "properties" in schema else "array" if "items" in schema else None
        if guessed is None:
            return {**schema, "anyOf": [True]}
        schema["type"] = guessed
    if isinstance(schema.get("properties"), dict):
        schema["properties"] = {name: _declared(one, whole, depth + 1) for name, one in schema["properties"].items()}
    if "items" in schema:
        schema["items"] = _declared(schema["items"], whole, depth + 1)
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = _declared(schema["additionalProperties"], whole, depth + 1)
    return schema


def written(text: str) -> dict[str, str]:
    """The arguments of one call, each as it stands between its tags; empty: the call is of another form."""
    for form in _FORMS:
        if values := {opened[1]: text[opened.end() : closed.start()] for opened, closed in form.found(text)}:
            return values
    return {}


def invocations(text: str) -> list[str]:
    """The calls of a block that holds several; the block itself where it holds one."""
    return [text[opened.start() : closed.end()] for opened, closed in _INVOKE.found(text)] or [text]


_NO_VALUE = object()
_WORDS = {"True": True, "False": False, "None": None}


def _value(text: str) -> Any:
    """What JSON, or one of Python's words, says."""
    try:
        return _WORDS[word] if (word := text.strip()) in _WORDS else json.loads(text)
    except (ValueError, RecursionError):
        return _NO_VALUE


def _types(schema: Any, whole: Any, depth: int) -> frozenset[str]:
    """The JSON types that a schema allows. What cannot be resolved is taken for text: nothing sampled is lost then."""
    if schema is True or schema == {}:
        return _ALL
    if not isinstance(schema, dict) or depth > _DEPTH:
        return frozenset({"string"})
    allowed = _ALL
    if "type" in schema:
        named = schema["type"]
        allowed &= frozenset(named if isinstance(named, list) else [named])
        if "number" in allowed:
            allowed |= {"integer"}
    if "const" in schema or isinstance(schema.get("enum"), list):
        allowed &= frozenset(_type_of(value) for value in _listed(schema) or [])
    if "$ref" in schema:
        allowed &= _types(_resolved(schema["$ref"], whole), whole, depth + 1)
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and schema[word]:
            allowed &= frozenset().union(*(_types(one, whole, depth + 1) for one in schema[word]))
    for one in schema["allOf"] if isinstance(schema.get("allOf"), list) else []:
        allowed &= _types(one, whole, depth + 1)
    return allowed


def _listed(schema: Any) -> list[Any] | None:
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None


def _resolved(reference: Any, whole: Any) -> Any:
    """The schema at `#/$defs/Name`, or None."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found = whole
    for part in _parts(reference):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _parts(reference: str) -> Iterator[str]:
    return (part.replace("~1", "/").replace("~0", "~") for part in reference[1:].split("/") if part)


def _type_of(value: Any) -> str:
    kinds: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "boolean"),
        (str, "string"),
        (int, "integer"),
        (float, "number"),
        (dict, "object"),
        (list, "array"),
    ]
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def _allowed(value: Any, types: frozenset[str]) -> bool:
    kind = _type_of(value)
    return kind in types or (kind == "integer" and "number" in types) or (kind == "number" and "integer" in types)
