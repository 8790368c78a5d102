"""`crrl bench`: this machine's numbers, peers side by side in the same run."""

from __future__ import annotations

import importlib
from dataclasses import asdict
from typing import Any

from crrl.cli.call import Call, print_json
from crrl.errors import UsageError, nearest

USAGE = "crrl bench [engine|episodes|judge|all] [--json]"
HELP = """
engine    the local engine against transformers generate: tokens per CPU-second, log-prob agreement
episodes  CPU-seconds of an episode outside the model, by part, and many agents at once
judge     CPU-seconds of one judged patch, against a plain pytest run

Read ratios, not absolute times: both sides run on this machine, one after the other.
"""

# name -> module whose `bench()` gives a dataclass with `lines() -> list[str]`; run in order.
BENCHES: dict[str, str] = {
    "engine": "crrl.engines.bench",
    "episodes": "crrl.rollout.bench",
    "judge": "crrl.rewards.bench",
}


def run(call: Call) -> int:
    call.no_settings()
    wanted = (call.only("BENCH", optional=1) or ["all"])[0]
    if wanted != "all" and wanted not in BENCHES:
        raise UsageError(f"There is no benchmark '{wanted}'.", nearest(wanted, [*BENCHES, "all"]))
    results: dict[str, Any] = {}
    for name, module in BENCHES.items():
        if wanted in (name, "all"):
            measured = importlib.import_module(module).bench()
            results[name] = asdict(measured)
            if not call.json:
                print("\n".join(measured.lines()), end="\n\n", flush=True)
    if call.json:
        print_json(results)
    return 0
