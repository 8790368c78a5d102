"""What the gateway hands on: samples, as they were drawn, in their session's tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SampleKind = Literal["main", "side", "compaction", "subagent"]
Delivery = Literal["delivered", "superseded", "dropped"]


@dataclass(frozen=True)
class Sample:
    """One generation: exactly the ids the engine saw (`prompt_ids`) and sampled (`ids`).

    Args:
        parent: id of the sample whose prompt and ids `prompt_ids` extends token for token; None: a root.
        logprobs, versions: one per sampled id.
        params: sampling parameters `used`, and those the agent `asked` where they differ.
        delivery: `delivered` reached the client; `superseded` was delivered, but the agent went on from
            another; `dropped` never reached it.
        branch: why this sample starts a branch: "" (it does not: first to extend its parent), `first` (of the
            session), `new` (another conversation), `rewritten` (the agent changed its history), `resampled`
            (the same request after delivery), `retried` (the same after a cancelled or failed generation).
        finish: the engine's reason; tokens of a `cancelled` sample are recorded all the same.
    """

    id: str
    session: str
    parent: str | None
    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float]
    versions: list[int]
    params: dict[str, float | int | str | None] = field(default_factory=dict)
    kind: SampleKind = "main"
    delivery: Delivery = "delivered"
    finish: str = "stop"
    branch: str = ""


@dataclass(frozen=True)
class Budget:
    """What one session may use; beyond it: the API's own `context_length_exceeded`, before generation."""

    tokens: int = 4096  # sampled, all turns together
    turns: int = 16
    context: int | None = None  # None: the engine's


@dataclass(frozen=True)
class SessionRecord:
    """A closed session. `exhausted` names the budget that refused a request ("" if none did: tokens, turns or
    context); `engine_wait_s` is the time its requests spent queued or held (not charged to an episode's wall
    budget); `engine_failed` is why the engine failed, and makes the episode lost."""

    session: str
    samples: list[Sample]
    exhausted: str = ""
    engine_wait_s: float = 0.0
    engine_failed: str = ""
