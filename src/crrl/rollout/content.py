"""An episode's samples as bytes, and the hash of an episode's content.

Invariant: equal episodes have equal hashes, whichever journal schema they were written under.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from typing import Any

import msgspec

from crrl.errors import CrrlError
from crrl.gateway.api import Sample
from crrl.rollout.api import Episode

_sorted = msgspec.msgpack.Encoder(order="sorted")


def encode_samples(samples: list[Sample]) -> bytes:
    return msgspec.msgpack.encode(samples)


def decode_samples(record: bytes) -> list[Sample]:
    """The samples, which `Episode` then links. Raises CrrlError: a record of schema 1 contradicts itself."""
    found = msgspec.msgpack.decode(record)
    if found and "prompt_ids" in found[0]:
        found = _from_schema_1(found)
    return msgspec.convert(found, list[Sample])


def _from_schema_1(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In schema 1 each sample had its whole prompt, which began with all tokens of its parent."""
    known: dict[str | None, list[int]] = {None: []}
    for sample in found:
        prompt = sample.pop("prompt_ids")
        seen = known.get(sample["parent"])
        if seen is None or prompt[: len(seen)] != seen:
            raise CrrlError(
                f"Sample {sample['id']} does not extend its parent {sample['parent']} token for token.",
                "Something changed the journal: restore it from a copy of the run folder.",
            )
        sample["appended"] = prompt[len(seen) :]
        known[sample["id"]] = prompt + sample["ids"]
    return found


def content_hash(episode: Episode) -> str:
    """The hash of an episode's tokens, log-probs, versions, tree, patch and verdict; not of times, tries, or the ids
    that its session and samples happened to get.

    It covers the episode as msgpack with whole prompts, as in schema 1, so hashes of all runs compare. Samples are fed
    in one by one: together, whole prompts grow with the square of the session's length.
    """
    *earlier, verdict = [
        verdict and dataclasses.replace(verdict, cpu_s=0.0, cached=False)
        for verdict in (*episode.earlier, episode.verdict)
    ]
    plain = dataclasses.replace(
        episode,
        samples=[],
        verdict=verdict,
        earlier=[verdict for verdict in earlier if verdict is not None],
        timings={},
        tries=1,
        counts={},
        agent_output="",
    )
    names = sorted(field.name for field in dataclasses.fields(plain))
    number = {sample.id: str(i) for i, sample in enumerate(episode.samples)}
    hash = hashlib.blake2b(_header(0x80, 0xDE, len(names)), digest_size=16)
    for name in names:
        hash.update(_sorted.encode(name))
        if name != "samples":
            hash.update(_sorted.encode(getattr(plain, name)))
            continue
        hash.update(_header(0x90, 0xDC, len(episode.samples)))
        for sample in episode.samples:
            hash.update(_sorted.encode(_whole(sample, number)))
    return hash.hexdigest()


def _whole(sample: Sample, number: dict[str, str]) -> dict[str, Any]:
    fields = {f.name: getattr(sample, f.name) for f in dataclasses.fields(sample)}
    del fields["appended"]
    parent = None if sample.parent is None else number[sample.parent]
    renamed: dict[str, Any] = {"id": number[sample.id], "session": "", "parent": parent, "times": {}}
    return {**fields, **renamed, "prompt_ids": sample.prompt_ids}


def _header(short: int, wide: int, count: int) -> bytes:
    """Of a msgpack map or array with so many entries."""
    if count < 16:
        return bytes([short | count])
    return struct.pack(">BH", wide, count) if count < 1 << 16 else struct.pack(">BI", wide + 1, count)
