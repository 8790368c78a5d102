"""A recording of what agents were seen to do that some family, some day, did not take: `crrl gateway check habits`.

Each scenario is one habit, in its agent's own API, with the kind of each call. Unlike a recording of one agent it asks
nothing of the agent; it is for a new family, a new version of the renderers, a change in the gateway.
"""

from __future__ import annotations

import json
from typing import Any

from crrl.conformance.recording import Recorded, Reply
from crrl.gateway.api import SampleKind

_CHAT, _MESSAGES, _RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
_PROPERTIES: dict[str, Any] = {
    "old": {"type": "string"},
    "new": {"type": ["string", "null"]},
    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "mode": {"enum": ["1", "false"]},
    "page": {"$ref": "#/$defs/page"},
    "count": {"type": "integer"},
    "any": {"description": "anything"},
}
_SCHEMA = {"type": "object", "properties": _PROPERTIES, "$defs": {"page": {"type": "string"}}}
_TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"To {name}.", "parameters": _SCHEMA}}
    for name in ("edit", "look")
]
_CLAUDES_TOOLS = [{"name": name, "description": f"To {name}.", "input_schema": _SCHEMA} for name in ("edit", "look")]
_CODEXS_TOOLS = [{"type": "function", **tool["function"]} for tool in _TOOLS]  # type: ignore[dict-item]
_SYSTEM, _TASK = {"role": "system", "content": "You repair code."}, {"role": "user", "content": "Repair gcd, please."}


class _Scenario:
    """Requests of one session, in their order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: list[Recorded] = []

    def ask(self, path: str, body: dict[str, Any], resp: Reply, kind: SampleKind = "main") -> None:
        i = len(self.requests) + 1
        whole = json.loads(json.dumps({"model": "m", "max_tokens": 999, **body}))
        headers: dict[str, str] = {}
        self.requests.append(Recorded("habits", self.name, i, float(i), "POST", path, headers, whole, resp, kind=kind))

    def chat(self, messages: list[Any], resp: Reply, kind: SampleKind = "main", tools: Any = _TOOLS) -> None:
        self.ask(_CHAT, {"messages": messages, **({"tools": tools} if tools else {})}, resp, kind)

    def claude(self, messages: list[Any], resp: Reply, kind: SampleKind = "main", **more: Any) -> None:
        self.ask(_MESSAGES, {"messages": messages, "tools": _CLAUDES_TOOLS, **more}, resp, kind)


def _reply(text: str = "", *calls: tuple[str, str, dict[str, Any]], reasoning: str | None = None) -> Reply:
    return Reply(text, reasoning, tuple((id, name, json.dumps(arguments)) for id, name, arguments in calls))


def _said(reply: Reply, **more: Any) -> dict[str, Any]:
    """A reply as chat completions' clients send it back."""
    calls = [{"id": id, "type": "function", "function": {"name": n, "arguments": a}} for id, n, a in reply.calls]
    return {"role": "assistant", "content": reply.text or None, **({"tool_calls": calls} if calls else {}), **more}


def _blocks(reply: Reply) -> dict[str, Any]:
    """As Anthropic's send it back."""
    text = [{"type": "text", "text": reply.text}] if reply.text else []
    uses = [{"type": "tool_use", "id": id, "name": n, "input": json.loads(a)} for id, n, a in reply.calls]
    return {"role": "assistant", "content": [*text, *uses]}


