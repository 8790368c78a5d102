"""`PytestJudge`: runs a task's tests on a patch, in a process that nobody believes.

The host (this file) works out the patched files, leaves out whatever the patch did to tests, configuration
and import machinery, puts the task's own tests on top, and has a warm zygote (`zygote.py`) fork one throw-
away interpreter for them. Invariant 3 (judged elsewhere): the zygote's supervisor stands outside the judged
namespaces; an id without a report is `missing`; a patch that passes every test also faces decoys (`decoys/`),
in an interpreter of their own. Invariant 2: our own failures raise LostError, never a score.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from crrl.errors import CrrlError, LostError
from crrl.rewards import control, exploits, harness, patching
from crrl.rewards.api import TestResults, TestStatus
from crrl.rewards.decoys import beside, copies, facing
from crrl.rewards.decoys.copies import Copies
from crrl.rewards.tests import solved
from crrl.rewards.warm import Zygote
from crrl.sandbox import cgroup, seccomp
from crrl.sandbox.api import Workspace
from crrl.task import Decoys, Source, Task
from crrl.tasks.setup.environments import Environment

ENV = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # what would steer a terminal
OPTIONS = ("-q", "--tb=short", "--color=no", "-p", "no:cacheprovider")
GRACE_S = 10.0  # beyond the run's own limit: after that it is our side that hangs


@dataclass(frozen=True)
class JudgeLimits:
    """What one judged run may use; `cpu_s` beside the task's own wall limit."""

    memory_bytes: int = 1 << 30
    processes: int = 64
    disk_bytes: int = 256 << 20
    inodes: int = 20_000
    tmp_bytes: int = 64 << 20
    file_bytes: int = 128 << 20
    open_files: int = 1024
    cpu_s: int = 600

    def wire(self) -> dict[str, int]:
        return {
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "inodes": self.inodes,
            "tmp_bytes": self.tmp_bytes,
            "data": self.memory_bytes,
            "fsize": self.file_bytes,
            "nproc": self.processes,
            "nofile": self.open_files,
            "cpu": self.cpu_s,
        }


