"""What goes through the gateway: what an agent asks, in no dialect; and samples, as they were drawn, in their
session's tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from crrl.gateway.canonical import Message

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
        branch: why this sample starts a branch: "" (it does not: first to extend its parent), `first` (main call of
            the session), `new` (another conversation), `rewritten` (the agent changed its history), `compacted` (it
            goes on from a summary), `resampled` (the same request after delivery), `retried` (the same after a
            cancelled or failed generation).
        finish: the engine's reason; tokens of a `cancelled` sample are recorded all the same.
        template: hash of what renders messages (`ledger.template_hash`).
        times: seconds since the epoch of the request `received`, the `first` and the `last` token; in no hash.
        address: hash of all that was asked of the engine and that it gave, ancestors included (`ledger.addressed`).
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
    template: str = ""
    times: dict[str, float] = field(default_factory=dict)
    address: str = ""


@dataclass(frozen=True)
class Ask:
    """One request of an agent, whatever the API.

    Args:
        tools: in the form of chat completions. prompt: raw text or token ids (`/v1/completions`; no messages then).
        asked: sampling parameters the agent wants; logged, then overridden by the recipe.
        stop: strings that end the visible answer. n: how many answers.
        tool_choice: `none` keeps the tools in the prompt, and shows calls as the text that was sampled.
        parallel_calls: False ends the turn with its first call.
        retry: the client says that it sends this request again, because it lost the answer.
        hints: what headers and body tell about the kind of call (`request_kind`, `thread`, ...).
    """

    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] | None = None
    asked: dict[str, float | int | str | None] = field(default_factory=dict)
    stop: list[str] = field(default_factory=list)
    n: int = 1
    retry: bool = False
    prompt: str | list[int] | None = None
    tool_choice: Literal["auto", "none"] = "auto"
    parallel_calls: bool = True
    hints: dict[str, str] = field(default_factory=dict)


class BadRequest(Exception):
    """A request that cannot be answered as it is asked, and the field that is wrong. Answered 400 (or `status`)."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


@dataclass(frozen=True)
class Budget:
    """What one session may use; beyond it: the API's own error for a context that is full, before generation."""

    tokens: int = 4096  # sampled, all turns together
    turns: int = 16
    context: int | None = None  # None: the engine's
    seconds: float | None = None  # since `open`, without waiting for the engine; None: no limit


@dataclass(frozen=True)
class SessionRecord:
    """A closed session. `exhausted` names the budget that refused a request ("" if none did: tokens, turns,
    seconds or context); `engine_wait_s` is the time its requests spent queued or held (not charged to an episode's wall
    budget); `engine_failed` is why the engine failed, and makes the episode lost."""

    session: str
    samples: list[Sample]
    exhausted: str = ""
    engine_wait_s: float = 0.0
    engine_failed: str = ""
