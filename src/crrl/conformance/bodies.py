"""What a request's body says, read without the dialects' code: whose results stand where, and ids by other names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_CALLS = {"function_call": "call_id", "custom_tool_call": "call_id", "tool_use": "id"}
_RESULTS = {"function_call_output": "call_id", "custom_tool_call_output": "call_id", "tool_result": "tool_use_id"}


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """With the ids of this session's calls in place of those that the recorded server gave."""
    if isinstance(value, dict):
        return {key: renamed(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [renamed(part, names) for part in value]
    return names.get(value, value) if isinstance(value, str) else value


def calls(body: Any) -> dict[str, tuple[str, str]]:
    """Name and arguments of each call, by its id."""
    return {one.id: (one.name, one.text) for one in _seen(body) if one.name}


def results(body: Any) -> list[tuple[str, str]]:
    """The texts of tool results with the ids of their calls: each run of them in the order of the calls."""
    found: list[tuple[str, str]] = []
    run: dict[str, str] = {}
    order: list[str] = []
    for one in _seen(body):
        if not one.name:
            run[one.id] = one.text
            continue
        if run and one.id not in order:
            found += _sorted(run, order)
            run, order = {}, []
        order.append(one.id)
    return found + _sorted(run, order)


def _sorted(run: dict[str, str], order: list[str]) -> list[tuple[str, str]]:
    return sorted(run.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))


@dataclass(frozen=True)
class _One:
    """A call (its name and arguments), or a result (no name, its text)."""

    id: str
    name: str
    text: str


def _seen(body: Any) -> Iterator[_One]:
    """Calls and results as they stand."""
    items = body.get("messages") or body.get("input") or [] if isinstance(body, dict) else []
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, dict):
            continue
        for call in item.get("tool_calls") or []:
            function = call.get("function") or {}
            yield _One(str(call.get("id")), str(function.get("name")), _arguments(function.get("arguments")))
        if item.get("role") == "tool":
            yield _One(str(item.get("tool_call_id")), "", _text(item.get("content")))
        blocks = item.get("content") if isinstance(item.get("content"), list) else []
        for block in [item, *(blocks or [])]:
            kind = str(block.get("type")) if isinstance(block, dict) else ""
            if kind in _CALLS:
                yield _One(str(block.get(_CALLS[kind])), str(block.get("name")), _arguments(_given(block)))
            elif kind in _RESULTS:
                yield _One(str(block.get(_RESULTS[kind])), "", _text(block.get("content") or block.get("output")))


def _given(block: dict[str, Any]) -> Any:
    return block.get("arguments", block.get("input"))


def _arguments(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
