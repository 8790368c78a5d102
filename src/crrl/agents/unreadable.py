"""The message to the policy when its tool call was unreadable: what is wrong, and an example."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

CALL_MARK = "<tool_call>"  # what an unparsable call leaves in the text
_EXAMPLE = '{"name": "shell", "arguments": {"cmd": "ls"}}'
_NAME = re.compile(r"""["'](?:name|function|tool)["']\s*:""")
_ARGUMENTS = re.compile(r"""["'](?:arguments|parameters)["']\s*:""")
_SEARCHED = 1 << 16  # characters of an answer


def unreadable(content: str, tools: Sequence[str]) -> str | None:
    """The message to the policy; None: the answer attempts no call."""
    content = content[:_SEARCHED]
    marked = content.find(CALL_MARK)
    name = _NAME.search(content)
    if marked < 0 and (name is None or _ARGUMENTS.search(content, name.end()) is None):
        return None
    start = content.find("{", max(marked, 0))
    why = _fault(content[start:], tools) if start >= 0 else "it holds no JSON object"
    return f"error: the tool call could not be read: {why}; send one like {_EXAMPLE} in the form of your tool calls"


def _fault(text: str, tools: Sequence[str]) -> str:
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or "Unterminated" in error.msg:
            return "its JSON ends too early (a bracket or a quote is missing)"
        return f"its JSON is broken at {text[error.pos : error.pos + 20]!r}"
    except RecursionError:
        return "its JSON is nested too deeply"
    except ValueError:
        return "a number in it has too many digits"
    return _missing(value, tools)


def _missing(value: Any, tools: Sequence[str]) -> str:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return "it has no name"
    if value["name"] not in tools:
        return f"there is no tool {value['name'][:40]!r} (the tools are {', '.join(tools)})"
    if not isinstance(value.get("arguments"), dict):
        return "its arguments are no JSON object"
    return "it does not stand where your tool calls stand"
