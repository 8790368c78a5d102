"""Form `tools`: scripted repair episodes of the built-in agent with the tiny policy.

A demonstration is the exact text that the gateway would render and the policy would sample: view the file, name the
shortest snippet that is unique in it, replace it, say `Done.`. Some of them show how to recover from refused edits, so
that the policy has seen error messages. Invariant (tested against the real renderer and agent): the context tokens of a
demonstration equal those of a live episode with the same calls.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from crrl.agents.edits import refusal
from crrl.agents.prompts import load_prompts
from crrl.tasks.generator.bug import GeneratedBug
from crrl.tasks.generator.generate import warmstart_bugs
from crrl.warmstart.form import GENERATION, SHARD, PoolSettings, Segment
from crrl.warmstart.tokenizer import pieces, preamble_tokens

RESULT = "<tool_response>"
BOILERPLATE = [
    '\n{"name": "shell", "arguments": {"cmd": "cat ',
    '\n{"name": "edit", "arguments": {"path": "',
    '", "old": "',
    '", "new": "',
    '"}}\n',
    ".py",
    "\n\n",
    "system\n",
    "assistant\n",
    " but should return",
    "Done.",
    "error: text not found in ",
    "error: text occurs ",
    "error: old and new are the same",
    "; nearest:",
    " times in ",
]


class Tools:
    agent = "agent=builtin"
    recipe = "quickstart"

    def __init__(self) -> None:
        self._prompts = load_prompts("tiny")
        self._tools = self._prompts.tools()
        self.whole = BOILERPLATE + preamble_tokens(self._tools)

    def demonstrations(self, settings: PoolSettings, shard: int, count: int) -> list[list[Segment]]:
        rng, first = random.Random(f"warmstart/{settings.seed}/{shard}"), shard * SHARD
        made = []
        elsewhere = ""  # the previous demonstration's file: its words are wrong here
        for bug, old_line, new_line in warmstart_bugs(settings.seed, first, count, settings.random_share):
            mistakes = []
            if rng.random() < settings.mistakes:
                mistakes = draw_mistakes(rng, bug.buggy, old_line, new_line, elsewhere or bug.buggy)
            made.append(episode(bug, old_line, new_line, self._prompts.user, self._tools, mistakes))
            elsewhere = bug.buggy
        return made


@dataclass(frozen=True)
class Mistake:
    """A refused edit."""

    old: str
    new: str


def snippets(old_line: str, new_line: str) -> Iterator[tuple[str, str]]:
    """Snippet pairs (old, new) cut at token borders: first the bare difference of the two lines, then alternately
    extended to the right and to the left, up to both whole lines."""
    old, new = pieces(old_line), pieces(new_line)
    shared = min(len(old), len(new))
    start = next((i for i in range(shared) if old[i] != new[i]), shared)
    tail = next((j for j in range(shared - start) if old[-1 - j] != new[-1 - j]), shared - start)
    end_old, end_new = len(old) - tail, len(new) - tail
    grow_right = True
    while start > 0 or end_old < len(old):
        before, after = "".join(old[start:end_old]), "".join(new[start:end_new])
        if before and after:
            yield before, after
        if (grow_right and end_old < len(old)) or start == 0:
            end_old, end_new = end_old + 1, end_new + 1
        else:
            start -= 1
        grow_right = not grow_right
    yield old_line, new_line


def shortest_unique(source: str, old_line: str, new_line: str) -> tuple[str, str]:
    """The smallest of `snippets` whose `old` occurs exactly once in `source`, or else both whole lines."""
    return next((pair for pair in snippets(old_line, new_line) if source.count(pair[0]) == 1), (old_line, new_line))


def draw_mistakes(rng: random.Random, source: str, old_line: str, new_line: str, elsewhere: str) -> list[Mistake]:
    """One to three refused edits of the kinds that a policy makes: the right edit with too short a snippet, a snippet
    with wrong words (some from `elsewhere`, another file), or an edit that changes nothing. Some occur twice, so that
    the policy learns to stop repeating itself."""
    old, new = shortest_unique(source, old_line, new_line)
    too_short = [Mistake(o, n) for o, n in snippets(old_line, new_line) if source.count(o) > 1]
    drawn: list[Mistake] = []
    wanted = rng.choices((1, 2, 3), (5, 3, 2))[0]
    while len(drawn) < wanted:
        if drawn and rng.random() < 0.4:
            drawn.append(drawn[-1])
        elif too_short and rng.random() < 0.6:
            drawn.append(rng.choice(too_short))
        elif rng.random() < 0.15:
            drawn.append(Mistake(old, old))
        elif (wrong := _wrong_words(rng, source, old, new, elsewhere)) is not None:
            drawn.append(wrong)
        else:
            break
    return drawn


def _wrong_words(rng: random.Random, source: str, old: str, new: str, elsewhere: str) -> Mistake | None:
    words, foreign = pieces(source), pieces(elsewhere)
    for _ in range(20):
        if rng.random() < 0.4:
            start = rng.randrange(len(words))
            guess = "".join(words[start : start + rng.randint(1, 2)])
        else:
            changed = pieces(old)
            changed[rng.randrange(len(changed))] = rng.choice(foreign if rng.random() < 0.5 else words)
            guess = "".join(changed)
        if guess.strip() and "\n" not in guess and '"' not in guess and refusal(source, "", guess, new):
            return Mistake(guess, new)
    return None


def put_right(source: str, old_line: str, new_line: str, shown: Sequence[str]) -> tuple[str, str]:
    """The edit after a refusal: if the refusal showed the line to repair, that whole line (copying it is the surest
    way), else the shortest unique snippet."""
    if old_line in shown and source.count(old_line) == 1:
        return old_line, new_line
    return shortest_unique(source, old_line, new_line)


def call(name: str, **arguments: str) -> str:
    body = json.dumps(arguments, ensure_ascii=False)
    return f'<tool_call>\n{{"name": "{name}", "arguments": {body}}}\n</tool_call><|im_end|>'


def response(content: str) -> str:
    return f"\n<|im_start|>user\n<tool_response>\n{content}\n</tool_response><|im_end|>\n" + GENERATION


def episode(
    bug: GeneratedBug,
    old_line: str,
    new_line: str,
    prompt: Callable[[str], str],
    tools: Sequence[dict[str, Any]],
    mistakes: Sequence[Mistake] = (),
) -> list[Segment]:
    """One demonstration. `prompt` renders the user message from the issue; `mistakes` precede the right edit."""
    path = bug.path
    opening = "<|im_start|>system\n" + "".join(preamble_tokens(tools)) + "<|im_end|>\n"
    opening += f"<|im_start|>user\n{prompt(bug.issue)}<|im_end|>\n" + GENERATION
    segments = [
        Segment(opening, "context"),
        Segment(call("shell", cmd=f"cat {path}"), "policy"),
        Segment(response(bug.buggy.rstrip("\n")), "context"),
    ]
    shown: list[str] = []
    for mistake in mistakes:
        why = refusal(bug.buggy, path, mistake.old, mistake.new)
        assert why is not None, "a mistake is an edit that is refused"
        shown = [line.strip() for line in why.split("\n")[1:]]
        segments += [
            Segment(call("edit", path=path, old=mistake.old, new=mistake.new), "mistake"),
            Segment(response(f"error: {why}"), "context"),
        ]
    old, new = put_right(bug.buggy, old_line, new_line, shown)
    return [
        *segments,
        Segment(call("edit", path=path, old=old, new=new), "policy"),
        Segment(response("ok"), "context"),
        Segment("Done.<|im_end|>", "policy"),
    ]
