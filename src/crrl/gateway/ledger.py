"""The ledger: a session's samples, append-only, each addressed by its content.

Keeps invariant 10 checkable: an address covers what was asked of the engine and what it gave, and its ancestors
through the parent's address; neither wall times nor the names that sessions and samples happened to get. What a sample
was taken for (kind, delivery, branch) is read off the tree later, and is no part of it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import msgspec

from crrl.gateway.api import Sample
from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import Renderer

_encoder = msgspec.json.Encoder(order="deterministic")
_PROBE = [Message("system", "s"), Message("user", "u")]
_ANSWER = Message("assistant", "a", [Call("t", '{"x": 1}')])
_TOOL = {"name": "t", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}


@lru_cache(maxsize=8)
def template_hash(renderer: Renderer) -> str:
    """Of what the renderer makes of a fixed conversation, with a tool where it has tools: tokenizer, chat template and
    the versions of whatever renders it are all in it."""
    tools, answer, appended = [{"type": "function", "function": _TOOL}], _ANSWER, Message("tool", "r")
    if not renderer.tools:
        tools, answer, appended = [], Message("assistant", "a"), Message("user", "r")
    ids = renderer.bridge(renderer.prompt(_PROBE, tools), renderer.assistant(answer), [appended])
    return _digest(renderer.key.encode(), array("i", ids).tobytes()).hex()


def linked(samples: Iterable[Sample]) -> list[Sample]:
    """Samples that know their parents: a ledger. A parent stands before its children; a sample whose parent is not
    among them is left without, and has no prompt."""
    known: dict[str, Sample] = {}
    found = []
    for sample in samples:
        before = known.get(sample.parent) if sample.parent is not None else None
        if getattr(sample, "_before", None) is not before:
            sample = replace(sample)  # the one that was given may stand in another ledger
            if before is not None:
                object.__setattr__(sample, "_before", before)
        known[sample.id] = sample
        found.append(sample)
    return found


def addressed(samples: Iterable[Sample]) -> list[Sample]:
    """Samples with their addresses. A parent stands before its children. Raises ValueError (`parent_of`)."""
    known: dict[str, Sample] = {}
    for sample in samples:
        before = parent_of(sample, known)
        address = _digest(
            bytes.fromhex(before.address) if before is not None else b"",
            _encoder.encode((sample.params, sample.template, sample.finish)),
            array("i", sample.appended).tobytes(),
            array("i", sample.ids).tobytes(),
            array("d", sample.logprobs).tobytes(),
            array("i", sample.versions).tobytes(),
        )
        known[sample.id] = replace(sample, address=address.hex())
    return linked(known.values())


def parent_of(sample: Sample, known: Mapping[str, Sample]) -> Sample | None:
    """The sample that this one extends; None: it is a root. Raises ValueError: its parent is not known."""
    if sample.parent is None:
        return None
    if (parent := known.get(sample.parent)) is None:
        raise ValueError(f"sample {sample.id}: its parent {sample.parent} is not in the ledger")
    return parent


def damaged(samples: Sequence[Sample]) -> list[str]:
    """What is not as it was recorded. Samples of runs before there were addresses have none to compare."""
    try:
        again = addressed(samples)
    except ValueError as error:
        return [str(error)]
    pairs = zip(samples, again, strict=True)
    return [
        f"sample {was.id} is not what its address says" for was, now in pairs if was.address not in ("", now.address)
    ]


def ledger_hash(samples: Iterable[Sample]) -> str:
    """One hash of many samples, in the order given, and of what each was taken for."""
    facts = [(s.address, s.id, s.parent, s.kind, s.delivery, s.branch) for s in samples]
    return _digest(_encoder.encode(facts)).hex()


def request_seed(session_seed: int, turn: int, request: bytes, resample: int) -> int:
    """The 64-bit seed of one generation: of the session, the turn, what is asked (its digest, so that a long history
    costs nothing here), and which resample it is. Arrival order is not in it: parallel requests of one session draw
    the same noise in any order."""
    h = hashlib.blake2b(f"{session_seed}/{turn}/{resample}/".encode(), digest_size=8)
    h.update(request)
    return int.from_bytes(h.digest(), "little")


def _digest(*parts: bytes) -> bytes:
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        h.update(len(part).to_bytes(8, "little") + part)
    return h.digest()
