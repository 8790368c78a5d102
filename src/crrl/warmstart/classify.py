"""Form `classify`: one question with a function in it, one answer of a few lines, as the answering agent asks.

Families of the warm start are shown with the right answer, those that only RL teaches with one drawn at random: label,
weakness, line and probability. So the policy writes answers of the right form, and knows nothing of those families.
"""

from __future__ import annotations

import random

from crrl.agents.answer import load_questions
from crrl.label import Answer, write
from crrl.tasks.classification import changed_lines
from crrl.tasks.generator.weaknesses import FAMILIES, Pair, warmstart_pairs
from crrl.warmstart.form import GENERATION, SHARD, PoolSettings, Segment

PROMPTS = "classify-tiny"  # of conf/prompts/answer/
PROBABILITIES = (0.6, 0.75, 0.9)
WEAKNESSES = sorted({family.cwe for family in FAMILIES.values()})


class Classify:
    whole = ("label:", "\ncwe: CWE-", "\nprobability: 0.", "\nlines:")
    agent = "agent=answer-classify-tiny corpus.ask=classify"
    recipe = "classify"

    def __init__(self) -> None:
        self._questions = load_questions(PROMPTS)

    def demonstrations(self, settings: PoolSettings, shard: int, count: int) -> list[list[Segment]]:
        made = []
        for pair, rng, shown in warmstart_pairs(settings.seed, shard * SHARD, count, settings.random_share):
            vulnerable = rng.random() < 0.5
            code = pair.before if vulnerable else pair.after
            (user,) = self._questions.messages("", [("", code)])
            opening = f"<|im_start|>user\n{user['content']}<|im_end|>\n{GENERATION}"
            said = _right(pair, vulnerable, rng) if shown else _random(code, rng)
            made.append([Segment(opening, "context"), Segment(write(said).rstrip("\n") + "<|im_end|>", "policy")])
        return made


def _right(pair: Pair, vulnerable: bool, rng: random.Random) -> Answer:
    sure = rng.choice(PROBABILITIES)
    if not vulnerable:
        return Answer("not vulnerable", (), sure)
    return Answer("vulnerable", (pair.family.cwe,), sure, tuple(changed_lines(pair.before, pair.after)[0]))


def _random(code: str, rng: random.Random) -> Answer:
    sure = rng.choice(PROBABILITIES)
    if rng.random() < 0.5:
        return Answer("not vulnerable", (), sure)
    return Answer("vulnerable", (rng.choice(WEAKNESSES),), sure, (rng.randint(1, code.count("\n")),))
