"""Python interpreters for tasks older than the system's: `python3.9` in `TestPlan.needs`, or `python>=3.9`: the oldest
here that is not older.

They are below /usr, or in `toolchains/python/NAME/` of the state folder, where `uv python install` puts them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

from crrl.errors import CrrlError
from crrl.sandbox import in_use
from crrl.sandbox.availability import PYTHON

RELEASED = {  # CPython's release calendar
    "3.6": "2016-12-23",
    "3.7": "2018-06-27",
    "3.8": "2019-10-14",
    "3.9": "2020-10-05",
    "3.10": "2021-10-04",
    "3.11": "2022-10-24",
    "3.12": "2023-10-02",
    "3.13": "2024-10-07",
    "3.14": "2025-10-07",
}
NAMED = re.compile(r"python(?:>=)?3\.\d+")
BELOW_USR = ("/usr/bin", "/usr/local/bin")  # seen by every box
HALF_A_YEAR = timedelta(days=183)


def folder(state_dir: Path) -> Path:
    """The folder for interpreters that the distribution lacks."""
    return state_dir / "toolchains" / "python"


def find(need: str, state_dir: Path) -> Path | None:
    """The interpreter for e.g. `python3.9` or `python>=3.9`; None if boxes can see none."""
    least = need.removeprefix("python>=")
    names = [need]
    if least != need:
        names = [f"python{version}" for version in RELEASED if _order(version) >= _order(least)]
    for name in names:
        places = [*(Path(place, name) for place in BELOW_USR), *sorted(folder(state_dir).glob(f"*/bin/{name}"))]
        if (found := next((place for place in places if place.exists()), None)) is not None:
            return found
    return None


def _order(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def folders(needs: Iterable[str], state_dir: Path) -> list[Path]:
    """Folders besides /usr that boxes need for these interpreters."""
    found = [place for need in needs if NAMED.fullmatch(need) and (place := find(need, state_dir)) is not None]
    installed = [place.parent.parent for place in found if not place.is_relative_to("/usr")]
    for place in installed:
        in_use.use_mount(place, state_dir)
    return installed


def wanted(needs: Iterable[str], state_dir: Path) -> Path:
    """The interpreter for a task with these needs. Raises CrrlError if it is not installed."""
    named = next((need for need in needs if NAMED.fullmatch(need)), None)
    if named is None:
        return Path(PYTHON)
    if (found := find(named, state_dir)) is None:
        raise CrrlError(f"needs {named}", how_to_install(named, state_dir))
    return found


def is_system(needs: Iterable[str], state_dir: Path) -> bool:
    """Whether it is the one that the warm judge runs."""
    return wanted(needs, state_dir).resolve() == Path(PYTHON).resolve()


def at_least(version: str) -> str:
    """What `needs` has for this version (`3.8.3`), or the next that is here."""
    return "python>=" + ".".join(version.split(".")[:2])


def missing(needs: Iterable[str], when: str, state_dir: Path) -> str:
    """The Python of a task's time, `python3.8`, where this machine lacks it, so that another had to do: what
    `python>=3.8` begins with, else the newest that had been out for half a year at `when` (ISO 8601; "": unknown)."""
    meant = next((f"python{need.removeprefix('python>=')}" for need in needs if need.startswith("python>=")), "")
    if when and not meant:
        meant = f"python{_out_by(RELEASED, when)[-1]}"
    return meant if meant and find(meant, state_dir) is None else ""


def suited(when: str, state_dir: Path) -> list[str]:
    """What a project tested on at that time (ISO 8601), best first, by the names that `needs` has: the newest
    interpreter here that had been out for half a year, then the newer ones, then the older ones.

    Raises CrrlError where there is none."""
    here = [version for version in RELEASED if find(f"python{version}", state_dir) is not None]
    if not here:
        raise CrrlError("There is no Python 3.6 or newer below /usr.", "apt-get install python3")
    first = here.index(_out_by(here, when)[-1])
    return [f"python{version}" for version in (*here[first:], *reversed(here[:first]))]


def _out_by(versions: Iterable[str], when: str) -> list[str]:
    """Those that had been out for half a year; at least the first."""
    out = [v for v in versions if date.fromisoformat(RELEASED[v]) + HALF_A_YEAR <= date.fromisoformat(when[:10])]
    return out or list(versions)[:1]


def how_to_install(python: str, state_dir: Path) -> str:
    """The command that puts `python3.8` where boxes see it."""
    return f"uv python install {python.removeprefix('python').removeprefix('>=')} --install-dir {folder(state_dir)}"
