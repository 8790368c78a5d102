"""`crrl tasks make|mine REPO`: bugs from any repository."""

from __future__ import annotations

import shlex
from pathlib import Path

from crrl.cli.call import Call, whole_number
from crrl.errors import UsageError

KEYS = {
    "make": ("out", "limit", "seed", "setup", "tests", "times", "network"),
    "mine": ("out", "limit", "test", "language", "since", "setup", "times", "network"),
}
HELP = """
make    turns a Python project with a pytest suite (REPO: a git checkout or an unpacked sdist) into admitted tasks:
        mutants where tests cover them, an issue written from a failure, some failing tests kept back for judging
mine    turns the commits of a git repository that changed code and tests together into admitted tasks, in any
        language; what must flip is measured by the test command before and after
        Both go on where they were stopped. JSON: {out, tasks, candidates: {...}, seconds, cpu_seconds}

  out=FILE     the task file (NAME.jsonl); beside it FILE.work, and of make FILE.git, the repository's tree
  limit=N      at most so many tasks (100)         seed=N    of make: which mutants (0)
  setup=CMD    what installs the packages that tests need, run once, in /workspace, into /environment; `none`;
               by default, for Python, the project editable with its test extras and requirement files
  tests=ARGS   of make: the part of the suite to use, as for pytest
  test=CMD     of mine: `pytest [ARGS]`, or a command that compiles and runs the tests of /workspace; for Java without
               one: javac and JUnit over the whole tree
  language=L   of mine: python (default) or java; another one with test= and its parser: go, rust, javascript
  since=DATE   of mine: commits after this date (2020-01-31)
  times=N      of admission (3)                    network=no  set-up without network (the package cache, local files)
"""


def run(call: Call, action: str, repository: str) -> int:
    values = {key: value for key in KEYS[action] if (value := call.take(key)) is not None}
    call.no_settings()
    from crrl.making import command
    from crrl.task import Command

    out = Path(values.get("out", f"{Path(repository).resolve().name}.jsonl"))
    if out.suffix != ".jsonl":
        raise UsageError(f"out={out} is no task file.", f"Write out={out.with_suffix('.jsonl')}.")
    if values.get("network", "yes") not in ("yes", "no"):
        raise UsageError(f"network={values['network']} is neither yes nor no.", "Write network=no, or leave it out.")
    setup = None
    if (text := values.get("setup")) is not None:
        setup = [] if text == "none" else [Command(["sh", "-c", text], timeout_s=1800.0)]
    return command.run(
        action,
        Path(repository),
        out,
        limit=whole_number(values, "limit", 100, least=1),
        seed=whole_number(values, "seed", 0),
        times=whole_number(values, "times", 3, least=1),
        setup=setup,
        tests=shlex.split(values.get("tests", "")),
        test=shlex.split(values.get("test", "")),
        language=values.get("language", "python"),
        since=values.get("since", ""),
        network=values.get("network") != "no",
        json=call.json,
    )
