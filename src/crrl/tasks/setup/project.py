"""The set-up of a Python project that its own files ask for, with packages as they were at a date.

A repository of 2021 does not run with the packages of today. Versions that its files leave open come from before the
date (uv's `--exclude-newer`), except those of the tools that install and test (`TOOLS`). This needs an index with
upload times.
"""

from __future__ import annotations

import asyncio
import configparser
import re
import shlex
import tempfile
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from crrl.errors import CrrlError
from crrl.sandbox.api import Workspace
from crrl.sandbox.workspace import git
from crrl.task import Command, Source, Task
from crrl.tasks.setup import interpreters
from crrl.tasks.setup.environments import Environments, pip, with_generated

EXTRAS = ("test", "tests", "testing")
FILES = (
    *("requirements.txt", "requirements-test.txt", "requirements_test.txt", "test-requirements.txt"),
    *("test_requirements.txt", "requirements/test.txt", "requirements/tests.txt", "requirements-tests.txt"),
)
DEV_EXTRAS = ("dev", "develop", "development")
DEV_FILES = ("requirements-dev.txt", "requirements_dev.txt", "dev-requirements.txt", "requirements/dev.txt")
PYTEST = re.compile(r"\s*pytest\b(?!-)", re.I)
SLACK = timedelta(days=183)
TOOLS = (
    *("setuptools", "setuptools-scm", "wheel"),
    *("pytest", "pluggy", "iniconfig", "packaging", "py", "attrs", "atomicwrites", "exceptiongroup", "tomli"),
)
LEAST = "2023-06-01"
"""TOOLS may be as new as this, whatever the date: a setuptools that installs in place (PEP 660) and still has
pkg_resources, which old set-ups import; a pytest that lists what has passed, as the parsers of SWE-bench expect."""
PATHS = ("--config-setting", "editable_mode=compat")  # of setuptools: a path, as ever, and no import hook


@dataclass(frozen=True)
class Attempt:
    """Packages as of `when`, under the interpreter `python` (as `TestPlan.needs` has it)."""

    when: date
    python: str


def attempts(when: date, state_dir: Path) -> list[Attempt]:
    """What to try for a task of that date, in order: packages of the time, then of half a year later, since some trees
    ask for what was not out yet; under the Python of the time, then under the next."""
    pythons = interpreters.suited(when.isoformat(), state_dir)
    return [Attempt(when + slack, python) for python in pythons[:2] for slack in (timedelta(0), SLACK)]


async def settled(
    task: Task, prepare: Callable[[Source], Awaitable[Workspace]], environments: Environments
) -> AsyncIterator[Task | CrrlError]:
    """A Python task that has neither image nor set-up, with the set-up its repository asks for and the interpreter, as
    often as there is something to try; in place of one that cannot be set up, why. Any other task as it is.

    Raises CrrlError: the repository cannot be had, or the task has no date."""
    if task.language != "python" or task.source.image is not None or task.setup:
        yield task
        return
    if not re.match(r"\d{4}-\d\d-\d\d", task.created_at):
        raise CrrlError(
            f"created_at is {task.created_at!r}: packages of which date?",
            "Give the task a date (ISO 8601).",
        )
    tree = (await prepare(task.source)).lower
    when = max(task.created_at[:10], await asyncio.to_thread(committed, task.source))
    for attempt in attempts(date.fromisoformat(when), environments.state_dir):
        plan = replace(task.test, needs=[*task.test.needs, attempt.python])
        recorded = task.provenance | {"packages": attempt.when.isoformat(), "python": attempt.python}
        tried = replace(task, setup=setup(tree, attempt.when.isoformat()), test=plan, provenance=recorded)
        try:
            yield with_generated(tried, await environments.of(tried))
        except CrrlError as error:
            yield error


def committed(source: Source) -> str:
    """The date of its commit (ISO 8601); "" where it has none. A corpus's date may lie before it. Blocking.

    Raises CrrlError."""
    if source.repo is None or source.base_commit is None:
        return ""
    show = ["show", "-s", "--format=%cI", f"{source.base_commit}^{{commit}}"]
    if Path(source.repo).is_dir():
        return git(["-c", "safe.directory=*", "-C", source.repo, *show]).decode()[:10]
    with tempfile.TemporaryDirectory(prefix="crrl-date-") as folder:
        git(["init", "-q", "--bare", folder])
        git(["-C", folder, "fetch", "-q", "--depth=1", "--filter=tree:0", source.repo, source.base_commit])
        return git(["-C", folder, *show]).decode()[:10]


