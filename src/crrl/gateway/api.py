"""What goes through the gateway: what an agent asks, in no dialect; and samples, as they were drawn, in their
session's tree.

A sample holds of its prompt what its parent does not have: in memory, on the worker's pipe and on disk alike, a session
takes space by its length, not by its square. That a sample extends its parent token for token is so by its form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from crrl.gateway.canonical import Message

SampleKind = Literal["main", "side", "compaction", "subagent"]
Delivery = Literal["delivered", "superseded", "dropped"]


class Node(Protocol):
    """A generation in a tree: `before` is its parent (the same type), `appended` what its prompt has behind that."""

    @property
    def before(self) -> Any: ...
    @property
    def appended(self) -> list[int]: ...
    @property
    def ids(self) -> list[int]: ...


N = TypeVar("N", bound=Node)


def path_to(node: N) -> list[N]:
    """The root, each ancestor, `node`."""
    path = [node]
    while (before := path[-1].before) is not None:
        path.append(before)
    return path[::-1]


def prompt_of(node: Node) -> list[int]:
    """The whole prompt: of each ancestor what it appended and what was sampled, then what `node` appends."""
    *ancestors, node = path_to(node)
    prompt: list[int] = []
    for ancestor in ancestors:
        prompt += ancestor.appended
        prompt += ancestor.ids
    return prompt + node.appended


class _Linked:
    """Holds the parent itself, where `ledger.linked` puts it: no field, so it is neither compared nor encoded."""

    __slots__ = ("_before",)
    _before: Sample


@dataclass(frozen=True, slots=True)
class Sample(_Linked):
    """One generation: exactly the ids the engine saw (`prompt_ids`) and sampled (`ids`).

    Args:
        parent: id of the sample whose prompt and ids `prompt_ids` extends token for token; None: a root.
        appended: what `prompt_ids` has behind them; all of it in a root.
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
    appended: list[int]
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

    @property
    def before(self) -> Sample | None:
        """The parent. Raises ValueError: it is not known here, for this sample stands in no ledger that has it."""
        if self.parent is None:
            return None
        try:
            return self._before
        except AttributeError:
            raise ValueError(f"sample {self.id}: its parent {self.parent} is not in the ledger") from None

    @property
    def prompt_ids(self) -> list[int]:
        """Exactly the ids the engine saw: a new list. Raises ValueError as `before` does."""
        return prompt_of(self)


@dataclass(frozen=True)
class Forced:
    """What an answer must be: a call of `tool` ("": of any), or, with a `schema`, JSON. `param`: the field that says
    so."""

    param: str
    tool: str = ""
    schema: Any = None


@dataclass(frozen=True)
class Ask:
    """One request of an agent, in any API.

    Args:
        tools: as chat completions has them. prompt: raw text or token ids (`/v1/completions`; no messages then).
        asked: sampling parameters the agent wants; logged, then overridden by the recipe.
        stop: strings that end the visible answer. n: how many answers.
        tool_choice: `none` keeps the tools in the prompt, and shows calls as the sampled text.
        parallel_calls: False ends the turn with its first call.
        forced: for serving alone (`forced.py`).
        retry: the client declares that it repeats this request because it lost the answer.
        hints: signs of the kind of call in headers and body (`request_kind`, `thread`, ...).
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
    forced: Forced | None = None
    hints: dict[str, str] = field(default_factory=dict)


class BadRequest(Exception):
    """A request with a field that the gateway cannot honour. Answered 400 (or `status`)."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


@dataclass(frozen=True)
class Budget:
    """What one session may use; beyond it: the API's own error for a context that is full, before generation."""

    tokens: int = 4096  # sampled, all turns together
    turns: int = 16
    context: int | None = None  # None: the engine's
    seconds: float | None = None  # since `open`, without those at the engine (`clock.py`); None: no limit


@dataclass(frozen=True)
class SessionRecord:
    """A closed session; `samples` are linked (`ledger.linked`). `exhausted` names the budget that refused a request (""
    if none did: tokens, turns, seconds or context); `engine_wait_s` is the time in which a request of it was at
    the engine (not charged to an episode's wall budget), `queued_s` and `held_s` what its requests spent of it before
    their first tokens, and in gaps between tokens (`clock.py`); `engine_failed` is why the engine failed, and makes the
    episode lost; `refused` is why its requests were, where none could be answered: the settings do not fit together."""

    session: str
    samples: list[Sample]
    exhausted: str = ""
    engine_wait_s: float = 0.0
    queued_s: float = 0.0
    held_s: float = 0.0
    engine_failed: str = ""
    refused: str = ""
