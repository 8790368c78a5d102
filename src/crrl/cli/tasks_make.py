"""`crrl tasks make|mine|spec REPO`: tasks from any repository."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from crrl.cli.call import Call, whole_number
from crrl.errors import UsageError, nearest

KEYS = {
    "make": ("out", "limit", "seed", "setup", "tests", "times", "network", "faults", "crashes", "mix", "language"),
    "spec": ("out", "limit", "seed", "setup", "tests", "times", "network", "licences", "language"),
    "mine": ("out", "limit", "test", "language", "since", "setup", "times", "network"),
}
HELP = """
make    turns a project with a suite (REPO: a git checkout or an unpacked sdist) into admitted tasks: mutants where
        tests cover them, an issue written from a failure, some failing tests kept back for judging. Python with
        pytest, Go modules, npm packages with node --test, mocha, jest or vitest, cargo packages with tests in tests/
mine    turns the commits of a git repository that changed code and tests together into admitted tasks, in any
        language; what must flip is measured by the test command before and after
spec    turns a project as for make, or its sdist as it came (.tar.gz, .zip), into tasks of another kind: implement
        this function, whose body is missing, from its signature and docstring; its tests judge. Left out, with the
        reason for each in NAME.left_out.jsonl: what is specified too thinly, stands elsewhere in the box, or has a
        near-duplicate
        All go on where they were stopped. JSON: {out, tasks, candidates: {...}, seconds, cpu_seconds}

  out=FILE     the task file (NAME.jsonl); beside it FILE.work, and of make and spec FILE.git, the repository's tree
  limit=N      at most so many tasks (100)         seed=N    of make: which mutants (0)
  setup=CMD    what installs the packages that tests need, run once, in /workspace, into /environment; `none`;
               by default, for Python, the project editable with its test extras and requirement files
  tests=ARGS   of make, spec: the part of the suite to use, as for pytest; packages of Go; test files of npm packages
  tests=none   of spec: no suite is run, or there is none; similarity to the original judges
  test=CMD     of mine: `pytest [ARGS]`, or a command that compiles and runs the tests of /workspace; for Java without
               one: javac and JUnit over the whole tree
  language=L   of make, spec: python, go, java, javascript (TypeScript, too) or rust; by default what the project's
               files say
               of mine: the same; go, rust and javascript want test=, too
  since=DATE   of mine: only commits after this date, written as 2020-01-31; without it all
  faults=N     of make: so many faults in each task, in different files where there are such (1)
  crashes=P    of make: percent of the faults that crash at once to let through (10): they are the easy ones
  mix=K:W,...  of make: the operators to draw, and how often, e.g. boundary:5,slice:2 (all: crrl.making.operators)
  licences=L,...  of spec: only files under these licences (MIT,BSD,Apache), or none under these (-GPL,-AGPL); a name
               stands for its versions; the licence that is found is recorded with each task (`unknown`: none is)
  times=N      of admission (3)                    network=no  set-up without network (the package cache, local files)
"""


def run(call: Call, action: str, repository: str) -> int:
    state_dir = call.state_dir()
    values = {key: value for key in KEYS[action] if (value := call.take(key)) is not None}
    call.no_settings()
    from crrl.making import command, make, mine, sdist, spec
    from crrl.making.spec_licence import Licences
    from crrl.task import Command

    out = Path(values.get("out", f"{sdist.name_of(Path(repository))}.jsonl"))
    if out.suffix != ".jsonl":
        raise UsageError(f"out={out} is no task file.", f"Write out={out.with_suffix('.jsonl')}.")
    if values.get("network", "yes") not in ("yes", "no"):
        raise UsageError(f"network={values['network']} is neither yes nor no.", "Write network=no, or leave it out.")
    setup = None
    if (text := values.get("setup")) is not None:
        setup = [] if text == "none" else [Command(["sh", "-c", text], timeout_s=1800.0)]
    shared: dict[str, Any] = {
        "repository": Path(repository),
        "out": out,
        "setup": setup,
        "limit": whole_number(values, "limit", 100, least=1),
        "times": whole_number(values, "times", 3, least=1),
    }
    if action != "mine":
        shared |= {"seed": whole_number(values, "seed", 0), "tests": shlex.split(values.get("tests", ""))}
    wanted: make.Wanted | mine.Wanted
    if action == "spec":
        licences = Licences.of(values.get("licences", ""))
        wanted = spec.Wanted(**shared, language=values.get("language", ""), licences=licences)
    elif action == "make":
        wanted = make.Wanted(
            **shared,
            faults=whole_number(values, "faults", 1, least=1),
            crashes=whole_number(values, "crashes", 10) / 100,
            mix=_mix(values.get("mix", "")),
            language=values.get("language", ""),
        )
    else:
        wanted = mine.Wanted(
            **shared,
            test=shlex.split(values.get("test", "")),
            language=values.get("language", ""),
            since=_date(values.get("since", "")),
        )
    return command.run(wanted, network=values.get("network") != "no", state_dir=state_dir, json=call.json)


def _mix(text: str) -> dict[str, float]:
    """`boundary:5,slice:2`. Raises UsageError."""
    from crrl.making.operators import WEIGHTS

    mix: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        kind, _, weight = part.partition(":")
        if kind not in WEIGHTS:
            raise UsageError(f"mix: there is no operator {kind}.", nearest(kind, WEIGHTS))
        if re.fullmatch(r"\d+(\.\d+)?", weight) is None:
            raise UsageError(f"mix: {part} gives no weight.", f"Write mix={kind}:{WEIGHTS[kind]:g}.")
        mix[kind] = float(weight)
    return mix


def _date(text: str) -> str:
    """git takes any word for a date, and most of them for today. Raises UsageError."""
    if text and re.fullmatch(r"\d{4}-\d\d-\d\d", text) is None:
        raise UsageError(f"since={text} is no date.", "Write since=2020-01-31.")
    return text
