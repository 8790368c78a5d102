"""What sets a Python project up: the set-up that its own files ask for, with packages as they were at a date.

A repository of 2021 does not run with the packages of today. What its files leave open is taken from before the date
(uv's `--exclude-newer`), but for setuptools, whose old releases cannot install a project in place. Where the index
tells no upload times, nothing can be installed so.
"""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

from crrl.errors import CrrlError
from crrl.sandbox.api import Workspace
from crrl.tasks.setup import interpreters
from crrl.tasks.setup.environments import pip
from crrl.tasks.task import Command, Source, Task

EXTRAS = ("test", "tests", "testing")
FILES = (
    *("requirements.txt", "requirements-test.txt", "requirements_test.txt", "test-requirements.txt"),
    *("test_requirements.txt", "requirements/test.txt", "requirements/tests.txt", "requirements-tests.txt"),
)
DEV_EXTRAS = ("dev", "develop", "development")
DEV_FILES = ("requirements-dev.txt", "requirements_dev.txt", "dev-requirements.txt", "requirements/dev.txt")
SLACK = timedelta(days=183)  # a corpus's date is of an issue or a pull request; what the tree asks for may be newer
IN_PLACE = {"setuptools": "2023-06-01", "setuptools-scm": "2023-06-01"}
"""The first good ones that install in place (PEP 660) and still have pkg_resources, which old set-ups import."""


async def settled(task: Task, prepare: Callable[[Source], Awaitable[Workspace]]) -> Task:
    """A Python task that has neither image nor set-up, with the set-up its repository asks for, and the interpreter.

    Raises CrrlError: the repository cannot be had."""
    if task.language != "python" or task.source.image is not None or task.setup:
        return task
    tree = (await prepare(task.source)).lower
    needs = [*task.test.needs, interpreters.suited(task.created_at)]
    return replace(task, setup=setup(tree, task.created_at), test=replace(task.test, needs=needs))


def setup(tree: Path, when: str = "") -> list[Command]:
    """The project editable, its test extras and requirement files, and pytest; packages as of half a year after `when`
    (ISO 8601; "": of today), a month's end, so that a repository's tasks share environments. What developers install
    besides comes after it, and may be what cannot be installed any more."""
    tests, rest = _asked(tree, FILES, EXTRAS), _asked(tree, DEV_FILES, DEV_EXTRAS)
    if not when:
        return pip("pytest", *tests) if tests else []
    dates = _dates(date.fromisoformat(when[:10]) + SLACK)
    needed = pip(*dates, "pytest", "setuptools", *tests)
    return needed if rest in ([], ["-e", "."]) else [*needed, *map(_optional, pip(*dates, *rest))]


def _optional(command: Command) -> Command:
    """Without effect where uv finds no solution (1); any other failure is one, the network's too."""
    return replace(command, argv=["sh", "-c", f"{shlex.join(command.argv)} || [ $? -eq 1 ]"])


def _dates(last: date) -> list[str]:
    month = (last.replace(day=1) + timedelta(days=32)).replace(day=1).isoformat()
    newer = [f"{name}={max(least, month)}" for name, least in IN_PLACE.items()]
    return ["--exclude-newer", month, *(word for limit in newer for word in ("--exclude-newer-package", limit))]


def _asked(tree: Path, files: Sequence[str], names: Sequence[str]) -> list[str]:
    """The project with the extras that it has of `names`, the requirement files that it has, its groups."""
    project = _toml(tree / "pyproject.toml")
    extras = {**project.get("project", {}).get("optional-dependencies", {}), **_setup_extras(tree)}
    groups = project.get("dependency-groups", {})
    words = [word for name in files if (tree / name).is_file() for word in ("-r", name)]
    words += [word for name in names for word in groups.get(name, []) if isinstance(word, str)]
    if "project" in project or "build-system" in project or (tree / "setup.py").is_file():
        chosen = [name for name in names if name in extras]
        words += ["-e", f".[{','.join(chosen)}]" if chosen else "."]
    return words


def _toml(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CrrlError(f"{path.name}: {error}", "Correct it.") from None


def _setup_extras(tree: Path) -> dict[str, object]:
    """Of setup.cfg, and those that setup.py spells out."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(tree / "setup.cfg")
    except configparser.Error:
        return {}
    found: dict[str, object] = {}
    if parser.has_section("options.extras_require"):
        found |= dict(parser["options.extras_require"])
    script = tree / "setup.py"
    text = script.read_text(errors="replace") if script.is_file() else ""
    if block := re.search(r"extras_require\s*=\s*\{(.*?)\}", text, re.DOTALL | re.IGNORECASE):
        found |= dict.fromkeys(re.findall(r"[\"'](\w+)[\"']\s*:", block[1]))
    return found | dict.fromkeys(re.findall(r"extras_require\[[\"'](\w+)[\"']\]", text, re.IGNORECASE))
