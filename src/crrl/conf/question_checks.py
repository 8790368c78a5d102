"""Prompts that ask for something else than the tasks do are refused (invariant 9): a policy that is asked for a repair
cannot say whether a function is vulnerable, and every episode would be unsolved."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from crrl.errors import UsageError

if TYPE_CHECKING:
    from crrl.conf.schema import Agent

EDITS = frozenset({"repair", "implement"})
ASK = {
    "answer": {
        "repair-file": EDITS,
        "repair-function": EDITS,
        "tiny": EDITS,
        "implement": frozenset({"implement"}),
        "classify": frozenset({"classify"}),
        "classify-tiny": frozenset({"classify"}),
    },
    "builtin": {"implement": frozenset({"implement"})},  # the others say: do what the issue says
}
"""Agent -> its prompt sets that ask for something of their own -> what. Sets of your own ask for what you like."""
FIT = {
    "repair": "agent=answer, or agent=builtin",
    "implement": "agent=answer-implement, or agent=implementer",
    "classify": "agent=answer-classify (the tiny policy: agent=answer-classify-tiny)",
}


def check_questions(agent: Agent, asked: Set[str]) -> None:
    """`asked`: what the tasks ask for, as `corpus.ask`. Raises UsageError."""
    prompts = ASK.get(agent.name, {}).get(agent.prompts)
    if prompts is None or not (other := sorted(asked - prompts)):
        return
    some = "some of the tasks ask" if asked & prompts else "the tasks ask"
    what = {"repair": "for a repair", "implement": "for an implementation", "classify": "for a classification"}
    raise UsageError(
        f"agent={agent.name} agent.prompts={agent.prompts} asks {' or '.join(what[word] for word in sorted(prompts))}, "
        f"and {some} {what[other[0]]}.",
        f"Write {FIT[other[0]]}." if not asked & prompts else "Put each kind of task into a file of its own.",
    )
