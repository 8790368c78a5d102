"""What flows through curation: a trajectory, and the count of those left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

SHOWN = 5  # bad rows that are named one by one


@dataclass(frozen=True)
class Tokens:
    """Exactly the ids that the policy saw and sampled; `trained`: 1 where it sampled, for `crrl sft`. They mean
    something under one tokenizer only: its hash."""

    ids: list[int]
    trained: list[int]
    tokenizer: str


@dataclass(frozen=True)
class Trajectory:
    """One attempt at a task, as a chat.

    Args:
        messages, tools: as a request to chat completions has them. Empty where only the tokens are known.
        solved: None where nobody judged it.
        faults: calls that could not be read, or failed: of two that are alike, the one with fewer is kept.
        where: file and line, or run and episode: how a person finds it.
        about: language, repository, corpus, model: what is known.
    """

    id: str
    task: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    solved: bool | None = None
    truncated: bool = False
    reward: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    patch: str = ""
    exploits: tuple[str, ...] = ()
    faults: int = 0
    where: str = ""
    about: dict[str, str] = field(default_factory=dict)
    tokens: Tokens | None = None

    @property
    def text(self) -> str:
        """All that was said, the system's messages left out: they are the same in every trajectory. The tokens' numbers
        where there is no chat."""
        if not self.messages and self.tokens is not None:
            return " ".join(map(str, self.tokens.ids))
        return "\n".join(_said(message) for message in self.messages if message["role"] != "system")

    @property
    def length(self) -> int:
        return len(self.tokens.ids) if self.tokens else len(self.text.split())


def _said(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "\n".join(part.get("text") or "" for part in content if isinstance(part, dict))
    calls = [call["function"] for call in message.get("tool_calls") or []]
    return "\n".join([content, *(f"{call['name']} {call.get('arguments')}" for call in calls)])


@dataclass
class Found:
    """`left_out`: trajectories by reason. `faults`: the first bad rows, `FILE:LINE: why`."""

    trajectories: list[Trajectory] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fault(self, where: str, why: str) -> None:
        self.left_out["unreadable rows"] += 1
        if len(self.faults) < SHOWN:
            self.faults.append(f"{where}: {why}")
