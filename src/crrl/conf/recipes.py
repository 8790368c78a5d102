"""Where recipes are and what they are called; imports nothing, so that `crrl --help` stays quick."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent.resolve()


def recipe_names() -> list[str]:
    """Packaged recipes, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
