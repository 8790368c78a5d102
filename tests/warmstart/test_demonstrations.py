"""The warm start's demonstrations are, token for token, what a live episode with the same calls would be."""

from __future__ import annotations

import random

from crrl.agents.edits import refusal
from crrl.agents.prompts import load_prompts
from crrl.engines.load import load_tokenizer
from crrl.gateway import load_renderer
from crrl.gateway.canonical import Message
from crrl.models import model_folder
from crrl.tasks.generator.generate import warmstart_bugs
from crrl.warmstart.demonstrations import RESULT, Tools, draw_mistakes, episode, shortest_unique
from crrl.warmstart.form import PoolSettings, Segment

PROMPTS = load_prompts("tiny")
TOKENIZER = load_tokenizer(model_folder("tiny"))
RENDERER = load_renderer(TOKENIZER, "qwen3")


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def live(issue: str, segments: list[Segment]) -> list[list[int]]:
    """What the gateway would have before each answer: rendered once, then bridged."""
    prompts = [RENDERER.prompt([Message("user", PROMPTS.user(issue))], PROMPTS.tools())]
    for answer, reply in zip(segments[1::2], segments[2::2], strict=False):
        result = reply.text.split(f"{RESULT}\n")[1].split("\n</tool_response>")[0]
        prompts.append(RENDERER.bridge(prompts[-1], ids_of(answer.text), [Message("tool", result)]))
    return prompts


def test_contexts_are_those_of_a_live_episode() -> None:
    rng, refused = random.Random(0), 0
    for bug, old, new in warmstart_bugs(seed=4, first=0, count=60, random_share=0.15):
        mistakes = draw_mistakes(rng, bug.buggy, old, new, bug.fixed)
        refused += len(mistakes)
        segments = episode(bug, old, new, PROMPTS.user, PROMPTS.tools(), mistakes)
        so_far: list[int] = []
        prompts = live(bug.issue, segments)
        for context, answer, prompt in zip(segments[::2], segments[1::2], prompts, strict=True):
            so_far += ids_of(context.text)
            assert so_far == prompt
            so_far += ids_of(answer.text)
    assert refused > 60


def test_snippets_are_unique_and_mistakes_are_not() -> None:
    rng = random.Random(1)
    for bug, old, new in warmstart_bugs(seed=4, first=0, count=100, random_share=0.0):
        before, after = shortest_unique(bug.buggy, old, new)
        assert bug.buggy.count(before) == 1 and bug.buggy.replace(before, after) == bug.fixed
        for mistake in draw_mistakes(rng, bug.buggy, old, new, bug.fixed):
            assert refusal(bug.buggy, bug.path, mistake.old, mistake.new)


def test_the_prompt_is_short_and_copying_is_copying_ids() -> None:
    (segments,) = Tools().demonstrations(PoolSettings(mistakes=0.0), 0, 1)
    bug, *_ = next(iter(warmstart_bugs(seed=1, first=0, count=1, random_share=0.15)))
    opening = ids_of(segments[0].text)
    assert len(opening) - len(ids_of(bug.issue)) < 60
    assert TOKENIZER.decode(opening) == segments[0].text
    snippet = shortest_unique(bug.buggy, bug.old_line, bug.new_line)[0]
    shown, edit = ids_of(segments[2].text), ids_of(segments[3].text)
    copied = ids_of(snippet)
    assert any(shown[i : i + len(copied)] == copied for i in range(len(shown)))
    assert any(edit[i : i + len(copied)] == copied for i in range(len(edit)))


def test_the_pool_is_made_of_seeds() -> None:
    settings = PoolSettings(seed=3)
    first, second = (Tools().demonstrations(settings, 2, 20) for _ in range(2))
    assert first == second != Tools().demonstrations(settings, 3, 20)
    assert any(segment.part == "mistake" for segments in first for segment in segments)
