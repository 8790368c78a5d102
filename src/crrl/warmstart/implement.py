"""Form `implement`: one question with a file in it whose function lacks its body, one answer with the body in a block.

Questions and answers are those of form `blocks`; the tasks are those of corpus.ask=implement.
"""

from __future__ import annotations

from crrl.agents.search_replace.generate import generate
from crrl.tasks.generator.generate import warmstart_bodies
from crrl.warmstart.blocks import Blocks
from crrl.warmstart.form import GENERATION, SHARD, PoolSettings, Segment


class Implement(Blocks):
    agent = f"{Blocks.agent} corpus.ask=implement"
    recipe = "implement"

    def demonstrations(self, settings: PoolSettings, shard: int, count: int) -> list[list[Segment]]:
        made = []
        for bug, after in warmstart_bodies(settings.seed, shard * SHARD, count, settings.random_share):
            (user,) = self._questions.messages(bug.issue, [(bug.path, bug.buggy)])
            opening = f"<|im_start|>user\n{user['content']}<|im_end|>\n{GENERATION}"
            answer = generate(bug.path, bug.buggy, after).rstrip("\n") + "<|im_end|>"
            made.append([Segment(opening, "context"), Segment(answer, "policy")])
        return made
