"""Recordings of real agents: their requests as sent, and the answers. One JSON object per line.

    {"variant", "scenario", "i", "t", "method", "path", "headers", "body", "resp", "side", "kind"}

`resp` is the answer (`{"text", "reasoning", "calls": [[id, name, arguments]]}`), a fault that was injected
(`FAIL-drop`, `FAIL-ctx`, `FAIL-500`...) or a bare status. `kind` (main, side, compaction, subagent) is written in by
somebody who knows the agent; `side` says only whether it is another than main. Histories repeat themselves from request
to request: a block's first occurrence is `{"@def": id, "@value": X}`, later ones are `{"@ref": id}`; ids are per file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from crrl.errors import CrrlError
from crrl.gateway.api import SampleKind

FOLDED = 200  # characters from which a repeated block is worth a reference


@dataclass(frozen=True)
class Reply:
    """What a model answered, as an agent reads it. Calls: (id, name, arguments as text)."""

    text: str = ""
    reasoning: str | None = None
    calls: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Recorded:
    """One request. `path` is what follows the per-run base URL; `t` seconds since the run's first request; `side`:
    the call was not the agent's main turn (None: nobody said); `kind`: of which kind it was."""

    variant: str
    scenario: str
    i: int
    t: float
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    resp: Reply | str | int
    side: bool | None = None
    kind: SampleKind | None = None


def read(file: Path) -> list[Recorded]:
    """Raises CrrlError naming the line that is not a recorded request."""
    known: dict[Any, Any] = {}
    recorded = []
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CrrlError(f"{file} cannot be read: {error}.", "Give a recording: crrl gateway record --help") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            recorded.append(_recorded(_unfold(json.loads(line), known)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CrrlError(
                f"{file}, line {number}, is not a recorded request: {type(error).__name__}: {error}.",
                "`crrl gateway record` writes such files; src/crrl/conformance/recording.py describes a line.",
            ) from error
    return recorded


def sessions(recorded: list[Recorded]) -> dict[tuple[str, str], list[Recorded]]:
    """The requests of each run: one (variant, scenario), in the order sent."""
    runs: dict[tuple[str, str], list[Recorded]] = {}
    for one in recorded:
        runs.setdefault((one.variant, one.scenario), []).append(one)
    return runs


class Writer:
    """Appends requests to a new file; each line is whole on disk before the next."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("x")
        self._known: dict[str, int] = {}

    def write(self, one: Recorded) -> None:
        line = asdict(one)
        if isinstance(one.resp, Reply):
            line["resp"]["calls"] = [list(call) for call in one.resp.calls]
        line["body"] = self._fold(one.body)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _fold(self, value: Any) -> Any:
        if not isinstance(value, dict | list) or len(text := json.dumps(value)) < FOLDED:
            return value
        if text in self._known:
            return {"@ref": self._known[text]}
        items = value.items() if isinstance(value, dict) else enumerate(value)
        parts = [(key, self._fold(part)) for key, part in items]
        self._known[text] = len(self._known)
        folded = dict(parts) if isinstance(value, dict) else [part for _, part in parts]
        return {"@def": self._known[text], "@value": folded}


def _unfold(value: Any, known: dict[Any, Any]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"@def", "@value"}:
            known[value["@def"]] = _unfold(value["@value"], known)
            return known[value["@def"]]
        if set(value) == {"@ref"}:
            return known[value["@ref"]]
        return {key: _unfold(part, known) for key, part in value.items()}
    return [_unfold(part, known) for part in value] if isinstance(value, list) else value


def _kind(value: Any) -> SampleKind | None:
    if value is not None and value not in get_args(SampleKind):
        raise ValueError(f"kind is {value!r}")
    kind: SampleKind | None = value
    return kind


def _recorded(line: dict[str, Any]) -> Recorded:
    resp = line["resp"]
    if isinstance(resp, dict):
        calls = tuple((str(id), str(name), str(arguments)) for id, name, arguments in resp.get("calls") or [])
        resp = Reply(resp.get("text") or "", resp.get("reasoning"), calls)
    elif isinstance(resp, str) and resp.isdecimal():
        resp = int(resp)
    elif not isinstance(resp, str | int):
        raise ValueError(f"resp is {type(resp).__name__}")
    return Recorded(
        variant=str(line["variant"]),
        scenario=str(line["scenario"]),
        i=int(line["i"]),
        t=float(line.get("t", 0.0)),
        method=str(line["method"]).upper(),
        path=str(line["path"]),
        headers={str(k): str(v) for k, v in (line.get("headers") or {}).items()},
        body=line.get("body"),
        resp=resp,
        side=line.get("side"),
        kind=_kind(line.get("kind")),
    )
