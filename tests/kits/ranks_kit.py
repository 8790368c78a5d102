"""Bodies that run in several processes, joined as `crrl train` joins its ranks, without the launcher."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["learning_kit"])  # torch and trl are imported once
LIMIT_S = 500.0


def on_ranks(body: Callable[..., Any], size: int, *args: Any, deepspeed: bool = False) -> list[Any]:
    """What `body(ranks, *args)` returns on each rank; an exception that it raises is returned."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes, processes = [], []
    for rank in range(size):
        ours, theirs = CONTEXT.Pipe()
        told = {
            **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            "DS_ACCELERATOR": "cpu",
            **{
                "CRRL_LAUNCHED": str(os.getpid()),
                "OMP_NUM_THREADS": "1",
                **({} if deepspeed else {"ACCELERATE_USE_CPU": "true"}),
            },
        }
        process = CONTEXT.Process(target=_run, args=(theirs, told, body, args), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        return [_result(pipe, process, rank) for rank, (pipe, process) in enumerate(zip(pipes, processes, strict=True))]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _result(pipe: Connection, process: Any, rank: int) -> Any:
    if not wait([pipe, process.sentinel], LIMIT_S):
        raise AssertionError(f"rank {rank} does not end")
    try:
        return pipe.recv()
    except EOFError:
        process.join(10)
        return process.exitcode


def _run(pipe: Connection, env: dict[str, str], body: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(env)
    from crrl.learning.ranks import Ranks

    try:
        result = body(Ranks.joined(), *args)
    except BaseException as error:
        traceback.print_exc()
        result = error
    try:
        pipe.send(result)
    except Exception:  # an error that cannot be pickled
        pipe.send(RuntimeError(repr(result)))
    pipe.close()
    os._exit(0)
