"""The corpora's own tools: where to find them, and the checkouts that they make in place of ours.

We drive Defects4J if it is installed: `defects4j checkout` on the host, once per bug; `defects4j compile` and `test`
in the box. Boxes see neither its patches nor its repositories, which hold the repairs, nor which classes one changes.
We do not drive BugsInPy's and GitBug-Java's tools: see docs/corpora.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from crrl.errors import CrrlError
from crrl.sandbox import in_use
from crrl.sandbox.whole import whole
from crrl.task import Source, Task
from crrl.tasks.setup.toolchains import TOOLCHAINS, defects4j

CHECKOUT_S = 900
TELLING = ("d4j.classes.modified=", "d4j.classes.relevant=", "d4j.tests.trigger=")
"""Lines of `defects4j.build.properties` that compiling and testing do without."""


def checked_out(task: Task, state_dir: Path) -> Task:
    """A task that needs such a tool, with what the tool makes as its source; any other as it is. Blocking.

    Raises CrrlError: the tool is missing, or fails."""
    if "defects4j" not in task.test.needs or task.source.dir is not None:
        return task
    home = defects4j(state_dir)
    if home is None:
        raise CrrlError("needs defects4j (no DEFECTS4J_HOME, no defects4j on PATH)", TOOLCHAINS["defects4j"].remedy)
    made = state_dir / "checkouts" / task.id
    while not in_use.use(made, state_dir):
        with whole(made, "new-") as folder:
            _checkout(home, task, folder)
    return replace(task, source=Source(dir=str(made)))


def _checkout(home: Path, task: Task, folder: Path) -> None:
    _, project, number = task.id.split("-")
    command = [str(home / "framework/bin/defects4j"), "checkout", "-p", project, "-v", f"{number}b", "-w", str(folder)]
    environment = {**os.environ, "TZ": "America/Los_Angeles"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=CHECKOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise CrrlError(f"{' '.join(command)} does not finish.", "Try it by hand.") from None
    if done.returncode != 0:
        raise CrrlError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}", "Try it by hand.")
    shutil.rmtree(folder / ".git")
    properties = folder / "defects4j.build.properties"
    lines = properties.read_text().splitlines(keepends=True)
    properties.write_text("".join(line for line in lines if not line.startswith(TELLING)))
