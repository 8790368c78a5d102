"""Whether a run fits: the components of `memory.py` beside what a card, or this machine, has; if not, what to write.

On a CPU nothing raises when memory runs out: the kernel kills the process. So a run asks here first.

Invariant: what is refused would need more than there is by the estimate, and each remedy that is given would fit by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from crrl.conf.schema import Config
from crrl.engines import adapter
from crrl.errors import CrrlError
from crrl.learning.memory import GIB, Budget, Memory, Shape, budget_of, estimate, shape_of
from crrl.models import model_folder

MEANING = {
    "program": "interpreter and libraries",
    "weights": "the trainer's",
    "gradients": "",
    "optimizer": "AdamW's moments",
    "reference": "the reference policy of objective.beta",
    "activations": "kept for the backward pass",
    "logits": "of trained tokens, in tiles",
    "engine": "its own copy of the weights",
    "kv": "keys and values of all that may run at once",
    "push": "while weights are swapped",
    "awake": "more, while a server that shares the card samples: engine.memory_share",
}


SMALLEST_SHARE = 0.2
"""Of a card, for a vLLM server: below, there is little room left for keys and values."""


class DoesNotFit(CrrlError):
    """By the estimate, the run would run out of memory."""


@dataclass(frozen=True)
class Room:
    """Memory of one card, or what this machine has left. `device`: cpu or cuda. `what`: for messages."""

    device: str
    bytes: int
    what: str

    @classmethod
    def of_card(cls, gigabytes: float) -> Room:
        return cls("cuda", int(gigabytes * GIB), f"a card of {gigabytes:g} GiB")

    @classmethod
    def here(cls) -> Room:
        """The first GPU, or the memory that is left to this process."""
        if torch.cuda.is_available():
            total = torch.cuda.get_device_properties(0).total_memory
            return cls("cuda", total, f"this GPU's {total / GIB:.1f} GiB")
        free = psutil.virtual_memory().available
        limits = [left for left in map(_left, _cgroups()) if left is not None]
        left = min([free, *limits]) + psutil.Process().memory_info().rss  # what this process has counts as the run's
        return cls("cpu", left, f"the {left / GIB:.1f} GiB that this machine has left")


def _cgroups(root: Path = Path("/sys/fs/cgroup"), mine: Path = Path("/proc/self/cgroup")) -> Iterator[Path]:
    """The folders of this process's memory cgroup and of those around it, in version 2 and 1. Inside a container the
    path may not be visible; then the root is the container's own."""
    try:
        lines = [line.split(":", 2) for line in mine.read_text().splitlines()]
    except OSError:
        return
    for number, controllers, path in lines:
        if number != "0" and "memory" not in controllers.split(","):
            continue
        top = root if number == "0" else root / "memory"
        folder = top / path.strip("/")
        yield from (f for f in (folder, *folder.parents) if f.is_relative_to(top) and f.is_dir())


def _left(cgroup: Path) -> int | None:
    """Bytes until its limit; None: it has none. Caches of files count as free."""
    version_2 = ("memory.max", "memory.current", "inactive_file")
    version_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    for limit, usage, cached in (version_2, version_1):
        try:
            most, used = int((cgroup / limit).read_text()), int((cgroup / usage).read_text())
            stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if most < 1 << 60:  # version 1's way to say that there is no limit
            return most - used + int(stat.get(cached, 0))
    return None


@dataclass(frozen=True)
class Plan:
    """`needed`: on one card, or in all processes together on a CPU."""

    memory: Memory
    budget: Budget
    room: Room
    ranks: int
    needed: int

    @property
    def fits(self) -> bool:
        return self.needed <= self.room.bytes

    def lines(self) -> list[str]:
        """The table. Components of no size are left out."""
        shown = [(name, size) for name, size in self.memory.rows() if size]
        meaning = MEANING | ({"kv": f"{MEANING['kv']}; none during updates"} if self.memory.rests else {})
        rows = [f"{name:<12}{size / GIB:8.2f} GiB   {meaning[name]}".rstrip() for name, size in shown]
        where = f"each of {self.ranks} cards, at most" if self.ranks > 1 else "at its peak"
        if self.ranks > 1 and self.room.device == "cpu":
            where = f"{self.ranks} processes together"
        return [
            *rows,
            f"{'needed':<12}{self.needed / GIB:8.2f} GiB   {where}; there is: {self.room.what}",
            f"for micro-batches of {self.budget.tokens:,} tokens, {self.budget.trained:,} of them trained, and rows of "
            f"{self.budget.row:,}",
        ]


def ranks_of(config: Config) -> int:
    return 1 if config.launch.name == "local" else config.launch.processes