def setup(tree: Path, when: str = "") -> list[Command]:
    """The project editable, its test extras and requirement files, and pytest. What developers install comes along as
    far as it can be had: the tests of many projects need some of it.

    With `when` (ISO 8601): packages as of the end of that month, so that a repository's tasks share environments. Of
    requirement files, too, what can no longer be installed is done without: admission says whether the tests do."""
    tests, needed, whole = _files(tree, FILES), _project(tree, EXTRAS), _project(tree, ())
    paths = PATHS if "setuptools" in str(_toml(tree / "pyproject.toml").get("build-system", "setuptools")) else ()
    listed = [["-r", name] for name in tests]
    if when:
        options, first, rest = [*paths, *before(date.fromisoformat(when[:10]))], ["setuptools", *needed], listed
    else:
        options, first, rest = list(paths), [*(word for words in listed for word in words), *needed], []
    rest += [["-r", name] for name in _files(tree, DEV_FILES)]
    for names in (DEV_EXTRAS, _with_pytest(tree)):
        if (developing := _project(tree, names)) != whole:
            rest.append(developing)
    if not first and not rest:
        return []
    more = [optional(command) for words in rest for command in pip(*options, *words)]
    if more and whole:  # again in its place, should a tool have brought a released copy
        more += pip(*options, "--no-deps", *whole)
    return [*pip(*options, "pytest", *first), *more]


def optional(command: Command) -> Command:
    """Ignores that uv finds no solution (1); any other failure counts, the network's included."""
    return replace(command, argv=["sh", "-c", f"{shlex.join(command.argv)} || [ $? -eq 1 ]"])


def before(last: date) -> list[str]:
    """uv's arguments for packages as they were at the end of that month."""
    month = (last.replace(day=1) + timedelta(days=32)).replace(day=1).isoformat()
    return ["--exclude-newer", month, *builders(month)]


def builders(month: str = "") -> list[str]:
    """uv's arguments for a setuptools that builds packages of that month (or of any that names its versions)."""
    limits = [f"{name}={max(LEAST, month)}" for name in TOOLS]
    return [word for limit in limits for word in ("--exclude-newer-package", limit)]


def _files(tree: Path, known: Sequence[str]) -> list[str]:
    return [name for name in known if (tree / name).is_file()]


def _project(tree: Path, names: Sequence[str]) -> list[str]:
    """The project, editable, with the extras that it has of `names`, and its groups of these names."""
    project = _toml(tree / "pyproject.toml")
    extras = {**project.get("project", {}).get("optional-dependencies", {}), **_setup_extras(tree)}
    groups = project.get("dependency-groups", {})
    words = [word for name in names for word in _group(groups, name)]
    if "project" in project or "build-system" in project or (tree / "setup.py").is_file():
        chosen = [name for name in names if name in extras]
        words += ["-e", f".[{','.join(chosen)}]" if chosen else "."]
    return words


def _with_pytest(tree: Path) -> tuple[str, ...]:
    """The smallest extra or group that lists pytest, where none has a name that says so (`all`, `ci`)."""
    project = _toml(tree / "pyproject.toml")
    groups = project.get("dependency-groups", {})
    extras = {**project.get("project", {}).get("optional-dependencies", {}), **_setup_extras(tree)}
    if not {*EXTRAS, *DEV_EXTRAS}.isdisjoint({*groups, *extras}):
        return ()
    listed = {name: [word for word in words if isinstance(word, str)] for name, words in _listed(extras).items()}
    listed |= {name: _group(groups, name) for name in groups}
    fitting = [name for name, words in listed.items() if any(PYTEST.match(word) for word in words)]
    return (min(fitting, key=lambda name: (len(listed[name]), name)),) if fitting else ()


def _listed(extras: dict[str, Any]) -> dict[str, list[Any]]:
    """Of a table as pyproject.toml has it, or of lines as setup.cfg has them."""
    return {
        name: list(words) if isinstance(words, list) else str(words or "").split("\n") for name, words in extras.items()
    }


def _group(groups: dict, name: str, above: frozenset[str] = frozenset()) -> list[str]:
    """The requirements of a dependency group and of those that it includes (PEP 735)."""
    found: list[str] = []
    for entry in groups.get(name, []) if name not in above else []:
        included = entry.get("include-group", "") if isinstance(entry, dict) else ""
        found += _group(groups, included, above | {name}) if included else [entry]
    return [word for word in found if isinstance(word, str)]


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
