"""`crrl bench push`: what a push of all weights into the local engine costs, by the size of the model.

Each model has a process of its own (`python -m crrl.learning.bench_push FOLDER`): trainer's model and engine side by
side, float32 on the CPU, one thread; every weight has changed. The time is that of the whole `push_and_prove`, the
proof by the probe included.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from crrl.conf.schema import Config
from crrl.engines.load import load_local, load_model, load_tokenizer
from crrl.learning import bench as of_steps
from crrl.learning import peak
from crrl.learning.bench_process import load, measured
from crrl.learning.memory import estimate, shape_of
from crrl.learning.push import push_and_prove
from crrl.models import model_folder

CONTEXT = 128


@dataclass(frozen=True)
class Pushed:
    """`extra`: peak memory in bytes on top of what was there before the push; `estimated`: what `crrl plan` says of it;
    `gap`: between engine and trainer, in nats."""

    model: str
    parameters: int
    cpu_s: float
    wall_s: float
    extra: int
    estimated: int
    gap: float


@dataclass(frozen=True)
class PushBench:
    """`pushes`: None: two copies of the model do not fit into memory."""

    pushes: dict[str, Pushed | None]
    load: str

    def lines(self) -> list[str]:
        return [
            f"A push of all weights, float32, one thread, load {self.load}:",
            "  model                 parameters    CPU-s   wall s   extra MiB  estimated  of the weights    gap, nats",
            *(f"  {name:20}{_cells(pushed)}" for name, pushed in self.pushes.items()),
        ]


def bench(model: str | None = None) -> PushBench:
    """Of the tiny policy, of one of hidden size 512, and of the one in the folder `model`, if any."""
    pushes: dict[str, Pushed | None] = {}
    with tempfile.TemporaryDirectory() as made:
        wide = Path(made) / "hidden-512"
        of_steps.wide().save_pretrained(wide)
        load_tokenizer(model_folder("tiny")).save_pretrained(wide)
        folders = [model_folder("tiny"), wide, *([Path(model)] if model is not None else [])]
        for folder in folders:
            shape_of(folder)  # a bad one is refused before anything is measured
        for folder in folders:
            found = measured("crrl.learning.bench_push", str(folder))
            pushes[folder.resolve().name] = Pushed(**found) if found else None
    return PushBench(pushes, load())


def _cells(pushed: Pushed | None) -> str:
    if pushed is None:
        return "does not fit"
    share = pushed.extra / (4 * pushed.parameters)
    return (
        f"{pushed.parameters:12,}{pushed.cpu_s:9.2f}{pushed.wall_s:9.2f}{pushed.extra / 2**20:12.0f}"
        f"{pushed.estimated / 2**20:11.0f}{share:15.0%}{pushed.gap:13.1e}"
    )


async def push(folder: Path) -> Pushed:
    shape = shape_of(folder)
    engine = load_local(folder, context=CONTEXT, device="cpu")
    model = load_model(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    try:
        await engine.score([1, 2, 3])  # the engine's first pass is not the push's
        resident, wall, cpu = peak.restart(), time.monotonic(), time.process_time()
        gap = await push_and_prove(engine, model, 1)
        cpu_s, wall_s, extra = time.process_time() - cpu, time.monotonic() - wall, peak.reached() - resident
    finally:
        engine.close()
    estimated = estimate(shape, Config(), device="cpu").push
    return Pushed(folder.name, shape.parameters, cpu_s, wall_s, extra, estimated, gap)


def main(words: list[str]) -> None:
    torch.set_num_threads(1)
    print(json.dumps(vars(asyncio.run(push(Path(words[0]))))))


if __name__ == "__main__":
    main(sys.argv[1:])
