"""Benchmarks by name: `conf/benchmark/NAME.yaml`, one small file each.

Keys: `title`; `corpus`, a name of `tasks/corpora/` or `generated`; `split`, of generated tasks (drawn from the seed);
`language`, if it is a part of the corpus; `tasks`, how many the published benchmark has; `source`; `settings`, the
budgets under which it is run unless the command says otherwise. To add one, write one file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import crrl.conf

FOLDER = Path(crrl.conf.__file__).parent / "benchmark"


@dataclass(frozen=True)
class Preset:
    """`tasks` is 0 where there is no published number."""

    name: str
    title: str
    corpus: str
    split: str = ""
    language: str = ""
    tasks: int = 0
    source: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def words(self) -> list[str]:
        """The settings as `key=value`."""
        return [f"{key}={value}" for key, value in self.settings.items()]


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find(name: str) -> Preset | None:
    """None: there is no such benchmark."""
    if name not in names():
        return None
    return Preset(name, **yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
