"""Form `blocks`: one question with the file in it, one answer in search/replace blocks, as the answering agent asks.

The answer is the known fix written by `search_replace/generate.py`: as few whole lines as tell the place.
"""

from __future__ import annotations

from crrl.agents.answer import load_questions
from crrl.agents.search_replace.generate import generate
from crrl.tasks.generator.generate import warmstart_bugs
from crrl.warmstart.form import GENERATION, SHARD, PoolSettings, Segment

PROMPTS = "tiny"  # of conf/prompts/answer/
MARKERS = ["\n<<<<<<< SEARCH", "\n=======", "\n>>>>>>> REPLACE"]
"""With the newline before them, but not the one behind: that one holds the next line's indentation, as in the file."""


class Blocks:
    whole = MARKERS
    agent = "agent=answer-tiny"
    recipe = "repair-file"

    def __init__(self) -> None:
        self._questions = load_questions(PROMPTS)

    def demonstrations(self, settings: PoolSettings, shard: int, count: int) -> list[list[Segment]]:
        made = []
        for bug, old_line, new_line in warmstart_bugs(settings.seed, shard * SHARD, count, settings.random_share):
            (user,) = self._questions.messages(bug.issue, [(bug.path, bug.buggy)])
            opening = f"<|im_start|>user\n{user['content']}<|im_end|>\n{GENERATION}"
            after = bug.buggy.replace(old_line, new_line)  # it stands once
            answer = generate(bug.path, bug.buggy, after).rstrip("\n") + "<|im_end|>"
            made.append([Segment(opening, "context"), Segment(answer, "policy")])
        return made
