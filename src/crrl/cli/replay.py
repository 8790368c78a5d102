"""`crrl replay`: invariant 1, on a run that was made."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from crrl.cli.call import Call, print_json
from crrl.errors import UsageError

USAGE = "crrl replay RUN [--json]"
HELP = """
RUN is a run's name or folder. Rebuilds every training row bit for bit from the ledger, and counts the
tokens trained, masked and left out, and why. Exit 1 if any row differs.
"""


def run(call: Call) -> int:
    call.no_settings()
    (name,) = call.only("RUN")
    folder = run_folder(name)
    from crrl.learning.replay import replay

    result: Any = replay(folder)
    values = asdict(result) if is_dataclass(result) and not isinstance(result, type) else dict(result)
    if call.json:
        print_json(values)
    else:
        print("\n".join(f"{key:<24}{value}" for key, value in values.items()))
    return 1 if not result.exact else 0


def run_folder(name: str) -> Path:
    """A run by name or path; raises UsageError where there is none."""
    for folder in (Path(name), Path("runs") / name):
        if (folder / "journal.sqlite").is_file():
            return folder
    raise UsageError(
        f"{name} is no run (no journal.sqlite there, nor in runs/{name}).",
        "`ls runs` shows the runs there are.",
    )
