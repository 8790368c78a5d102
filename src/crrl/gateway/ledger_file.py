"""Conversations on disk: a folder with one file each, one sample per line, in the order of the requests."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from crrl.errors import CrrlError
from crrl.gateway.api import Sample, SessionRecord
from crrl.gateway.ledger import linked, parent_of

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
        partial.write_bytes(_encoder.encode_lines(record.samples))
        partial.rename(path)


def read_ledger(path: Path) -> list[Sample]:
    """The samples of one file. Raises CrrlError naming the line."""
    known: dict[str, Sample] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            sample = _decoder.decode(line)
            parent_of(sample, known)
        except ValueError as error:  # msgspec's is one, too
            raise CrrlError(f"{path}:{number} is not a sample: {error}.", "Leave that file out.") from error
        known[sample.id] = sample
    return linked(known.values())
