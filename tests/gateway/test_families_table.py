"""docs/models.md: every family is in its table, with what it does with system messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from template_kit import every_family

from crrl.gateway.renderer import load_renderer
from crrl.gateway.renderer.families import FAMILIES
from crrl.gateway.renderer.family import FamilyRenderer

TEXT = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
EVERY = every_family()


def table() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in re.findall(r"^\| (`.*) \|$", TEXT.partition("\n## Families\n")[2].partition("\n## ")[0], re.MULTILINE):
        keys, *cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)]
        for key in re.findall(r"`([^`]+)`", keys):
            assert key not in found, key
            found[key] = cells
    return found


def test_every_family_is_in_the_table() -> None:
    assert set(table()) == set(FAMILIES)
    assert all(len(cells) == 5 for cells in table().values())


@pytest.mark.parametrize("key", sorted({*FAMILIES} - {"gpt-oss"}))  # test_families_real.py has it
def test_the_table_says_where_system_messages_stand(key: str) -> None:
    renderer = load_renderer(EVERY, key)
    assert isinstance(renderer, FamilyRenderer)
    _, first, later, *_ = table()[key]
    assert f"{first}; {later}" == renderer.systems
