"""Answers that a request forces: a tool's call, or JSON of a schema; as a grammar for the engine.

For serving alone: training refuses them by name, because a policy whose hand is forced is another policy (invariant 6).
The form around the JSON is the renderer's own: it writes a call, or an answer, whose JSON we know, and what stands
around that is what the grammar demands. Where the family writes its calls otherwise (as XML), they cannot be forced.
Reasoning comes first where the family reasons between two tokens.
"""

from __future__ import annotations

import json
import re
from typing import Any

from crrl.engines import constrained
from crrl.gateway.api import Ask, BadRequest, Forced
from crrl.gateway.begun import behind
from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import Renderer, RenderError

# Arguments that a family's form is written around, and how they may stand there.
PROBE = '{"zq": 1}'
WRITTEN = re.compile(r'\{\s*"zq"\s*:\s*1\s*\}')
# As `json.dumps` writes it: with free white space a small model may write nothing else, for ever.
_SPACES = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

Part = int | str  # a token that is no text, or text


def check(ask: Ask) -> None:
    """Raises BadRequest: what is forced does not fit the rest of the request."""
    forced = ask.forced
    if forced is None:
        return
    offered = {_function(tool)["name"] for tool in ask.tools or []}
    if forced.schema is None and not offered:
        raise BadRequest(f"'{forced.param}' forces a call, and there are no tools.", forced.param)
    if forced.tool and forced.tool not in offered:
        raise BadRequest(f"'{forced.param}' names {forced.tool!r}, which is not among the tools.", forced.param)
    if ask.messages[-1].role == "assistant":
        raise BadRequest(f"'{forced.param}' cannot go with an answer that is begun.", forced.param)


def grammar(renderer: Renderer, ask: Ask, forced: Forced, prompt_ids: list[int]) -> str:
    """What may be sampled behind a prompt: with a schema and tools that may be called, either. Raises BadRequest: the
    family cannot be forced so, or the schema has what cannot be demanded."""
    choices: list[tuple[str, str, str, Any]] = []
    if forced.schema is not None:
        answer = Message("assistant", PROBE)
        choices.append((forced.param, *_framed(renderer, answer, forced, prompt_ids), forced.schema))
    if forced.schema is None or (ask.tools and ask.tool_choice == "auto"):
        for i, tool in enumerate(ask.tools or []):
            function = _function(tool)
            if forced.tool in ("", function["name"]):
                call = Message("assistant", calls=[Call(function["name"], PROBE)])
                schema = function.get("parameters") or {"type": "object"}
                choices.append((f"tools[{i}]", *_framed(renderer, call, forced, prompt_ids), schema))
    lines = [f"start: {' | '.join(f'answer{i}' for i in range(len(choices)))}", "thought: /(?s:.*)/"]
    for i, (where, before, after, schema) in enumerate(choices):
        demanded = f"%json {json.dumps(_spaced(schema))}"
        if why := constrained.problem(f"start: json\njson: {demanded}\n"):
            raise BadRequest(f"The schema cannot be demanded: {_reason(why)}.", where)
        lines += [f"answer{i}: {before} json{i} {after}", f"json{i}: {demanded}"]
    return "\n".join(lines) + "\n"


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    function: dict[str, Any] = tool["function"]
    return function


def _framed(renderer: Renderer, message: Message, forced: Forced, prompt_ids: list[int]) -> tuple[str, str]:
    """What the family writes before and behind the message's JSON, to the end of the turn, in the grammar's words."""
    try:
        ids = renderer.assistant(message)
    except RenderError:
        ids = []
    parts = _parts(renderer, ids)
    found = [(i, m) for i, part in enumerate(parts) if isinstance(part, str) for m in WRITTEN.finditer(part)]
    reads = renderer.parse(ids, None) if ids else None
    if len(found) != 1 or reads is None or [c.name for c in reads.calls] != [c.name for c in message.calls]:
        what = "its calls" if message.calls else "answers"
        raise BadRequest(
            f"'{forced.param}' is not supported with renderer {renderer.key!r}, which does not write {what} as JSON.",
            forced.param,
        )
    ((i, match),) = found
    text = parts[i]
    assert isinstance(text, str)
    before = _before(renderer, [*parts[:i], text[: match.start()]])
    if closing := behind(renderer, prompt_ids, ids)[: -len(ids)]:
        before = f"thought {_words(_parts(renderer, closing))} {before}"
    return before, _words([text[match.end() :], *parts[i + 1 :]])


def _parts(renderer: Renderer, ids: list[int]) -> list[Part]:
    """Text, and between it the tokens that are none."""
    marks = renderer.tokenizer.marks()
    parts: list[Part] = []
    run: list[int] = []
    for token in ids:
        if token not in marks:
            run.append(token)
            continue
        parts += [renderer.tokenizer.decode(run), token]
        run = []
    return [*parts, renderer.tokenizer.decode(run)]


def _before(renderer: Renderer, parts: list[Part]) -> str:
    """What stands before the end of reasoning is free."""
    opened, closed = renderer.think_open, renderer.think_close
    if closed not in parts:
        return _words(parts)
    head = parts[: parts.index(opened) + 1] if opened in parts else []
    return f"{_words(head)} thought {_words(parts[parts.index(closed) :])}"


def _words(parts: list[Part]) -> str:
    return " ".join(f"<[{p}]>" if isinstance(p, int) else json.dumps(p, ensure_ascii=False) for p in parts if p != "")


def _spaced(schema: Any) -> Any:
    return {**schema, "x-guidance": _SPACES} if isinstance(schema, dict) else schema


def _reason(why: str) -> str:
    """The compiler's words, without the place in our grammar."""
    lines = [line.strip() for line in (why.partition("failed to compile JSON schema:")[2] or why).splitlines()]
    pattern = [line for line in lines if line.startswith("error: ")]  # a regular expression's, behind where it breaks
    return f"'pattern': {pattern[0].removeprefix('error: ')}" if pattern else next(filter(None, lines), why)
