"""What `crrl bench answers` measures is what it says: patches of so many lines, answers that apply."""

from __future__ import annotations

import random

from crrl.agents.search_replace.apply import apply
from crrl.agents.search_replace.generate import generate
from crrl.agents.search_replace.parse import parse
from crrl.bench import answers
from crrl.rewards.similarity import changed_lines, sides


def test_pairs_change_as_many_lines_as_it_says_and_are_alike() -> None:
    for count in (answers.SHORT, answers.LONG):
        patch, fix = answers._pair(random.Random(1), count)
        ((removed, added),) = sides(fix).values()
        assert len(removed) == len(added) == count // 2
        assert 0.6 < changed_lines(patch, fix) < 1.0


def test_answers_hold_three_blocks_that_apply() -> None:
    rng = random.Random(1)
    before = answers._file(rng)
    after = answers._edited(rng, before, 3)
    blocks = parse(generate(answers.PATH, "\n".join(before), "\n".join(after))).blocks
    assert len(blocks) == 3
    applied = apply(blocks, {answers.PATH: "\n".join(before)})
    assert applied.files[answers.PATH] == "\n".join(after) and not applied.faults