def _result(id: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": text}


_LOOK = _reply("I look.", ("call_1", "look", {"old": "gcd.py"}))
_DONE = _reply("It is repaired.")


def recording() -> list[Recorded]:
    made = [habit() for habit in _HABITS]
    return [one for scenario in made for one in scenario.requests]


def _late_system() -> _Scenario:
    """Reminders between turns, as system and developer messages (Claude Code, Codex)."""
    s = _Scenario("late-system")
    history: list[Any] = [_SYSTEM, _TASK, {"role": "system", "content": "Mind the budget of tokens."}]
    s.chat(history, _LOOK)
    history += [_said(_LOOK), _result("call_1", "def gcd(a, b): ..."), {"role": "developer", "content": "Now edit it."}]
    s.chat(history, _DONE)
    s.chat([*history, _said(_DONE), {"role": "system", "content": "Be brief."}, _TASK], _reply("Yes."))
    return s


def _two_developers() -> _Scenario:
    s = _Scenario("two-developer-messages")
    items: list[Any] = [
        {"role": "developer", "content": "Permissions: all."},
        {"role": "developer", "content": "Collaborate well."},
        {"role": "user", "content": "Repair gcd, please."},
    ]
    body = {"instructions": "You are Codex.", "tools": _CODEXS_TOOLS}
    s.ask(_RESPONSES, {**body, "input": items}, _DONE)
    items += [{"role": "assistant", "content": "It is repaired."}, {"role": "user", "content": "Thank you."}]
    s.ask(_RESPONSES, {**body, "input": items}, _reply("Gladly."))
    return s


def _text_arguments() -> _Scenario:
    """Edges of white space, and text that looks like another value."""
    s = _Scenario("text-arguments")
    hard = {"old": "    if x:\n        return 'it\\'s'\n", "new": " ", "note": "123", "mode": "false", "page": "null"}
    call = _reply("", ("call_1", "edit", {**hard, "count": 0, "any": [1, {"a": None}]}))
    s.chat([_SYSTEM, _TASK], call)
    s.chat([_SYSTEM, _TASK, _said(call), _result("call_1", "edited")], _DONE)
    return s


def _several_calls(name: str, order: str) -> _Scenario:
    """Results in another order than their calls; a turn that comes back in pieces (goose)."""
    s = _Scenario(name)
    a, b = ("call_1", "look", {"old": "a.py"}), ("call_2", "look", {"old": "b.py"})
    calls, first, second = _reply("Both.", a, b), _reply("", a), _reply("", b)
    s.chat([_SYSTEM, _TASK], calls)
    one, two = _result("call_1", "This is the first file."), _result("call_2", "That is the second one.")
    back = [_said(calls), two, one] if order == "swapped" else [_said(first, content="Both."), one, _said(second), two]
    s.chat([_SYSTEM, _TASK, *back], _DONE)
    return s


def _part_of_reasoning() -> _Scenario:
    """The official Node client keeps the last piece of a field that it does not know."""
    s = _Scenario("part-of-reasoning")
    thought = _reply("So it is.", reasoning="First I think.\n\nThen I know.")
    s.chat([_SYSTEM, _TASK], thought)
    s.chat([_SYSTEM, _TASK, _said(thought, reasoning_content="Then I know."), _TASK], _DONE)
    return s


def _parts_of_results() -> _Scenario:
    """Results that hold more than text, and half an emoji (Claude Code)."""
    s = _Scenario("parts-of-results")
    task = {"role": "user", "content": "Repair this, cut off here: \ud83d"}
    s.claude([task], _LOOK, system="You repair code.")
    parts = [
        {"type": "text", "text": "def gcd"},
        {"type": "tool_reference", "tool_name": "CronList"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
    ]
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": parts}
    s.claude([task, _blocks(_LOOK), {"role": "user", "content": [result]}], _DONE, system="You repair code.")
    return s


def _foreign_turns() -> _Scenario:
    """Turns that another model, or the agent, wrote: arguments that are a list; text behind reasoning; an empty one."""
    s = _Scenario("foreign-turns")
    foreign = {"id": "x", "type": "function", "function": {"name": "edit", "arguments": "[1]"}}
    history = [
        _SYSTEM,
        _TASK,
        {"role": "assistant", "content": None, "tool_calls": [foreign]},
        _result("x", "no object"),
    ]
    s.chat(history, _LOOK)
    history += [_said(_LOOK), _result("call_1", "def gcd"), {"role": "assistant", "content": ""}, _TASK]
    s.chat(history, _DONE)
    return s


def _compaction(name: str, words: str) -> _Scenario:
    """History is replaced by a summary, and work goes on behind another system prompt (Claude Code, qwen-code)."""
    s = _Scenario(name)
    billing = "x-anthropic-billing-header: cc_version=2.1.332.{}; cc_entrypoint=sdk-cli;"

    def system(version: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": billing.format(version)}, {"type": "text", "text": f"You repair. {version}"}]

    s.claude([_TASK], _LOOK, system=system("394"))
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": "call_1", "content": "def gcd"}
    asked = {"role": "user", "content": [result, {"type": "text", "text": words}]}
    summary = _reply("The task is gcd. I looked at it, and nothing is edited yet.")
    s.claude([_TASK, _blocks(_LOOK), asked], summary, "compaction", system=system("394"))
    begun = {"role": "user", "content": f"This session is being continued. Summary:\n{summary.text}\nGo on."}
    edit = _reply("", ("call_2", "edit", {"old": "a", "new": "b"}))
    s.claude([begun], edit, system=system("cf6"))
    result = {"type": "tool_result", "tool_use_id": "call_2", "content": "edited"}
    s.claude([begun, _blocks(edit), {"role": "user", "content": [result]}], _DONE, system=system("cf6"))
    return s


def _nonces() -> _Scenario:
    """A new id and the time in the system prompt of every request."""
    s = _Scenario("nonces")

    def system(nonce: str) -> dict[str, str]:
        return {"role": "system", "content": f"You repair code. Request {nonce}, at 2026-11-27T10:0{nonce[0]}:00Z."}

    s.chat([system("1f8a2c9d"), _TASK], _LOOK)
    history = [_TASK, _said(_LOOK), _result("call_1", "def gcd")]
    s.chat([system("2b07e4aa"), *history], _DONE)
    s.chat([system("3c91d0be"), *history, _said(_DONE), _TASK], _reply("Again."))
    return s


def _side_calls() -> _Scenario:
    """A title before the work, a sub-agent within it."""
    s = _Scenario("side-calls")
    s.chat([{"role": "system", "content": "Name this talk."}, _TASK], _reply("gcd"), "side", tools=None)
    s.chat([_SYSTEM, _TASK], _LOOK)
    finder = [{"role": "system", "content": "You find files."}, {"role": "user", "content": "Where is gcd?"}]
    s.chat(finder, _reply("In gcd.py."), "subagent", tools=_TOOLS[1:])
    s.chat([_SYSTEM, _TASK, _said(_LOOK), _result("call_1", "In gcd.py.")], _DONE)
    return s


def _begun_answer() -> _Scenario:
    """The client writes the beginning of the answer."""
    s = _Scenario("begun-answer")
    s.claude([_TASK, {"role": "assistant", "content": "The fault is"}], _reply(" in line 3."), system="You repair.")
    whole = {"role": "assistant", "content": "The fault is in line 3."}
    s.claude([_TASK, whole, {"role": "user", "content": "Repair it then."}], _DONE, system="You repair.")
    return s


_HABITS = [
    _late_system,
    _two_developers,
    _text_arguments,
    lambda: _several_calls("swapped-results", "swapped"),
    lambda: _several_calls("split-turn", "split"),
    _part_of_reasoning,
    _parts_of_results,
    _foreign_turns,
    lambda: _compaction("compaction-in-known-words", "Your task is to create a detailed summary of our conversation."),
    lambda: _compaction("compaction-in-late-words", "TEXT ONLY. ".ljust(395, ".") + "create a detailed summary of all"),
    lambda: _compaction("compaction-in-other-words", "Write down what whoever goes on from here must know."),
    _nonces,
    _side_calls,
    _begun_answer,
]
