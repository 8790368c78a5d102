"""`crrl replay`: checks invariant 1 on a finished or interrupted run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from crrl.cli.call import Call, print_json
from crrl.errors import UsageError

USAGE = "crrl replay RUN [--json]"
HELP = """
RUN is a run's name or folder. It checks every sample against its address, rebuilds every training row bit for bit
from the ledger under the run's credit rule (objective.credit), and counts the tokens that were trained, masked and left
out, with the reasons. Exit 1 if anything differs.
"""


def run(call: Call) -> int:
    call.no_settings()
    (name,) = call.only("RUN")
    folder = run_folder(name)
    from crrl.learning.replay import replay
    from crrl.learning.rows import CREDIT
    from crrl.rollout.journal import TRAIN, Journal

    with Journal.open(folder, read_only=True) as journal:
        credit = journal.meta.get("credit", CREDIT)  # runs before there was a choice had this one
        report = replay(journal.episodes(TRAIN), journal.trained_rows(), credit)
    if call.json:
        print_json({**asdict(report), "exact": report.exact})
        return 0 if report.exact else 1
    counts = report.counts
    print(f"{report.rebuilt} of {report.trained_rows} trained rows rebuilt bit for bit from {report.episodes} episodes")
    print(f"tokens   {counts.trained} trained, {counts.masked} masked (context)")
    for reason, tokens in sorted(counts.left_out.items()):
        print(f"         {tokens} sampled and left out: {reason}")
    for reason, tokens in sorted(report.unused.items()):
        print(f"         {tokens} sampled in episodes without a row: {reason}")
    for line in report.differing[:20]:
        print(f"DIFFERS  {line}")
    return 0 if report.exact else 1


def run_folder(name: str) -> Path:
    """A run by name or path. Raises UsageError if there is none."""
    for folder in (Path(name), Path("runs") / name):
        if (folder / "journal.sqlite").is_file():
            return folder
    raise UsageError(
        f"{name} is not a run (no journal.sqlite there or in runs/{name}).",
        "`ls runs` shows the runs there are.",
    )
