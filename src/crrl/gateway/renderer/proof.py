"""The proof that a chat template only ever appends, on the turns that an agent makes.

`prove` plays conversations through the template, with and without a system message, with reasoning where the template
shows it, and with tools: at each turn the prompt that the engine saw and the tokens that it sampled must stand
unchanged at the beginning of the next full render, everything appended must be there, and the bridge must put exactly
the same tokens behind them. Whatever breaks is refused, naming the turn and showing the text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer.api import RenderError, Tools
from crrl.gateway.renderer.generic import GenericRenderer
from crrl.gateway.renderer.places import TOOLS
from crrl.gateway.renderer.template import ChatTemplate, Refusal

_SYSTEM = Message("system", "Repair it.")


@dataclass(frozen=True)
class Step:
    """One turn: what the policy answers, and what the agent appends."""

    turn: str
    answer: Message
    appended: list[Message]


def _answer(text: str, *calls: str, reasoning: str = "") -> Message:
    return Message("assistant", text, [Call(name, f'{{"at":"{text or name}"}}') for name in calls], reasoning)


_TALK = [
    Step("a user message after an answer", _answer("First answer."), [Message("user", "Second request.")]),
    Step("a user message after a second answer", _answer("Second answer."), [Message("user", "Third request.")]),
    Step("a user message after a third answer", _answer("Third answer."), [Message("user", "Fourth request.")]),
]
_WORK = [
    Step("a tool result after a tool call", _answer("", "look"), [Message("tool", "First result.")]),
    Step("a tool result after text and a tool call", _answer("I edit.", "edit"), [Message("tool", "Second result.")]),
    Step("a user message after an answer that ends tool calls", _answer("Done."), [Message("user", "Once more.")]),
    Step("a tool result after a later tool call", _answer("", "look"), [Message("tool", "Third result.")]),
    Step("a user message after another answer", _answer("All done."), [Message("user", "Thanks.")]),
]
_SEVERAL = [
    Step(
        "two tool results after two tool calls",
        _answer("", "look", "edit"),
        [Message("tool", t) for t in ("One.", "Two.")],
    ),
    Step("a user message after two tool calls", _answer("Both done."), [Message("user", "Go on.")]),
]
_ANYWHERE = [
    Step("a system message after an answer", _answer("Answer."), [Message("system", "Hint."), Message("user", "Go.")]),
    Step("two user messages after an answer", _answer("Again."), [Message("user", "One."), Message("user", "Two.")]),
]
_ANYWHERE_WITH_TOOLS = [
    Step("a user message after a result", _answer("", "look"), [Message("tool", "Found."), Message("user", "Go.")]),
    Step(
        "a system message after a result", _answer("", "edit"), [Message("tool", "Done."), Message("system", "Hint.")]
    ),
]


def proved(tokenizer: Any, key: str, *, tools: bool) -> GenericRenderer:
    """The renderer of a tokenizer's chat template, which has passed the proof. Raises Refusal, RenderError."""
    renderer = GenericRenderer(tokenizer, key, tools=tools)
    prove(renderer, ChatTemplate(tokenizer), tools=tools)
    return renderer


def prove(renderer: GenericRenderer, template: ChatTemplate, *, tools: bool) -> None:
    """Raises Refusal."""
    thoughts = (True,) if renderer.opens else (False, True) if renderer.think else (False,)
    for system in ([], [_SYSTEM]):
        for thinking in thoughts:
            _walk(renderer, template, system, [*_TALK, *_ANYWHERE], None, thinking)
            if tools:
                _walk(renderer, template, system, [*_WORK, *_ANYWHERE, *_ANYWHERE_WITH_TOOLS], TOOLS, thinking)
                if renderer.several_calls:
                    _walk(renderer, template, system, _SEVERAL, TOOLS, thinking)


def _walk(
    renderer: GenericRenderer,
    template: ChatTemplate,
    system: list[Message],
    steps: list[Step],
    tools: Tools,
    thinking: bool,
) -> None:
    circumstances = [
        "with a system message" if system else "",
        "with tools" if tools else "",
        "with reasoning" if thinking else "",
    ]
    messages = [*system, Message("user", "First request.")]
    for i, step in enumerate(steps):
        turn = ", ".join([step.turn, *filter(None, circumstances)])
        answer = replace(step.answer, reasoning=f"Thought {i}.") if thinking else step.answer
        try:
            _step(renderer, template, messages, replace(step, turn=turn, answer=answer), tools)
        except RenderError as error:
            raise Refusal(turn, str(error)) from error
        messages += [renderer.thinking(answer), *step.appended]


def _step(
    renderer: GenericRenderer,
    template: ChatTemplate,
    messages: list[Message],
    step: Step,
    tools: Tools,
) -> None:
    encode, answer, turn = renderer.tokenizer.encode, step.answer, step.turn
    placed = renderer.places.placed
    prompt = template.render(placed(messages), tools, answer=True)
    shown = [*messages, renderer.thinking(answer)]
    whole = template.render(placed(shown), tools, answer=False)
    if not whole.startswith(prompt):
        raise Refusal.at(turn, "changes what stood before the answer", prompt, whole)
    end = renderer.end_of_turn(whole, prompt)
    said = whole[len(prompt) : end]
    after = template.render(placed([*shown, *step.appended]), tools, answer=True)
    if not after.startswith(whole[:end]):
        raise Refusal.at(turn, "changes what was sampled or stood before it", whole[:end], after)
    for message in step.appended:
        if message.content not in after[end:]:
            raise Refusal(turn, f"it leaves out the {message.role} message")
    ids = encode(said)
    parsed = renderer.parse(ids, tools)
    wanted = (answer.content, answer.reasoning, answer.calls)
    found = (parsed.content, parsed.reasoning, [replace(c, id="") for c in parsed.calls])
    if answer.calls and not parsed.content:  # formats that have room for the call alone
        wanted = ("", *wanted[1:])
    if wanted != found:
        raise Refusal(turn, f"{said!r} does not read back as it was written, but as {found!r}")
    before = encode(prompt)
    bridged = renderer.bridge(before, ids, step.appended)
    tail = bridged[len(before) + len(ids) :]
    if bridged[: len(before) + len(ids)] != before + ids or tail != encode(after)[-len(tail) :]:
        raise Refusal(turn, f"the bridge puts {renderer.tokenizer.decode(tail)!r} where it puts {after[end:]!r}")
    if renderer.tokenizer.decode(tail) != after[end:]:
        raise Refusal.at(turn, "depends on what stood before", renderer.tokenizer.decode(tail), after[end:])
