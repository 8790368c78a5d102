"""Benchmarks by name: `conf/benchmark/NAME.yaml`, one small file each.

Keys: `title`; `corpus`, a name of `tasks/corpora/`, or `generated`, or none: then its tasks come from a task file
alone; `split`, of generated tasks (drawn from the seed; without it, the splits that the settings hold out);
`language`, if it is a part of the corpus; `tasks`, how many the published benchmark has; `source`; `settings`, the
budgets under which it is run unless the command says otherwise; `recipe` and `agent`, the settings and the ready agent
of a model that has none of its own (a plain folder, an endpoint); `bring`, how its tasks get here. To add one, write
one file.
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
    corpus: str = ""
    split: str = ""
    language: str = ""
    tasks: int = 0
    source: str = ""
    recipe: str = "quickstart"
    agent: str = ""
    bring: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def held_out(self) -> bool:
        """Its tasks are those that the settings hold out: drawn anew from the seed, split by split."""
        return self.corpus == "generated" and not self.split

    @property
    def asks(self) -> str:
        """What its tasks ask for: `repair`, `implement` or `classify`."""
        return self.recipe if self.recipe != "quickstart" else "repair"

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


def brought(preset: Preset) -> str:
    """How its tasks get here, as a remedy."""
    return "How to bring its tasks:\n" + "".join(f"  {line}\n" for line in preset.bring.splitlines()).rstrip("\n")


def described(preset: Preset) -> str:
    """For `crrl eval NAME --help`."""
    size = f"; {preset.tasks} tasks" if preset.tasks else ""
    lines = [f"{preset.name}: {preset.title}{size}"]
    lines += [f"Source: {preset.source}"] if preset.source else []
    if budgets := [word for word in preset.words() if not word.startswith("corpus.")]:
        lines.append(f"Budgets, unless the command has others: {' '.join(budgets)}")
    if preset.agent:
        lines.append(f"Asked by agent={preset.agent}, unless the command, or the run that is evaluated, has another.")
    lines += [brought(preset)] if preset.bring else [f"Nothing to bring: crrl eval {preset.name} MODEL"]
    return "\n".join(lines)
