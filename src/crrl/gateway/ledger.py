"""The ledger's hashes: a sample is addressed by its content, and two equal runs have equal ledger hashes.

Keeps invariant 10 checkable: `ledger_hash` covers what was asked of the engine and what it gave, and neither
wall times nor the random part of URLs.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable

import msgspec

from crrl.gateway.api import Sample

_encoder = msgspec.json.Encoder(order="deterministic")


def sample_hash(sample: Sample) -> str:
    """Hash of ids, log-probs (as float32), versions, parameters and the sample's place in its tree."""
    h = hashlib.blake2b(digest_size=16)
    place = (
        sample.id,
        sample.parent,
        sample.kind,
        sample.delivery,
        sample.finish,
        sample.branch,
        sample.params,
    )
    h.update(_encoder.encode(place))
    for values in (array("i", sample.prompt_ids), array("i", sample.ids), array("i", sample.versions)):
        h.update(len(values).to_bytes(4, "little") + values.tobytes())
    h.update(array("f", sample.logprobs).tobytes())
    return h.hexdigest()


def ledger_hash(samples: Iterable[Sample]) -> str:
    """One hash of many samples, in the order given."""
    h = hashlib.blake2b(digest_size=16)
    for sample in samples:
        h.update(bytes.fromhex(sample_hash(sample)))
    return h.hexdigest()


def request_seed(session_seed: int, turn: int, prompt_ids: list[int], resample: int) -> int:
    """The 64-bit seed of one generation: of the session, the turn, what it is asked, and which resample it
    is. Arrival order is not in it, so parallel requests of one session draw the same noise in any order."""
    h = hashlib.blake2b(digest_size=8)
    h.update(f"{session_seed}/{turn}/{resample}/".encode())
    h.update(array("i", prompt_ids).tobytes())
    return int.from_bytes(h.digest(), "little")
