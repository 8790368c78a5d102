"""Conversations on disk: a folder with one file for each, one sample a line, in the order of the requests.

A sample with a parent has as `prompt_ids` only what stands behind the parent's prompt and answer: a long session's
file grows with its length, not with its square.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import msgspec

from crrl.errors import CrrlError
from crrl.gateway.api import Sample, SessionRecord

_encoder, _decoder = msgspec.json.Encoder(), msgspec.json.Decoder(Sample)


class LedgerFolder:
    """Raises CrrlError where nothing can be written. Calling it with a closed session writes its file: whole, or not
    there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".{secrets.token_hex(4)}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise CrrlError(f"ledger={folder}: {error.strerror}.", "Name a folder that can be written.") from error

    def __call__(self, record: SessionRecord) -> None:
        path = self._folder / f"{record.session}.jsonl"
        partial = path.with_suffix(".partial")
        partial.write_bytes(_encoder.encode_lines(_shortened(record.samples)))
        partial.rename(path)


def read_ledger(path: Path) -> list[Sample]:
    """The samples of one file, whole. Raises CrrlError naming the line."""
    known: dict[str, Sample] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            sample = _decoder.decode(line)
            if sample.parent is not None:
                before = known[sample.parent]
                sample = replace(sample, prompt_ids=[*before.prompt_ids, *before.ids, *sample.prompt_ids])
        except (msgspec.DecodeError, KeyError) as error:
            raise CrrlError(f"{path}:{number} is no sample: {error}.", "Leave that file out.") from error
        known[sample.id] = sample
    return list(known.values())


def _shortened(samples: list[Sample]) -> list[Sample]:
    lengths = {sample.id: len(sample.prompt_ids) + len(sample.ids) for sample in samples}
    return [replace(s, prompt_ids=s.prompt_ids[lengths[s.parent] if s.parent else 0 :]) for s in samples]
