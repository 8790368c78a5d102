"""A scripted engine that repairs generated bugs as their demonstrations do: the loop without a model's cost or noise.

For `crrl bench episodes` and for tests of everything between the engine and the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crrl.agents.prompts import load_prompts
from crrl.engines.scripted import ScriptedEngine
from crrl.tasks.generator.bug import GeneratedBug
from crrl.warmstart.demonstrations import RESULT, episode


def demonstrating_engine(bugs: Sequence[GeneratedBug], tokenizer: Any, **settings: Any) -> ScriptedEngine:
    """Answers every request with the turn from the demonstration of its bug.

    Args:
        tokenizer: of the policy (`encode`, `decode`). settings: of `ScriptedEngine`.
    """
    prompts = load_prompts("tiny")
    scripts = {
        bug.issue: [
            tokenizer(segment.text, add_special_tokens=False)["input_ids"]
            for segment in episode(bug, bug.old_line, bug.new_line, prompts.user, prompts.tools())
            if segment.part == "policy"
        ]
        for bug in bugs
    }

    def answer(prompt_ids: list[int]) -> list[int]:
        text = tokenizer.decode(prompt_ids)
        issue = next(issue for issue in scripts if issue in text)
        turns = scripts[issue]
        return list(turns[min(text.count(RESULT), len(turns) - 1)])

    return ScriptedEngine(answer, **settings)
