"""Logs of Inspect (inspect_ai.log.EvalLog), version 2: `.eval`, a zip of JSON whose members may be compressed with
zstd, or one `.json`.

A sample without a score is lost: its error is the infrastructure's, or cannot be told from it. Where several scorers
judged, a score is the first one's; a value is `C` or `I`, a truth value, or a number from 0 to 1.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crrl.errors import CrrlError
from crrl.evaluation.cells import Cell, Results

WORDS = {"C": 1.0, "I": 0.0, "N": 0.0, "P": 0.5}  # inspect_ai.scorer: CORRECT, INCORRECT, NOANSWER, PARTIAL
ZSTD = 93  # zip's number of the method; zipfile knows it since Python 3.14
# Of `eval`: what has to agree.
RULER = ("task", "task_version", "task_args", "dataset", "scorers")
MEASURED = ("solver", "solver_args", "model_generate_config", "sandbox")
LIMITS = ("message_limit", "token_limit", "time_limit", "working_limit", "cost_limit")


def is_log(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix == ".eval":
        return True
    return path.suffix == ".json" and path.read_text(errors="replace")[:200].lstrip().startswith("{") and _is_json(path)


def _is_json(path: Path) -> bool:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and isinstance(found.get("eval"), dict) and "status" in found


def read(path: Path) -> Results:
    """Raises CrrlError: it is damaged, not finished, or has scores that are no numbers."""
    try:
        header, samples = _of_zip(path) if path.suffix == ".eval" else _of_json(path)
        cell = Cell()
        for sample in samples:
            cell.add(str(sample["id"]), _score(path, sample))
        told = header["eval"]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CrrlError(f"{path} is no log of Inspect that can be read: {error!r:.200}", "Write it anew.") from error
    if header.get("status") not in ("success", "error", "cancelled"):
        raise CrrlError(f"{path}: the evaluation is still {header.get('status')}.", "Finish it first.")
    config = told.get("config") or {}
    measured = {key: told.get(key) for key in MEASURED} | {key: config.get(key) for key in LIMITS}
    ruler = {key: told.get(key) for key in RULER} | {"scorers": [s.get("name") for s in told.get("scorers") or []]}
    ruler["dataset"] = (told.get("dataset") or {}).get("name")
    return Results("", {"": cell}, ruler, measured=measured, policy={"policy": told.get("model")})


def _score(path: Path, sample: dict[str, Any]) -> float | None:
    scores = sample.get("scores") or {}
    if not scores:
        return None
    name, score = next(iter(scores.items()))
    value = score.get("value")
    if isinstance(value, str) and value in WORDS:
        return WORDS[value]
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return float(value)
    raise CrrlError(
        f"{path}: sample {sample['id']} has the score {name}={value!r:.50}: none of C, I, true, false, 0 to 1.",
        "Score it with such a value; crrl compares rates.",
    )


def _of_json(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    log = json.loads(path.read_text())
    return log, log.get("samples") or []


def _of_zip(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    archive = zipfile.ZipFile(path)
    names = archive.namelist()
    if "header.json" not in names:
        raise CrrlError(f"{path}: the evaluation did not end, so it has no header.", "Finish it: inspect eval-retry.")
    samples = (json.loads(_member(archive, n)) for n in names if n.startswith("samples/") and n.endswith(".json"))
    return json.loads(_member(archive, "header.json")), samples


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != ZSTD:
        return archive.read(name)
    import zstandard

    stream = archive.fp
    assert stream is not None
    stream.seek(info.header_offset + 26)  # of the local header: lengths of the name and of the extra field
    lengths = stream.read(4)
    stream.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), 1)
    packed = stream.read(info.compress_size)
    try:
        return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(packed)
    except zstandard.ZstdError as error:
        raise ValueError(f"{name}: {error}") from error
