"""`launch=ddp|zero3 launch.processes=N`: the same command in N processes, started by `accelerate launch`.

This process only watches: rank 0 of those it starts is the run, the others train with it (`learning/ranks.py`). If one
is killed, the others are ended, and the user is told once. What rank 0 says of its own errors, it says itself.

Invariant: no rank outlives this process, and this process outlives every rank.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from crrl.conf.launch_checks import LAUNCHED
from crrl.conf.schema import Config
from crrl.errors import CrrlError, UsageError

INTERRUPTED = 130
PR_SET_PDEATHSIG = 1
ACCELERATE = "accelerate.yaml"


def configuration(config: Config) -> dict[str, str]:
    """What `accelerate launch` and, under ZeRO-3, DeepSpeed are told: name -> text."""
    told: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        # Of processes on a CPU, too: with `use_cpu` accelerate would start one. DeepSpeed is the trainer's business.
        "distributed_type": "MULTI_GPU",
        "use_cpu": False,
        "num_machines": 1,
        "num_processes": config.launch.processes,
        "main_process_port": 0,
        "mixed_precision": "no",  # the trainer's business, too
    }
    files = {ACCELERATE: yaml.safe_dump(told, sort_keys=False)}
    if config.launch.name == "zero3":
        from crrl.learning.sharding import zero3_of

        files["zero3.json"] = json.dumps(zero3_of(config.trainer), indent=1)
    return files


def require(config: Config) -> None:
    """Raises UsageError: this machine lacks what `launch` asks for."""
    import torch

    if config.launch.name == "zero3" and importlib.util.find_spec("deepspeed") is None:
        raise UsageError(
            "launch=zero3: the package deepspeed is not installed.",
            'In the checkout of CodeRepairRL: .venv/bin/pip install -c constraints.txt -e ".[deepspeed]"',
        )
    asked = config.launch.processes
    if torch.cuda.is_available() and asked > (there := torch.cuda.device_count()):
        raise UsageError(
            f"launch.processes={asked}, and this machine has {there} GPU{'s' if there > 1 else ''}: every process "
            "needs its own.",
            f"Write launch.processes={there}, or launch=local." if there > 1 else "Write launch=local.",
        )


def launch(config: Config, words: Sequence[str]) -> int:
    """Run `crrl WORDS` in `launch.processes` ranks, and return the exit code.

    Raises:
        CrrlError: a rank was killed.
    """
    require(config)
    logging.disable()  # torch's own words about ranks that end would hide ours
    from accelerate.commands import launch as accelerate  # type: ignore[import-untyped]
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    with tempfile.TemporaryDirectory(prefix="crrl-launch-") as folder:
        file = Path(folder, ACCELERATE)
        file.write_text(configuration(config)[ACCELERATE])
        told = ["--config_file", str(file), "--module", "crrl.cli.main", *words]
        _prepare_environment(config)
        try:
            accelerate.launch_command(accelerate.launch_command_parser().parse_args(told))
        except ChildFailedError as error:
            return _failed(config, error.failures)
        except SignalException as error:
            return INTERRUPTED if error.sigval == signal.SIGINT else 128 + error.sigval
    return 0


def _prepare_environment(config: Config) -> None:
    """What ranks inherit."""
    import torch

    os.environ[LAUNCHED] = str(os.getpid())
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # accelerate would say 1, for sampling too
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
        if config.launch.name == "ddp":  # with DeepSpeed it would turn DeepSpeed off
            os.environ["ACCELERATE_USE_CPU"] = "true"


def _failed(config: Config, failures: Mapping[int, Any]) -> int:
    """The exit code, where a rank has said why. Raises CrrlError: a rank was killed, and could say nothing."""
    began = min(failure.timestamp for failure in failures.values())
    # Afterwards the others are ended: by SIGTERM, and by SIGKILL 30 s later.
    first = [failure for failure in failures.values() if failure.timestamp < began + GRACE_S / 2]
    killed = [failure for failure in first if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM]
    told = [failure.exitcode for failure in first if failure.exitcode > 0 and failure.exitcode != LOST]
    if told and not killed:
        return int(told[0])
    one = (killed or [failure for failure in first if failure.exitcode < 0] or first)[0]
    how = f"was killed by {signal.Signals(-one.exitcode).name}" if one.exitcode < 0 else "lost the others"
    raise CrrlError(
        f"Rank {one.local_rank} of {config.launch.processes} {how}; all have ended.",
        f"See whether memory was short (dmesg), then resume: crrl train resume={config.run}",
    )


GRACE_S = 30
LOST = 75
"""Exit code of a rank that ends because another is gone: what there is to say, the other says, or the launcher."""


def as_rank(body: Callable[[], int]) -> int:
    """Runs a rank's part of the command, and returns its exit code: of ranks other than 0 it is 0 where all ended
    together, because rank 0 has said why."""
    from crrl.learning.ranks import Stopped, is_lost

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(os.environ[LAUNCHED]):
        return LOST  # the launcher ended before that
    if int(os.environ["RANK"]):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 is told, and tells
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(LOST))  # and so closes what the run holds
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)  # DeepSpeed calls what torch has renamed
    try:
        return body()
    except Stopped:
        return 0
    except Exception as error:
        if not is_lost(error):
            raise
        return LOST
