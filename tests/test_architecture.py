"""docs/architecture.md, the import contract in pyproject.toml and the folders of `src/crrl/` name the same rooms."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_table_of_rooms_is_the_contract_that_make_lint_checks() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    contract = [set(layer.split(" | ")) for layer in layers]
    rows = re.findall(r"^\| (\d+) \| `(\w+)(?:/|\.py)` \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    floors = sorted({int(floor) for floor, _ in rows}, reverse=True)
    assert floors == list(range(len(layers), 0, -1))
    assert [{room for at, room in rows if int(at) == floor} for floor in floors] == contract
    assert [int(floor) for floor, _ in rows] == sorted((int(floor) for floor, _ in rows), reverse=True)
    assert "lint-imports" in (ROOT / "Makefile").read_text()


def test_every_room_has_its_row_and_what_to_read_first_is_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    source = ROOT / "src/crrl"
    there = {path.stem for path in source.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    rows = re.findall(r"^\| \d+ \| `(\w+)(?:/|\.py)` \|.*\|(.*)\|$", text, re.MULTILINE)
    assert {room for room, _ in rows} == there - {"__init__"}
    for room, first in rows:
        for path in re.findall(r"`([^`]+)`", first):
            assert path.startswith(f"{room}/") and (source / path).exists(), path
