"""Developers' patches from real corpora are read whole."""

from __future__ import annotations

import json
from pathlib import Path

from crrl.rewards.diff_similarity import changed_lines, similarity
from crrl.rewards.patching import parse


def patches(test_data: Path) -> list[str]:
    found = []
    for file in sorted([*test_data.glob("swe-bench/**/*.jsonl"), *test_data.glob("swe-gym/*.jsonl")]):
        rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
        found += [row[key] for row in rows for key in ("patch", "test_patch") if row.get(key)]
    return list(dict.fromkeys(found))


def test_real_patches_are_read_whole(test_data: Path) -> None:
    found = patches(test_data)
    assert len(found) > 10
    for patch in found:
        assert len(parse(patch)) == patch.count("diff --git ")
        signs = [line[0] for line in changed_lines(patch) if not line.startswith("file ")]
        body = [line for line in patch.splitlines() if line[:1] in "+-" and line[:4] not in ("+++ ", "--- ")]
        assert len(signs) == sum(bool(line[1:].strip()) for line in body)
        assert similarity(patch, patch) == 1.0 and similarity(patch, "") == 0.0
