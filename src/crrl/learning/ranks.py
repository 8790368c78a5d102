"""The processes that train together ("ranks"), and how they stay together.

Rank 0 holds the run: journal, rollouts, engine. The others train, and wait for it meanwhile: for hours, while agents
work. So whatever rank 0 tells them goes over a group of its own, on the CPU, whose timeout is days; the default group,
which carries gradients, has a short one. Rank 0's errors travel as `Stop`, and end the others without a word: one
failure, one message. A rank that dies is noticed by whoever waits for it, and by the launcher (`run/launch.py`).

Invariant: what rank 0 sends, every other rank receives, in the same order; between two messages all ranks do the same
collective work.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from crrl.conf.launch_checks import LAUNCHED
from crrl.errors import CrrlError

T = TypeVar("T")
PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Stop:
    """Sent instead of what a rank waits for: rank 0 has failed, or was interrupted."""


class Stopped(Exception):
    """Rank 0 stopped, or all ranks did at once; it tells why."""


class Ranks:
    """`rank` of `size`. One process alone needs no group, and everything here costs nothing."""

    def __init__(self, rank: int = 0, size: int = 1, control: dist.ProcessGroup | None = None) -> None:
        self.rank, self.size, self._control = rank, size, control
        self.main = rank == 0

    @classmethod
    def joined(cls) -> Ranks:
        """Of a process that was launched: joins the others. A process that was not is alone."""
        if LAUNCHED not in os.environ:
            return cls()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")  # accelerate takes it as it is
        return cls(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=PATIENCE))

    def share(self, value: Any = None) -> Any:
        """What rank 0 gives, on all ranks. Raises Stopped."""
        return self.scatter([value] * self.size if self.main else None)

    def scatter(self, parts: Sequence[T] | None = None) -> T:
        """One of rank 0's `parts` for each rank. Raises Stopped."""
        if self.size == 1:
            assert parts is not None
            return parts[0]
        got: list[Any] = [None]
        dist.scatter_object_list(got, None if parts is None else list(parts), src=0, group=self._control)
        if isinstance(got[0], Stop) and not self.main:
            raise Stopped
        found: T = got[0]
        return found

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """What rank 0 does while the others wait for a message: if it fails, they get `Stop`."""
        try:
            yield
        except BaseException:
            if self.main and self.size > 1:
                with suppress(RuntimeError):  # one of them is gone
                    self.scatter([Stop()] * self.size)
            raise

    def all_ok(self, ok: bool) -> bool:
        """Whether all ranks say so. They call it together."""
        if self.size == 1:
            return ok
        said = torch.tensor([int(ok)])
        dist.all_reduce(said, dist.ReduceOp.MIN, group=self._control)
        return bool(said.item())

    def together(self, error: CrrlError | None) -> None:
        """All ranks did the same, and `error` is what this one met: one of them is raised on rank 0, if there is any.
        Raises CrrlError; on other ranks Stopped."""
        met = [error]
        if self.size > 1:
            met = [None] * self.size
            dist.all_gather_object(met, error and (error.message, error.remedy), group=self._control)
            met = [found and CrrlError(*found) for found in met]  # type: ignore[misc]
        if first := error or next((found for found in met if found), None):
            raise first if self.main else Stopped

    def sum(self, values: Sequence[float]) -> list[float]:
        """Added up over the ranks, which call it together. NaN stays NaN."""
        if self.size == 1:
            return list(values)
        added = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(added, group=self._control)
        found: list[float] = added.tolist()
        return found


ALONE = Ranks()


def is_lost(error: BaseException) -> bool:
    """Whether it says that another rank is gone. torch has no type for it under gloo."""
    lost = (dist.DistBackendError, dist.DistNetworkError)
    return isinstance(error, lost) or (
        isinstance(error, RuntimeError)
        and any(word in str(error) for word in ("gloo/", "Connection closed by peer", "Connection reset by peer"))
    )
