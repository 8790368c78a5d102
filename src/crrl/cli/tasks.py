"""`crrl tasks`: are the tasks sound, and what is in them."""

from __future__ import annotations

from crrl.cli.call import Call
from crrl.errors import UsageError, nearest

USAGE = "crrl tasks check|list|record [CORPUS] [key=value...] [--json]"
HELP = """
CORPUS is `generated` (default) or a task file (.jsonl).

check   runs every task's tests three times buggy and three times fixed; a task is admitted if they fail
        buggy and pass fixed each time. JSON: {id, status: admitted|flaky|broken|unavailable, empty, fixed,
        reasons, seconds}
list    ids, families and splits; with --json whole tasks, one a line: a task file
record  as check, and keeps the verdicts on the generated corpus with the package (for developers of crrl)

  count=N   of the generated corpus, this many per split (10)
  seed=N    of the generated corpus (0)
"""
ACTIONS = ("check", "list", "record")


def run(call: Call) -> int:
    action, corpus = [*call.only("ACTION", "CORPUS", optional=1), "generated"][:2]
    if action not in ACTIONS:
        raise UsageError(f"crrl tasks cannot '{action}'.", nearest(action, ACTIONS))
    count, seed = (_number(call, key, default) for key, default in (("count", 10), ("seed", 0)))
    call.no_settings()
    from crrl.tasks import command

    return int(command.run(action, corpus, count=count, seed=seed, json=call.json) or 0)


def _number(call: Call, key: str, default: int) -> int:
    value = call.take(key)
    if value is None:
        return default
    if not value.isdigit():
        raise UsageError(f"{key}={value} is not a whole number.", f"Write e.g. {key}={default}.")
    return int(value)
