"""Scripted repair episodes, as the built-in agent with the tiny policy would have them.

A demonstration is the exact text that the gateway would render and the policy would sample: view the file, name
the shortest snippet that is unique in it, replace it, say `Done.`. A share of them shows a refused edit put right,
so that an error message is nothing new. Invariant (tested against the real renderer and agent): the context tokens
of a demonstration are those of a live episode that makes the same calls.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crrl.learning.warmstart.tokenizer import pieces, preamble_tokens
from crrl.tasks.generated import GeneratedBug

Part = Literal["context", "policy", "mistake"]
"""Who wrote a segment: the environment, the policy, or the policy making a mistake that is not to be learned."""

GENERATION = "<|im_start|>assistant\n<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class Segment:
    text: str
    part: Part


def shortest_unique(source: str, old_line: str, new_line: str) -> tuple[str, str]:
    """The smallest snippet pair (old, new), cut at token borders, with `old` occurring exactly once in `source`.

    Grows from the difference of the two lines, to the right and to the left in turn; both lines whole at worst.
    """
    old, new = pieces(old_line), pieces(new_line)
    shared = min(len(old), len(new))
    start = next((i for i in range(shared) if old[i] != new[i]), shared)
    tail = next((j for j in range(shared - start) if old[-1 - j] != new[-1 - j]), shared - start)
    end_old, end_new = len(old) - tail, len(new) - tail
    grow_right = True
    while True:
        before, after = "".join(old[start:end_old]), "".join(new[start:end_new])
        if before and after and source.count(before) == 1:
            return before, after
        if start == 0 and end_old == len(old):
            return old_line, new_line
        if (grow_right and end_old < len(old)) or start == 0:
            end_old, end_new = end_old + 1, end_new + 1
        else:
            start -= 1
        grow_right = not grow_right


def refused_snippet(rng: random.Random, source: str, old: str) -> tuple[str, int] | None:
    """A plausible snippet that does not occur exactly once, and how often it occurs; None where none was found."""
    words = pieces(source)
    for _ in range(20):
        if rng.random() < 0.5:
            start = rng.randrange(len(words))
            guess = "".join(words[start : start + rng.randint(1, 2)])
        else:
            changed = pieces(old)
            changed[rng.randrange(len(changed))] = rng.choice(words)
            guess = "".join(changed)
        if guess.strip() and "\n" not in guess and '"' not in guess and source.count(guess) != 1:
            return guess, source.count(guess)
    return None


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
    mistake: tuple[str, int] | None = None,
) -> list[Segment]:
    """One demonstration: `prompt` renders the user message from the issue; `mistake` as `refused_snippet` gives it."""
    path = bug.path
    old, new = shortest_unique(bug.buggy, old_line, new_line)
    opening = "<|im_start|>system\n" + "".join(preamble_tokens(tools)) + "<|im_end|>\n"
    opening += f"<|im_start|>user\n{prompt(bug.issue)}<|im_end|>\n" + GENERATION
    segments = [
        Segment(opening, "context"),
        Segment(call("shell", cmd=f"cat {path}"), "policy"),
        Segment(response(bug.buggy.rstrip("\n")), "context"),
    ]
    if mistake is not None:
        wrong, count = mistake
        error = f"text occurs {count} times in {path}" if count else f"text not found in {path}"
        segments += [
            Segment(call("edit", path=path, old=wrong, new=new), "mistake"),
            Segment(response(f"error: {error}"), "context"),
        ]
    return [
        *segments,
        Segment(call("edit", path=path, old=old, new=new), "policy"),
        Segment(response("ok"), "context"),
        Segment("Done.<|im_end|>", "policy"),
    ]
