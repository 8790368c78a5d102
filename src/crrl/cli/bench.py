"""`crrl bench`: measures this machine, and comparable tools in the same run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from crrl.cli.call import Call, print_json
from crrl.errors import UsageError, nearest

USAGE = "crrl bench [BENCH|all|soak] [key=value ...] [--json]"
HELP = """
engine    the local engine against transformers generate: tokens per CPU-second, log-prob agreement
gateway   time per request on top of the engine's, at 1, 32 and 256 sessions, and in a session of 64k tokens
episodes  CPU-seconds of an episode without the model, by part, and many agents at once
judge     CPU-seconds of one judged patch, against a plain pytest run
answers   CPU-milliseconds of each similarity, and of reading and applying search/replace answers
train     a training step against TRL's GRPOTrainer on the same rows: time, gradients
length    one row of growing length, LoRA and checkpointing, beside TRL's: time, peak memory
          tokens=1024,4096,16384 model=tiny (or a model folder)
push      new weights into the engine, by the size of the model: time, peak memory
          model=FOLDER: that one too
async     episodes per hour where they run ahead of the trainer, on heavy-tailed episodes (about ten minutes)
vllm      32 agents through the gateway over a vLLM server against raw requests to it, and pushes by each transport (not
          part of `all`: needs `make vllm`, and some minutes)   transports=disk,stream,adapter rounds=5
          model=tiny renderer=qwen3 (or a model folder and its renderer)
sandbox   one sandbox, the workspace of a large repository, many sandboxes at once, admission

soak      256 sessions stream through the gateway: does its memory stay flat? (not part of `all`)
          seconds=600

Read ratios, not absolute times: both sides run on this machine, one after the other.
"""

# name -> module whose `bench()` gives a dataclass with `lines() -> list[str]`; run in order.
BENCHES: dict[str, str] = {
    "engine": "crrl.bench.engine",
    "gateway": "crrl.bench.gateway",
    "episodes": "crrl.bench.episodes",
    "judge": "crrl.bench.judge",
    "answers": "crrl.bench.answers",
    "sandbox": "crrl.bench.sandbox",
    "train": "crrl.learning.bench",
    "length": "crrl.learning.bench_length",
    "push": "crrl.learning.bench_push",
    "async": "crrl.run.bench_async",
}
OF_THEIR_OWN: dict[str, str] = {"vllm": "crrl.run.bench_vllm"}
"""Not part of `all`."""
WORDS = (*BENCHES, *OF_THEIR_OWN, "all", "soak")
SOAK_S = 600.0
SHORTEST = 16
"""Tokens of a row."""


def run(call: Call) -> int:
    wanted = (call.only("BENCH", optional=1) or ["all"])[0]
    if wanted not in WORDS:
        raise UsageError(f"There is no benchmark '{wanted}'.", nearest(wanted, WORDS))
    options = {"length": _length, "push": _push, "vllm": _vllm}.get(wanted, lambda _: {})(call)
    of_all = BENCHES if wanted == "all" else {**BENCHES, **OF_THEIR_OWN}
    chosen = {name: _bench(module, options) for name, module in of_all.items() if wanted in (name, "all")}
    if wanted == "soak":
        chosen = {"soak": _soak(call)}
    call.no_settings()
    results: dict[str, Any] = {}
    for name, measure in chosen.items():
        measured = measure()
        results[name] = asdict(measured)
        if not call.json:
            print("\n".join(measured.lines()), end="\n\n", flush=True)
    if call.json:
        print_json(results)
    return 0


def _bench(module: str, options: dict[str, Any]) -> Callable[[], Any]:
    return lambda: importlib.import_module(module).bench(**options)


def _length(call: Call) -> dict[str, Any]:
    options = _push(call)
    if (word := call.take("tokens")) is not None:
        try:
            options["tokens"] = [int(number) for number in word.split(",")]
        except ValueError:
            options["tokens"] = [0]
        if min(options["tokens"]) < SHORTEST:
            raise UsageError(f"tokens={word} are not lengths of {SHORTEST} or more.", "Write tokens=1024,4096,32768.")
    return options


def _push(call: Call) -> dict[str, Any]:
    word = call.take("model")
    return {} if word is None else {"model": word}


def _vllm(call: Call) -> dict[str, Any]:
    words = {name: call.take(name) for name in ("transports", "renderer", "rounds")}
    options: dict[str, Any] = _push(call) | {name: word for name, word in words.items() if word is not None}
    if "rounds" in options:
        if not options["rounds"].isdecimal() or not int(options["rounds"]):
            raise UsageError(f"rounds={options['rounds']} is not a number of rounds.", "Write rounds=5.")
        options["rounds"] = int(options["rounds"])
    return options


def _soak(call: Call) -> Callable[[], Any]:
    word = call.take("seconds")
    try:
        seconds = SOAK_S if word is None else float(word)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"seconds={word} is not a duration.", "Write seconds=600.")
    return lambda: importlib.import_module("crrl.bench.gateway").soak(seconds)