class PytestJudge:
    """Judge of `parser: pytest` tasks. One event loop; runs at the same time are bounded by `concurrency`.

    Args:
        state_dir: where the harness is kept and prepared workspaces lie; readable by the dropped uid.
        prepare: makes a Workspace of a source that is not `files` (`Sandbox.prepare`), under `state_dir`.
        concurrency: judged runs at the same time.
        cgroups: False: a watchdog keeps the memory limit, as where no cgroup can be made.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        prepare: Callable[[Source], Awaitable[Workspace]] | None = None,
        concurrency: int = 2,
        limits: JudgeLimits | None = None,
        cgroups: bool = True,
    ) -> None:
        self._groups = cgroup.find() if cgroups else None
        self.state_dir = Path(state_dir)
        self.limits = limits or JudgeLimits()
        self.harness = harness.build(self.state_dir, seccomp.build(uncounted=self._groups is not None))
        self._prepare = prepare
        self._slots = asyncio.Semaphore(concurrency)
        self._zygote: Zygote | None = None
        self._starting = asyncio.Lock()
        self._verdicts: dict[str, TestResults] = {}
        self._running: dict[str, asyncio.Task[TestResults]] = {}
        self._decoys: dict[str, tuple[Decoys, Copies]] = {}
        self._finding: dict[str, asyncio.Lock] = {}

    @property
    def version(self) -> str:
        """The harness version: verdicts compare only under the same one."""
        return f"{self.harness.version}-{facing.version()}"

    async def run(self, task: Task, patch: str) -> TestResults:
        """The results of the task's tests on `patch`. Raises LostError where our side failed.

        Equal (task, patch) pairs are judged once; runs that are lost are not remembered.
        """
        return (await self.run_cached(task, patch))[0]

    async def run_cached(self, task: Task, patch: str) -> tuple[TestResults, bool]:
        """`run`, and whether the verdict was known already (its CPU was spent by another run)."""
        key = self._key(task, patch)
        if key in self._verdicts:
            return self._verdicts[key], True
        running = self._running.get(key)
        known = running is not None
        if running is None:
            running = asyncio.create_task(self._judge(task, patch))
            self._running[key] = running
            running.add_done_callback(lambda done: self._remember(key, done))
        return await asyncio.shield(running), known

    async def run_anew(self, task: Task, patch: str) -> TestResults:
        """`run`, but what is remembered is neither asked nor changed: for telling flaky tests."""
        return await self._judge(task, patch)

    async def close(self) -> None:
        for running in list(self._running.values()):
            running.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        if self._zygote is not None:
            await self._zygote.close()
            self._zygote = None

    def _key(self, task: Task, patch: str) -> str:
        content = msgspec.to_builtins([task.source, task.test, task.setup, patch, self.version])
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()  # surrogates are escaped

    def _remember(self, key: str, done: asyncio.Task[TestResults]) -> None:
        self._running.pop(key, None)
        if not done.cancelled() and done.exception() is None:
            self._verdicts[key] = done.result()

    async def _judge(self, task: Task, patch: str) -> TestResults:
        if task.test.parser != "pytest":
            raise CrrlError(f"Task {task.id}: this judge runs parser 'pytest', not '{task.test.parser}'.")
        tests: dict[str, TestStatus] = dict.fromkeys(facing.expected(task), "missing")
        lower, read = await self._base(task)
        environment = await self.environment(task)
        rules = exploits.Protected(task, lambda path: read(path) is not None)
        try:
            changed = await asyncio.to_thread(patching.apply, patch, read, rules.covers)
            attempts = exploits.detect(patch, changed, read, rules, task.test.restore)
        except patching.PatchError as error:
            return TestResults(tests, applied=False, reason="patch_refused", output=str(error))
        ground = _Ground(task, lower, changed, environment)
        if (plain := beside.plain_files(task)) is not None:
            async with self._slots:
                return await self._run_beside(ground, plain, tests, attempts, known=patch == task.solution)
        async with self._slots:
            ready = await self._calibrated(ground, read, rules) if self._is_calibrated(task) else None
            real = ready[1].real() if ready is not None and ready[0].parts else {}
            results = _results(tests, attempts, await self._ask(self._request(ground, real)))
            if not solved(task, results) or task.solution is None or patch == task.solution:
                return results
            decoys, found = ready or await self._calibrated(ground, read, rules)
            fix = await self._known_fix(ground, read, rules)
            return await facing.face(task, decoys, found, results, self._runs(ground, tests), fix)

    async def decoys(self, task: Task) -> Decoys:
        """The task's decoys, measured with its known fix. Raises LostError, CrrlError."""
        if task.solution is None:
            return Decoys(facing.version(), reason="there is no known fix to measure them with")
        if beside.plain_files(task) is not None:
            return Decoys(facing.version(), beside=True)
        lower, read = await self._base(task)
        rules = exploits.Protected(task, lambda path: read(path) is not None)
        ground = _Ground(task, lower, {}, await self.environment(task))
        async with self._slots:
            return (await self._calibrated(ground, read, rules))[0]

    async def _run_beside(
        self,
        ground: _Ground,
        plain: dict[str, beside.Plain],
        tests: dict[str, TestStatus],
        attempts: list[str],
        *,
        known: bool,
    ) -> TestResults:
        """`known`: it is the known fix, which nobody doubts."""
        results = TestResults(tests, exploits=attempts)
        run, runs = 0, 1
        while run < runs:
            drawn = beside.draw(ground.task, plain)
            run, runs = run + 1, 1 if known else drawn.runs
            texts = {path: text.encode("utf-8", "surrogateescape") for path, text in drawn.texts.items()}
            request = self._request(ground, texts)
            request["argv"].insert(len(OPTIONS), "--tb=line")  # most of them fail, and a line is all that is shown
            reply = await self._ask(request)
            statuses, believed = drawn.statuses(dict(reply.get("tests", ())))
            found = _results(tests, attempts, {**reply, "tests": statuses, "output": drawn.shown(reply["output"])})
            results = replace(found, cpu_s=results.cpu_s + found.cpu_s, wall_s=results.wall_s + found.wall_s)
            if believed:
                return facing.convicted(results)
            if not solved(ground.task, results):
                break
        return results

    def _is_calibrated(self, task: Task) -> bool:
        return facing.is_current(task.test.decoys) or self._key(task, task.solution or "") in self._decoys

    async def _calibrated(
        self, ground: _Ground, read: patching.Reader, rules: exploits.Protected
    ) -> tuple[Decoys, Copies]:
        """The task's own record, or what is measured now, once a task."""
        task = ground.task
        key = self._key(task, task.solution or "")
        async with self._finding.setdefault(key, asyncio.Lock()):
            if key not in self._decoys:
                found = await self._copies(task, ground.lower, rules)
                known = task.test.decoys
                if known is None or not facing.is_current(known):
                    known = await facing.calibrate(task, found, await self._known_fix(ground, read, rules))
                self._decoys[key] = known, found
        return self._decoys[key]

    async def _known_fix(self, ground: _Ground, read: patching.Reader, rules: exploits.Protected) -> facing.Run:
        task = ground.task
        changed = await asyncio.to_thread(patching.apply, task.solution or "", read, rules.covers)
        return self._runs(replace(ground, changed=changed), dict.fromkeys(facing.expected(task), "missing"))

    async def _copies(self, task: Task, lower: Path | None, rules: exploits.Protected) -> Copies:
        texts = task.source.files or {}
        own = {path: text.encode("utf-8", "surrogateescape") for path, text in task.test.restore.items()}
        for path in rules.test_files - set(own):
            if path in texts:
                own[path] = texts[path].encode("utf-8", "surrogateescape")
            elif lower is not None and (file := patching.read_file(lower, path)) is not None and file.link is None:
                own[path] = file.data
        found = await asyncio.to_thread(copies.tree_files, own, lower, texts, rules.folders)
        return await asyncio.to_thread(Copies, found, facing.expected(task))

    def _runs(self, ground: _Ground, tests: dict[str, TestStatus]) -> facing.Run:
        async def run(changed: Mapping[str, bytes], *, sabotage: bool = False) -> TestResults:
            if sabotage:
                texts = {
                    path: patching.File(text.encode("utf-8", "surrogateescape"))
                    for path, text in ground.task.test.restore.items()
                }
                made = control.sabotaged(texts, f"Control{secrets.token_hex(8)}")
                changed = {path: file.data for path, file in made.items() if file is not None}
            reply = await self._ask(self._request(ground, changed))
            reported: dict[str, TestStatus] = dict.fromkeys((test for test, _ in reply.get("tests", ())), "missing")
            return _results(tests | reported, [], reply)

        return run

    async def _base(self, task: Task) -> tuple[Path | None, patching.Reader]:
        if task.source.files is not None:
            return None, patching.reader(None, task.source.files)
        if self._prepare is None:
            raise CrrlError(f"Task {task.id}: judging a {task.source} needs a sandbox to prepare it.")
        lower = (await self._prepare(task.source)).lower
        return lower, patching.reader(lower, {})

    async def environment(self, task: Task) -> Environment | None:
        """What the task's set-up built. Raises CrrlError."""
        if task.setup:
            raise CrrlError(f"Task {task.id}: a task with a set-up is judged by TaskJudge.")
        return None

    def _request(self, ground: _Ground, tests: Mapping[str, bytes]) -> dict[str, Any]:
        """What the run needs to know: files, arguments, limits; never the solution. `tests`: in place of the
        task's own."""
        task, lower, environment = ground.task, ground.lower, ground.environment
        files: dict[str, dict[str, Any] | None] = {}
        for path, text in (task.source.files or {}).items():
            files[path] = {"text": text}
        for path, file in ground.changed.items():
            files[path] = _entry(file)
        for path, text in task.test.restore.items():  # bytes that are not UTF-8 come as surrogates
            files[path] = _entry(patching.File(text.encode("utf-8", "surrogateescape")))
        files |= {path: {"hex": data.hex()} for path, data in tests.items()}
        if lower is None:
            files = {path: entry for path, entry in files.items() if entry is not None}
        command = task.test.command
        return {
            "files": files,
            "lower": str(lower.relative_to(self.state_dir)) if lower is not None else None,
            "environment": str(environment.path.relative_to(self.state_dir)) if environment is not None else None,
            "sites": environment.sites if environment is not None else [],
            "argv": [*OPTIONS, *command.argv],
            "cwd": command.cwd,
            "env": ENV | (environment.variables if environment is not None else {}) | command.env,
            "timeout_s": task.test.timeout_s,
            "limits": self.limits.wire() | {"cpu": min(self.limits.cpu_s, task.test.cpu_s)},
        }

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        for last in (False, True):  # a zygote that died before this run is not this run's loss
            zygote = await self._warm()
            try:
                async with asyncio.timeout(request["timeout_s"] + GRACE_S):
                    reply = await zygote.run(request, self._groups)
            except (TimeoutError, OSError, EOFError) as error:
                await self._drop(zygote)
                if last or isinstance(error, TimeoutError):
                    raise LostError("judge_died", f"{type(error).__name__}: {error}") from error
                continue
            if "lost" in reply:
                raise LostError("judge_died", reply["lost"])
            return reply
        raise AssertionError("unreachable")

    async def _warm(self) -> Zygote:
        async with self._starting:
            if self._zygote is None or not self._zygote.alive:
                self._zygote = await Zygote.start(self.harness, self.state_dir)
            return self._zygote

    async def _drop(self, zygote: Zygote) -> None:
        if self._zygote is zygote:
            self._zygote = None
        await zygote.close()


@dataclass(frozen=True)
class _Ground:
    """What one patch is judged on: the task, its checkout (None: `files`), the patched files, the environment."""

    task: Task
    lower: Path | None
    changed: dict[str, patching.File | None]
    environment: Environment | None


def _entry(file: patching.File | None) -> dict[str, Any] | None:
    if file is None:
        return None
    if file.link is not None:
        return {"link": file.link}
    return {"hex": file.data.hex(), "exec": file.executable}


def _results(tests: dict[str, TestStatus], attempts: list[str], reply: dict[str, Any]) -> TestResults:
    """A reply counts for the expected ids only, and only where the run ended with its marker."""
    found = dict(reply.get("tests", ())) if reply["reason"] == "complete" else {}
    statuses = {"passed", "failed", "error", "skipped"}
    tests = {name: found[name] if found.get(name) in statuses else "missing" for name in tests}
    said = CONTROL.sub("?", reply["output"])
    results = TestResults(tests, exploits=[*attempts, *reply.get("exploits", ())], reason=reply["reason"], output=said)
    return replace(results, cpu_s=reply["cpu_s"], wall_s=reply["wall_s"])