def shape_in(config: Config) -> Shape:
    """Of `model.path`; of the base, where that is an adapter, or where a resumed run's was moved."""
    folder = model_folder(config.model.path)
    if adapter.is_adapter(folder):
        folder = adapter.base_folder(folder, config.model.base)
    elif config.model.base:
        folder = Path(config.model.base)
    return shape_of(folder, config.adapter.targets)


def make_plan(config: Config, room: Room, shape: Shape | None = None) -> Plan:
    """Reads config.json of `model.path` and nothing else. Raises CrrlError."""
    shape = shape or shape_in(config)
    ranks = ranks_of(config)
    memory = estimate(shape, config, device=room.device, ranks=ranks, card=room.bytes)
    needed = memory.peak
    if room.device == "cpu":  # the other ranks have no engine
        needed += (ranks - 1) * memory.trainer
    return Plan(memory, budget_of(shape.context, config), room, ranks, needed)


def require(config: Config, room: Room | None = None) -> Plan:
    """Raises DoesNotFit, with what to write so that it does."""
    shape = shape_in(config)
    plan = make_plan(config, room or Room.here(), shape)
    if not plan.fits:
        largest = sorted(plan.memory.rows(), key=lambda row: -row[1])[:3]
        told = ", ".join(f"{name} {size / GIB:.1f}" for name, size in largest)
        raise DoesNotFit(
            f"This run would need {plan.needed / GIB:.1f} GiB, and there is {plan.room.what} (largest: {told} GiB).",
            f"{remedy(config, plan.room, shape)} All components: crrl plan.",
        )
    return plan


def remedy(config: Config, room: Room, shape: Shape | None = None) -> str:
    """The fewest settings, least costly first, with which it would fit."""
    shape = shape or shape_in(config)
    changed = deepcopy(config)
    written: list[str] = []
    for change in (_smaller_batches, _checkpointing, _smaller_share, _shorter_context, _fewer_at_once, _adapter):
        while not make_plan(changed, room, shape).fits and (word := change(changed, shape)):
            written = [each for each in written if each.partition("=")[0] != word.partition("=")[0]] + [word]
    if make_plan(changed, room, shape).fits:
        return f"Write {' '.join(_needed(config, changed, room, shape, written))}"
    return "No setting makes it fit: take more or larger cards (launch=zero3 launch.processes=N), or a smaller model."


def _smaller_share(config: Config, shape: Shape) -> str:
    share = round(config.engine.memory_share - 0.05, 2)
    if not (config.engine.name == "vllm" and config.engine.share) or share < SMALLEST_SHARE:
        return ""
    config.engine.memory_share = share
    return f"engine.memory_share={share:g}"


def _smaller_batches(config: Config, shape: Shape) -> str:
    tokens = min(config.trainer.tokens_per_micro_batch, budget_of(shape.context, config).tokens) // 2
    if tokens < max(256, min(1024, budget_of(shape.context, config).row)):
        return ""
    config.trainer.tokens_per_micro_batch = tokens
    return f"trainer.tokens_per_micro_batch={tokens}"


def _checkpointing(config: Config, shape: Shape) -> str:
    if config.trainer.gradient_checkpointing:
        return ""
    config.trainer.gradient_checkpointing = True
    return "trainer.gradient_checkpointing=true"


def _shorter_context(config: Config, shape: Shape) -> str:
    row = budget_of(shape.context, config).row // 2
    if row < 1024:
        return ""
    config.engine.context = row
    return f"engine.context={row}"


def _fewer_at_once(config: Config, shape: Shape) -> str:
    if config.rollout.concurrency <= 4:
        return ""
    config.rollout.concurrency //= 2
    return f"rollout.concurrency={config.rollout.concurrency}"


def _adapter(config: Config, shape: Shape) -> str:
    if config.adapter.name == "lora":
        return ""
    config.adapter.name = "lora"
    return "adapter=lora"


def _needed(config: Config, changed: Config, room: Room, shape: Shape, written: list[str]) -> list[str]:
    """Of the settings that were changed, those without which it would not fit."""
    left = list(written)
    for word in written:
        without = deepcopy(changed)
        _set(without, word.partition("=")[0], _value(config, word.partition("=")[0]))
        if make_plan(without, room, shape).fits:
            changed = without
            left.remove(word)
    return left


def _place(config: Config, key: str) -> tuple[object, str]:
    group, _, name = (f"{key}.name" if "." not in key else key).partition(".")
    return getattr(config, group), name


def _value(config: Config, key: str) -> object:
    return getattr(*_place(config, key))


def _set(config: Config, key: str, value: object) -> None:
    setattr(*_place(config, key), value)
