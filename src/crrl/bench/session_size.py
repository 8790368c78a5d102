"""What one long session takes: in the gateway's tree, on the worker's pipe, in the journal, and in the trainer.

Part of `crrl bench gateway`. A session grows turn by turn over the scripted engine, without HTTP; everything that
outlives a generation is counted by `tracemalloc`. Ids are then spread evenly over a vocabulary of `VOCABULARY`, for
the shipped tokenizer's are small and take fewer bytes; in real text most ids are among the small ones, so this is more
than a real model's episode takes.
"""

from __future__ import annotations

import dataclasses
import gc
import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from crrl.engines.scripted import ScriptedEngine
from crrl.gateway import Budget, load_renderer
from crrl.gateway.api import Ask, Sample
from crrl.gateway.canonical import Message
from crrl.gateway.session import SamplingPolicy, Session
from crrl.models import model_folder
from crrl.rollout.api import Episode
from crrl.rollout.journal import TRAIN, Journal

VOCABULARY = 151_936
SAMPLED = 50


@dataclass(frozen=True)
class SessionSize:
    """Megabytes (10^6 bytes). tree: what the open session holds; pipe: the episode as the worker sends it; disk: the
    journal's token records; trainer: the episode as it is received."""

    turns: int
    tokens: int
    tree_mb: float
    pipe_mb: float
    disk_mb: float
    trainer_mb: float

    def line(self) -> str:
        sizes = (self.tree_mb, self.pipe_mb, self.disk_mb, self.trainer_mb)
        return f"  {self.turns:5} {self.tokens:8} " + " ".join(f"{mb:9.2f}" for mb in sizes)


HEAD = "  turns   tokens   tree MB   pipe MB   disk MB  trainer MB"


async def measure(turns: int, tokens: int) -> SessionSize:
    """A session of so many turns whose last prompt and answer have about so many tokens."""
    renderer = load_renderer(model_folder("tiny"), "qwen3")
    encode = renderer.tokenizer.encode
    answer = [*(encode("x") * SAMPLED)[: SAMPLED - 1], renderer.stop_ids[0]]
    engine = ScriptedEngine(lambda _: answer, context=1 << 20, step=SAMPLED)
    line = "    return the value of the name in the file\n"
    result = line * -(-(tokens // turns - SAMPLED) * 10 // len(encode(line * 10)))
    unlimited = Budget(tokens=1 << 40, turns=1 << 40)
    session = Session("s", unlimited, 0, 1.0, engine, await engine.info(), renderer, SamplingPolicy())
    gc.collect()
    tracemalloc.start()
    messages = [Message("user", result)]
    for _ in range(turns):
        turn = await session.ask(Ask(messages))
        assert turn.task is not None
        await turn.task
        turn.delivered = True
        messages = [*messages, turn.answer, Message("user", result)]
        engine.requests.clear()
    del messages
    tree = _traced()
    tracemalloc.stop()
    samples = [_spread(sample) for sample in (await session.close()).samples]
    episode = Episode("e", "g", "t", 0, 0, "scored", samples=samples)
    raw = msgspec.msgpack.encode(("episode", episode))
    with tempfile.TemporaryDirectory() as folder, Journal.create(Path(folder), {}) as journal:
        journal.add_episode(TRAIN, episode)
        disk = sum(file.stat().st_size for file in (Path(folder) / "tokens").iterdir())
    received = _size_of(lambda: msgspec.convert(msgspec.msgpack.decode(raw)[1], Episode))
    last = samples[-1]
    length = len(episode.samples[-1].prompt_ids) + len(last.ids)
    return SessionSize(turns, length, tree / 1e6, len(raw) / 1e6, disk / 1e6, received / 1e6)


def _spread(sample: Sample) -> Sample:
    def ids(small: list[int]) -> list[int]:
        return [(7919 * (i + 1) + 104_729 * place) % VOCABULARY for place, i in enumerate(small)]

    return dataclasses.replace(sample, appended=ids(sample.appended), ids=ids(sample.ids))


def _size_of(make: Callable[[], Any]) -> int:
    """Bytes that what `make` returns takes."""
    gc.collect()
    tracemalloc.start()
    made = make()
    size = _traced()
    tracemalloc.stop()
    del made
    return size


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
