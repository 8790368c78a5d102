"""The folder and the names of recipes. Imports nothing, so that `crrl --help` stays quick."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent.resolve()
GROUPS = ("agent", "objective")
"""Groups of settings that have ready configurations, in a folder of that name: `agent=mini-swe-agent`."""


def recipe_names() -> list[str]:
    """Packaged recipes, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def warmstarts() -> list[str]:
    """Those of them that make a shipped policy: `crrl sft NAME`."""
    return [name for name in recipe_names() if name.startswith("warmstart")]


def ready(group: str) -> list[str]:
    """The ready configurations of a group, by name."""
    return sorted(path.stem for path in (FOLDER / group).glob("*.yaml"))
