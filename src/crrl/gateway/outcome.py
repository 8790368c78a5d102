"""The outcome of each turn of a session: its kind, why it starts a branch, and whether the agent used it.

Read from the whole tree when the session is over, because only then do we know which answers the agent continued.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crrl.gateway.api import Delivery, SampleKind
from crrl.gateway.kinds import kinds_of
from crrl.gateway.turn import Turn


@dataclass(frozen=True)
class Outcome:
    """As in `Sample`."""

    kind: SampleKind
    branch: str
    delivery: Delivery


def outcomes(turns: Sequence[Turn]) -> list[Outcome]:
    """Of all turns of a session, in the order in which they were asked."""
    known = [(turn.place.signs, _went_on(turn), _summary(turn)) for turn in turns]
    order = {turn: i for i, turn in enumerate(turns)}
    kinds = kinds_of([(signs, None if before is None else order[before], said) for signs, before, said in known])
    continued: dict[Turn, int] = {}  # -> when the agent first went on from it
    passed: dict[Turn, int] = {}  # -> when the agent last went on from its very request, without it
    for turn, kind in zip(turns, kinds, strict=True):
        now = turn.asked[0]
        for before in (turn.parent, *turn.place.spliced):
            if before is not None:
                continued.setdefault(before, now)
        passed.update((before, now) for before in turn.place.passed if kinds[order[before]] == kind)
    branches = _branches(turns, kinds, order, continued)
    deliveries = _deliveries(turns, continued, passed)
    return [Outcome(*parts) for parts in zip(kinds, branches, deliveries, strict=True)]


def _summary(turn: Turn) -> str:
    """What it said, if that is all that it did."""
    return turn.parsed.content if turn.parsed is not None and not turn.parsed.calls else ""


def _went_on(turn: Turn) -> Turn | None:
    """The turn with which its history ends, wherever that was sampled."""
    return turn.place.spliced[-1] if turn.place.spliced else turn.parent


def _branches(
    turns: Sequence[Turn], kinds: list[SampleKind], order: dict[Turn, int], continued: dict[Turn, int]
) -> list[str]:
    branches: list[str] = []
    openings: set[tuple[SampleKind, str]] = set()
    extended: set[tuple[Turn, SampleKind]] = set()  # by which kind of turn
    by_request: dict[bytes, list[Turn]] = {}
    compacted = False  # since the last main turn
    for turn, kind in zip(turns, kinds, strict=True):
        parent, now = turn.parent, turn.asked[0]
        same = by_request.setdefault(turn.request, [])
        opening = (kind, turn.place.signs.opening)
        if same and continued.get(same[-1], now) >= now:
            branch = "resampled" if any(t.delivered for t in same) else "retried"
        elif kind == "main" and compacted:
            branch = "compacted"
        elif any(
            kinds[order[t]] == kind and t.delivered and t.parent is parent and continued.get(t, now) >= now
            for t in turn.place.passed
        ):
            branch = "resampled"
        elif parent is not None and kinds[order[parent]] == kind:
            branch = "rewritten" if turn.place.changed or (parent, kind) in extended else ""
        elif kind in ("main", "subagent") and opening in openings:
            branch = "rewritten"
        else:
            branch = "first" if kind == "main" and "first" not in branches else "new"
        branches.append(branch)
        same.append(turn)
        openings.add(opening)
        if parent is not None:
            extended.add((parent, kind))
        if kind in ("main", "compaction"):
            compacted = kind == "compaction"
    return branches


def _deliveries(turns: Sequence[Turn], continued: dict[Turn, int], passed: dict[Turn, int]) -> list[Delivery]:
    """An answer that the agent never went on from was superseded if it then asked the same again, went on from another
    answer to the same, or went on from the request without it."""
    by_request: dict[bytes, list[Turn]] = {}
    for turn in turns:
        if turn.delivered and turn.whole:
            by_request.setdefault(turn.request, []).append(turn)
    result: dict[Turn, Delivery] = {}
    for answers in by_request.values():
        for turn in answers:
            later = [passed.get(turn, 0), *(t for other in answers for t in (other.asked[-1], continued.get(other, 0)))]
            result[turn] = "superseded" if max(later) > turn.asked[-1] and turn not in continued else "delivered"
    return [result.get(turn, "dropped") for turn in turns]
