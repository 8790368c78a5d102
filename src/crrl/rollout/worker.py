"""The rollout worker: the process with the gateway, the agents, their boxes and the judge.

`python -m crrl.rollout.worker FD`: FD is one end of a pipe to `client.RolloutClient`. When the pipe closes, however the
other process ended, the worker ends too, with all its boxes, and with the run's temporary folder if the run was killed.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from contextlib import AsyncExitStack
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import psutil

from crrl import agents, engines, sandbox
from crrl.engines.api import Engine
from crrl.errors import CrrlError, LostError, RunError
from crrl.gateway import Budget, Gateway, load_renderer
from crrl.rewards import combine
from crrl.rewards.task_judge import TaskJudge
from crrl.rollout.api import Attempt, Episode
from crrl.rollout.client import STACKS
from crrl.rollout.config import RolloutConfig
from crrl.rollout.episode import Parts, run_episode
from crrl.rollout.scheduler import Scheduler

LEAVE_S = 30.0
"""How long episodes, boxes and the judge have to end once nobody is there to want them."""
BEAT_S = 2.0
"""Time between signs of life, which carry the memory of this process and its children."""


class Worker:
    """Receives attempts from the client and sends it episodes. Messages are msgpack lists, the verb first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._peak = 0
        self._run, self._private = os.getppid(), ""

    async def main(self) -> None:
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        threading.Thread(target=self._listen, args=(loop, inbox), daemon=True).start()
        first = await inbox.get()
        if first is None:
            return
        config = msgspec.msgpack.decode(first, type=RolloutConfig)
        async with AsyncExitStack() as closing:
            self._private = config.private
            closing.callback(self._remove_if_killed)
            try:
                engine = engines.connect(config.engine)
                closing.push_async_callback(engine.close)
                parts = await build(config, engine, closing)
            except (CrrlError, LostError) as error:
                remedy = getattr(error, "remedy", "")
                self._send("error", getattr(error, "message", str(error)), remedy)
                return
            scheduler = Scheduler(
                partial(run_episode, parts=parts), config.concurrency, config.tries, self._episode, self._lost_try
            )
            closing.push_async_callback(scheduler.close)
            beat = asyncio.create_task(self._beat())
            closing.callback(beat.cancel)
            self._send("ready")
            serving = asyncio.create_task(self._serve(inbox, scheduler))
            await asyncio.wait({serving, scheduler.failed}, return_when=asyncio.FIRST_COMPLETED)
            serving.cancel()
            if scheduler.failed.done():
                try:
                    scheduler.failed.result()
                except RunError as error:
                    self._send("error", error.message, error.remedy)

    async def _serve(self, inbox: asyncio.Queue[bytes | None], scheduler: Scheduler) -> None:
        while (raw := await inbox.get()) is not None:
            for attempt in msgspec.msgpack.decode(raw, type=list[Attempt]):
                scheduler.add(attempt)

    def _listen(self, loop: asyncio.AbstractEventLoop, inbox: asyncio.Queue[bytes | None]) -> None:
        message: bytes | None = b""
        while message is not None:
            try:
                message = self._connection.recv_bytes()
            except (EOFError, OSError):
                message = None
            loop.call_soon_threadsafe(inbox.put_nowait, message)
        leaving = threading.Timer(LEAVE_S, self._leave)
        leaving.daemon = True
        leaving.start()

    def _leave(self) -> None:
        """Something does not end. Boxes and the judge go with this process."""
        logging.warning("the worker does not end by itself after %.0f s: it is ended", LEAVE_S)
        faulthandler.dump_traceback(all_threads=True)
        self._remove_if_killed()
        os._exit(1)

    def _remove_if_killed(self) -> None:
        """The run's temporary folder: a run that starts another worker, or ends by itself, removes it by itself."""
        if self._private and os.getppid() != self._run:
            shutil.rmtree(self._private, ignore_errors=True)

    def _episode(self, episode: Episode) -> None:
        self._send("episode", episode)

    def _lost_try(self, attempt: Attempt, error: LostError) -> None:
        logging.warning("%s lost: %s", attempt.id, error)
        self._send("lost_try", attempt.id, attempt.task.id, error.cause, error.detail)

    async def _beat(self) -> None:
        while True:
            self._peak = max(self._peak, memory_bytes())
            self._send("beat", self._peak)
            await asyncio.sleep(BEAT_S)

    def _send(self, *message: Any) -> None:
        try:
            self._connection.send_bytes(msgspec.msgpack.encode(message))
        except OSError:
            logging.info("the client is gone")  # `_listen` sees it too, and ends the process


async def build(config: RolloutConfig, engine: Engine, closing: AsyncExitStack) -> Parts:
    """Make the parts of an episode; `closing` closes them. Raises CrrlError, with the remedy."""
    state_dir = Path(config.state_dir)
    boxes = sandbox.make(config.sandbox, state_dir=state_dir, images=config.images, cpus=config.cpus)
    closing.push_async_callback(boxes.close)
    boxes.require_images(config.needed_images)
    judge = TaskJudge(state_dir, boxes, concurrency=config.judges)
    closing.push_async_callback(judge.close)
    gateway = Gateway(engine, load_renderer(Path(config.tokenizer), config.renderer, config.calls))
    await gateway.start()
    closing.push_async_callback(gateway.stop)
    agent = agents.make(config.agent, state_dir)
    closing.push_async_callback(agent.close)
    sockets = closing.enter_context(tempfile.TemporaryDirectory(prefix="crrl-gateway-"))  # mode 0700
    return Parts(
        sandbox=boxes,
        gateway=gateway,
        agent=agent,
        judge=judge,
        weigh=combine(config.reward_weights, config.reward_options, judge.version),
        box_limits=config.limits,
        budget=Budget(tokens=config.agent.tokens, turns=config.agent.turns),
        wall_s=config.agent.wall_s,
        command_s=config.agent.command_s,
        output_chars=config.agent.output_chars,
        sockets=Path(sockets),
    )


def memory_bytes() -> int:
    """Resident memory of this process and its children. Shared pages count once for each."""
    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue  # it has ended
    return total


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client decides when this process ends
    faulthandler.register(STACKS, all_threads=True)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s worker %(levelname)s %(message)s")
    asyncio.run(Worker(Connection(int(sys.argv[1]))).main())
