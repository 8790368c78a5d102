"""`TaskJudge`: judges any task. pytest tasks in the warm judge, functions to classify by their answer alone
(`label_judge.py`), code that no test covers by comparison (`likeness_judge.py`), all others by their own command in a
box."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from crrl.errors import CrrlError
from crrl.rewards import command_judge, label_judge, likeness_judge, patching
from crrl.rewards.api import TestResults
from crrl.rewards.command_judge import CommandJudge
from crrl.rewards.harness import NEEDS
from crrl.rewards.judge import JudgeLimits, PytestJudge
from crrl.sandbox.api import Mount, Sandbox, Spec
from crrl.sandbox.availability import PYTHON
from crrl.task import Command, Decoys, Task
from crrl.tasks.files import LIKENESS
from crrl.tasks.setup import interpreters, toolchains
from crrl.tasks.setup.environments import Environment, Environments
from crrl.tasks.setup.setting import setting_of

SITE = "/harness/site"
COLLECT = f"""import importlib.machinery, sys
sys.path.insert(1, {SITE!r})
import pytest
sys.path.append(sys.path.pop(1))
for name in {NEEDS!r}:
    found = importlib.machinery.PathFinder.find_spec(name)
    if found is not None and not (found.origin or "").startswith({SITE!r}):
        for loaded in [key for key in sys.modules if key.partition(".")[0] == name]:
            del sys.modules[loaded]
sys.exit(pytest.main())
"""
"""`python -m pytest` by the judge's own, whose needs stand back for the project: it may be one of them."""


class TaskJudge(PytestJudge):
    """A PytestJudge that passes other tasks on. Memory, slots and version are shared.

    Args:
        boxes: the sandbox that prepares checkouts and runs test commands.
        network: whether the set-up of a repository may use it. Judged runs never do.
    """

    def __init__(
        self,
        state_dir: Path,
        boxes: Sandbox,
        *,
        concurrency: int = 2,
        limits: JudgeLimits | None = None,
        network: bool = True,
    ) -> None:
        super().__init__(state_dir, prepare=boxes.prepare, concurrency=concurrency, limits=limits)
        self._boxes = boxes
        self.environments = Environments(state_dir, boxes.prepare, network=network)
        site = Mount(self.harness.path / "site", SITE)
        self._commands = CommandJudge(boxes, mounts=(site,), environments=self.environments)

    async def environment(self, task: Task) -> Environment | None:
        return await self.environments.of(task)

    @property
    def version(self) -> str:
        return f"{super().version}-{command_judge.version()}{label_judge.version()}"

    async def try_box(self, task: Task) -> None:
        """Start the box that an agent would work in, and take its patch. Raises CrrlError, LostError: it cannot be."""
        workspace = await self._boxes.prepare(task.source)
        setting = await setting_of(task, self.environments)
        box = await self._boxes.start(Spec(workspace, setting.mounts, env=setting.env))
        try:
            result = await box.exec(["true"])
            if result.code != 0:
                raise CrrlError(f"its box runs no command: {result.reason}: {result.output[-300:].strip()}")
            if patch := await box.patch():
                raise CrrlError(f"a box in which nothing was done has a patch: {patch[:200]}")
        finally:
            await box.close()

    async def test_ids(self, task: Task) -> list[str]:
        """The tests that there are when the known fix is in.

        Raises ValueError where none reports, CrrlError where they cannot be run here.
        """
        if task.test.parser == "pytest":
            options = ["--collect-only", "-q", "-p", "no:cacheprovider"]
            argv = ["python3", "-c", COLLECT, *options, *task.test.command.argv]
            alone = {} if task.setup else {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # as where they run
            env = {**alone, **task.test.command.env}
            collect = Command(argv, cwd=task.test.command.cwd, env=env)
            task = replace(task, test=replace(task.test, command=collect, parser="pytest-ids"))
        async with self._slots:
            results = await self._commands.judge(task, task.solution or "", everything=True)
        if not results.tests:
            said = results.output[-300:].strip()
            raise ValueError(f"no test reports, even with the known fix ({results.reason}): {said}")
        return list(results.tests)

    async def decoys(self, task: Task) -> Decoys:
        if task.test.parser != "pytest":
            async with self._slots:
                return await self._commands.decoys(task)
        return await super().decoys(await self._settled(task))

    async def _judge(self, task: Task, patch: str) -> TestResults:
        if task.test.label is not None:
            return await asyncio.to_thread(label_judge.judge, task, patch)
        if task.test.parser == LIKENESS:
            return await asyncio.to_thread(likeness_judge.judge, task, patch)
        if task.test.parser != "pytest":
            async with self._slots:
                return await self._commands.judge(task, patch)
        if task.source.image is not None:
            remedy = "Give it a command that runs in the image, and the parser of what that prints."
            raise CrrlError(f"Task {task.id}: the warm judge runs no images.", remedy)
        toolchains.require(task.test.needs, self.state_dir)
        if not interpreters.is_system(task.test.needs, self.state_dir):
            remedy = "Give it a command, `python3 -m pytest --junitxml ...`, and the parser pytest-xml."
            raise CrrlError(f"Task {task.id}: the warm judge runs {PYTHON} alone.", remedy)
        return await super()._judge(await self._settled(task), patch)

    async def _settled(self, task: Task) -> Task:
        """A pytest task whose tests are all texts, as the warm judge wants them: bytes that are not UTF-8 as
        surrogates.
        Raises CrrlError."""
        if not task.test.test_patch and not task.test.restore_from:
            return task
        read = patching.reader((await self._boxes.prepare(task.source)).lower, {})
        texts: dict[str, str] = {}
        for path, file in (await command_judge.tests_of(task, self._boxes, read)).items():
            texts |= {path: file.data.decode("utf-8", "surrogateescape")} if file is not None else {}
        return replace(task, test=replace(task.test, restore=texts, test_patch="", restore_from={}))
