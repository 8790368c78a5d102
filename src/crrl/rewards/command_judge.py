"""`CommandJudge`: runs a task's own test command on a patch, in a fresh box, and reads what it reported.

For everything that is not our own pytest: JUnit, go test, cargo, Catch, jest, the scripts of SWE-bench-like corpora.
A fresh checkout; the patch without what it did to tests and to what steers them; the task's tests put back; builds;
tests. Invariant 3: the supervisor is the box's own PID 1 and this process, outside the reach of what runs; every
expected test must be reported, and its suite must bring its canary (`canaries.py`) home; missing is failed. A box
judges one patch. Invariant 2: a box that is lost raises LostError; what a patch brings about (it does not build, it
never ends, it fills the disk) is a result.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import os
import posixpath
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from crrl.errors import CrrlError, LostError
from crrl.rewards import canaries, control, exploits, parsers, patching, reports, swebench_grading
from crrl.rewards.api import TestResults, TestStatus
from crrl.rewards.decoys import facing
from crrl.rewards.decoys.copies import Copies, protected_tests, tree_files
from crrl.rewards.homes import Homes
from crrl.rewards.tests import solved
from crrl.sandbox.api import Box, ExecResult, Limits, Mount, Sandbox, Spec, Workspace
from crrl.task import Command, Decoys, Task
from crrl.tasks.files import SWEBENCH
from crrl.tasks.setup import toolchains
from crrl.tasks.setup.environments import Environments
from crrl.tasks.setup.setting import setting_of

LIMITS = Limits(memory_bytes=3 << 30, processes=256, disk_bytes=1 << 30, inodes=60_000, tmp_bytes=512 << 20)
OUTPUT_LIMIT = 16 << 20
SHOWN_CHARS = 16 << 10
FILES_S = 60.0
PATHS = 30  # in one command: each is shorter than 4 KiB, a command than 128 KiB
JUDGING = ("command_judge", "control", "exploit_code", "parsers", "reports", "canaries", "homes", "patching",
           "swebench_grading")  # fmt: skip
Files = dict[str, patching.File | None]


class CommandJudge:
    """Judge of tasks whose parser is not `pytest`.

    Args:
        boxes: where commands run; its `prepare` makes the checkout.
        mounts: shown in every box besides the task's toolchains.
        environments: of tasks that have a set-up.
    """

    def __init__(
        self,
        boxes: Sandbox,
        *,
        environments: Environments,
        limits: Limits = LIMITS,
        mounts: tuple[Mount, ...] = (),
    ) -> None:
        self.boxes, self.limits, self.mounts = boxes, limits, mounts
        self._environments = environments
        self._decoys: dict[str, tuple[Decoys, Copies]] = {}
        self._finding: dict[str, asyncio.Lock] = {}

    async def judge(self, task: Task, patch: str, *, everything: bool = False) -> TestResults:
        """The results of the expected tests; with `everything`, of all that reported.

        Raises LostError (our side failed), CrrlError (the task's environment is not available here).
        """
        ground = await self._prepared(task)
        expected: dict[str, TestStatus] = dict.fromkeys(facing.expected(task), "missing")
        try:
            changed = patching.apply(patch, ground.read, ground.rules.covers)
            attempts = exploits.detect(patch, changed, ground.read, ground.rules, _texts(ground.tests))
        except patching.PatchError as error:
            return TestResults(expected, applied=False, reason="patch_refused", output=str(error))
        if everything:
            results = await self._run(ground, patch, changed, ground.tests)
            return replace(results, exploits=[*attempts, *results.exploits])
        run = self._runs(ground, patch, changed)
        ready = await self._calibrated(ground) if self._is_calibrated(task) else None
        results = await run(ready[1].real() if ready is not None and ready[0].parts else {})
        counted = {test: results.tests[test] for test in expected}
        results = replace(results, tests=counted, exploits=[*attempts, *results.exploits])
        if not solved(task, results) or task.solution is None or patch == task.solution:
            return results
        decoys, copies = ready or await self._calibrated(ground)
        return await facing.face(task, decoys, copies, results, run, await self._known_fix(ground))

    async def decoys(self, task: Task) -> Decoys:
        """The task's decoys, measured with its known fix. Raises LostError, CrrlError."""
        return (await self._calibrated(await self._prepared(task)))[0]

    async def _prepared(self, task: Task) -> _Ground:
        available(task)
        toolchains.require(task.test.needs, self._environments.state_dir)
        workspace = await self.boxes.prepare(task.source)
        read = patching.reader(workspace.lower, {})
        tests = await tests_of(task, self.boxes, read)
        return _Ground(task, workspace, read, tests, Rules(task, tests, lambda path: read(path) is not None))

    def _runs(self, ground: _Ground, patch: str, changed: Files) -> facing.Run:
        async def run(changed_tests: Mapping[str, bytes], *, sabotage: bool = False) -> TestResults:
            made = ground.tests | {path: patching.File(data) for path, data in changed_tests.items()}
            results = await self._run(ground, patch, changed, made, sabotage=sabotage)
            silent: dict[str, TestStatus] = dict.fromkeys(facing.expected(ground.task), "missing")
            return replace(results, tests=silent | results.tests)

        return run

    async def _known_fix(self, ground: _Ground) -> facing.Run:
        solution = ground.task.solution or ""
        changed = await asyncio.to_thread(patching.apply, solution, ground.read, ground.rules.covers)
        return self._runs(ground, solution, changed)

    def _is_calibrated(self, task: Task) -> bool:
        return facing.is_current(task.test.decoys) or _key(task) in self._decoys

    async def _calibrated(self, ground: _Ground) -> tuple[Decoys, Copies]:
        """The task's own record, or what is measured now, once a task."""
        key = _key(ground.task)
        async with self._finding.setdefault(key, asyncio.Lock()):
            if key not in self._decoys:
                copies = await asyncio.to_thread(_copies, ground)
                known = ground.task.test.decoys
                if known is None or not facing.is_current(known):
                    known = await facing.calibrate(ground.task, copies, await self._known_fix(ground))
                self._decoys[key] = known, copies
        return self._decoys[key]

    async def _run(
        self, ground: _Ground, patch: str, changed: Files, tests: Files, *, sabotage: bool = False
    ) -> TestResults:
        """One run in a box of its own, `sabotage`: of tests that are made to fail."""
        task, workspace = ground.task, ground.workspace
        name = f"Canary{secrets.token_hex(8)}"
        tests = control.sabotaged(tests, name) if sabotage else tests
        canary, homes = _canary(task, name, tests, workspace.lower)
        setting = await setting_of(task, self._environments)
        shown = (*self.mounts, *setting.mounts)
        box = await self.boxes.start(Spec(root=workspace, mounts=shown, limits=self.limits, judge=True))
        try:
            run = await _Run(box, task, name, setting.env).do(changed, {**tests, **canary})
        finally:
            await box.close()
        reported = _read(task, run, patch, name if canary else "", homes)
        return replace(reported, output=_told(task, run, name), cpu_s=run.cpu_s, wall_s=run.wall_s)


@dataclass(frozen=True)
class _Ground:
    """What a task's patches are judged on: its checkout, the tests put back, and the paths that are not a patch's."""

    task: Task
    workspace: Workspace
    read: patching.Reader
    tests: Files
    rules: Rules


def _key(task: Task) -> str:
    return hashlib.sha256(msgspec.json.encode([task.source, task.test, task.solution])).hexdigest()


def _copies(ground: _Ground) -> Copies:
    rules = ground.rules
    own = {path: file.data for path, file in ground.tests.items() if file is not None and file.link is None}
    expected = facing.expected(ground.task)
    in_tree = protected_tests(rules.is_protected, ground.workspace.lower, expected)
    for path in (rules.test_files | in_tree) - set(ground.tests):
        file = ground.read(path)
        if file is not None and file.link is None:
            own[path] = file.data
    folders = rules.folders if any(path.endswith(".py") for path in own) else ()
    return Copies(tree_files(own, ground.workspace.lower, {}, folders), expected)


def _texts(tests: Files) -> dict[str, str]:
    files = {path: file for path, file in tests.items() if file is not None and file.link is None}
    return {path: file.data.decode("utf-8", "replace") for path, file in files.items()}


def version() -> str:
    """Verdicts compare only under the same one."""
    digest = hashlib.sha256()
    for name in JUDGING:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()[:8]


def available(task: Task) -> None:
    """Raises CrrlError where no judge here can run the task's tests, whatever is installed."""
    if task.test.parser not in parsers.PARSERS and not task.test.parser.startswith(SWEBENCH):
        raise CrrlError(
            f"needs the corpus's own harness: there is no parser {task.test.parser}", "See docs/corpora.md."
        )


class Rules(exploits.Protected):
    """Paths that belong to the judge: the task's tests, and what steers its framework."""

    def __init__(self, task: Task, tests: Mapping[str, object], exists: Callable[[str], bool]) -> None:
        super().__init__(task, exists)
        self.restored |= set(tests)
        self.files = {path for path in task.test.protect if not path.endswith("/")}
        self.below = tuple(path for path in task.test.protect if path.endswith("/"))
        parser = parsers.PARSERS.get(task.test.parser)
        self.guards = parser.guards if parser is not None else None

    def is_protected(self, path: str) -> bool:
        """Named by the task, as a file or a folder above it."""
        return path in self.files or path.startswith(self.below)

    def reason(self, path: str) -> str | None:
        if self.is_protected(path) or path.startswith(".crrl/"):
            return "edited_tests"
        if self.guards is not None and self.guards.search(path):
            return "test_configuration"
        return super().reason(path)


async def tests_of(task: Task, boxes: Sandbox, read: patching.Reader) -> Files:
    """What is put back before the tests run: path -> file, None where it must not exist. Raises CrrlError."""
    files: Files = {}
    for commit in dict.fromkeys(task.test.restore_from.values()):
        wanted = [path for path, at in task.test.restore_from.items() if at == commit]
        lower = (await boxes.prepare(replace(task.source, base_commit=commit, patches=[]), wanted)).lower
        if folders := [path for path in wanted if (lower / path).is_dir()]:
            raise CrrlError(f"Task {task.id}: restore_from names a folder: {folders[0]}", "Name the files below it.")
        files |= {path: patching.read_file(lower, path) for path in wanted}
    try:
        files |= patching.apply(task.test.test_patch, read, lambda path: False) if task.test.test_patch else {}
    except patching.PatchError as error:
        raise CrrlError(
            f"Task {task.id}: its test patch does not apply: {error}", "Is it the right base_commit?"
        ) from None
    return files | {path: patching.File(text.encode()) for path, text in task.test.restore.items()}


def _canary(task: Task, name: str, tests: Files, lower: Path) -> tuple[Files, Homes | None]:
    """Its files, none where the tests have no room for one (`parsers.unmarked`), and which modules tests stand in."""
    graded = task.test.parser.startswith(SWEBENCH) and not parsers.unmarked(task.test)
    parser = parsers.PARSERS.get("pytest-xml" if graded else task.test.parser)
    if parser is None or parser.canary is None:
        return {}, None
    texts = dict(_suites(lower, parser.suites)) if parser.suites is not None else {}
    for path, file in tests.items():
        texts.pop(path, None)
        if file is not None and file.link is None:
            texts[path] = file.data.decode("utf-8", "surrogateescape")
    try:
        made = parser.canary(name, texts)
    except ValueError as error:
        raise CrrlError(
            f"Task {task.id}: {error}.", "Name such files in restore, restore_from or test_patch."
        ) from None
    files: Files = {path: patching.File(text.encode("utf-8", "surrogateescape")) for path, text in made.items()}
    return files, parser.homes(texts, made) if parser.homes is not None else None


@functools.lru_cache(maxsize=8)
def _suites(lower: Path, suites: re.Pattern[str]) -> Mapping[str, str]:
    """Path -> text of the files of a prepared checkout, which does not change."""
    texts = {}
    for folder, _, names in os.walk(lower):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), lower)
            file = patching.read_file(lower, path) if suites.search(path) else None
            if file is not None and file.link is None:
                texts[path] = file.data.decode("utf-8", "surrogateescape")
    return texts


@dataclass
class _Run:
    """One run in one box. `reason` as in TestResults; `report` is what the parser reads."""

    box: Box
    task: Task
    canary: str
    env: dict[str, str]
    reason: str = "complete"
    report: str = ""
    output: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0

    async def do(self, changed: Files, tests: Files) -> _Run:
        plan = self.task.test
        try:
            await self._write(changed)
            await self._write(tests)
        except OSError as error:
            self.reason = "disk" if error.errno == errno.ENOSPC else "patch_refused"
            self.output = f"the patched files cannot be written: {error}"
            return self
        for command in plan.build:
            result = await self._exec(command, command.timeout_s)
            if self.reason == "complete" and result.code != 0:
                self.reason = "build_failed"
            if self.reason != "complete":
                return self
        result = await self._exec(plan.command, plan.timeout_s)
        self.report = result.output
        if plan.report is not None and self.reason == "complete":
            self.report = (await self._exec(plan.report, FILES_S, quiet=True)).output
        if self.reason == "complete" and await self._edited(tests):
            self.reason = "tampered"
        return self

    async def _write(self, files: Files) -> None:
        """Raises OSError where a file cannot be what it should be."""
        await self._on(["rm", "-rf", "--"], [path for path, file in files.items() if file is None])
        # Written anew, so that no symlink of the checkout is followed and no mode is kept.
        await self._on(["rm", "-f", "--"], [path for path, file in files.items() if file is not None])
        links = [(path, file.link) for path, file in files.items() if file is not None and file.link is not None]
        for path, file in files.items():
            if file is not None and file.link is None:
                try:
                    await self.box.write(path, file.data)
                except IsADirectoryError:  # of files that are gone
                    await self._on(["find"], [path], "-depth", "-type", "d", "-empty", "-delete")
                    await self.box.write(path, file.data)
        for path, target in links:
            await self._on(["mkdir", "-p", "--"], [posixpath.dirname(path) or "."])
            if await self._on(["ln", "-sT", "--", target], [path]) != 0:
                raise OSError(errno.EEXIST, f"{patching.shown(path)}: no symlink can be put there")
        await self._on(["chmod", "+x", "--"], [path for path, file in files.items() if file and file.executable])

    async def _on(self, argv: list[str], paths: list[str], *after: str) -> int | None:
        """A command on paths, not too many at a time; the last exit code."""
        code: int | None = 0
        for start in range(0, len(paths), PATHS):
            given = [f"./{path}" for path in paths[start : start + PATHS]]
            result = await self.box.exec([*argv, *given, *after], timeout_s=FILES_S)
            if result.reason == "lost":
                raise LostError("judge_died", f"the box was lost during {argv[0]}")
            code = result.code
        return code

    async def _exec(self, command: Command, timeout_s: float, *, quiet: bool = False) -> ExecResult:
        argv = [word.replace(canaries.CANARY, self.canary) for word in command.argv]
        env = {**self.env, **command.env}
        result = await self.box.exec(argv, cwd=command.cwd, env=env, timeout_s=timeout_s, output_limit=OUTPUT_LIMIT)
        self.cpu_s += result.cpu_s
        self.wall_s += result.wall_s
        if result.reason == "lost":
            raise LostError("judge_died", f"the box was lost while running {' '.join(argv)[:200]}")
        if result.reason != "exit":
            self.reason = result.reason
        if not quiet:
            self.output += result.output
        return result

    async def _edited(self, tests: Files) -> bool:
        """Whether the restored tests are not what they were: builds and tests run patched code in the same box."""
        for path, file in tests.items():
            if file is None or file.link is not None:
                continue
            try:
                if await self.box.read(path, limit=len(file.data) + 1) != file.data:
                    return True
            except OSError:
                return True
        return False


def _told(task: Task, run: _Run, canary: str) -> str:
    """What the run said, as people read it; nothing of the canary."""
    parser = parsers.PARSERS.get(task.test.parser)
    pieces = parser.told(run.output, run.report) if parser is not None else run.output.splitlines()
    text = "\n".join(piece for piece in pieces if canary.lower() not in piece.lower())
    half = SHOWN_CHARS // 2
    return text if len(text) <= SHOWN_CHARS else f"{text[:half]}\n[...]\n{text[-half:]}"


def _read(task: Task, run: _Run, patch: str, canary: str, homes: Homes | None) -> TestResults:
    """What the run is worth: nothing, unless it came to its end and its canary through."""
    if run.reason == "tampered":
        return TestResults({}, reason="tampered", exploits=["edited_tests"])
    if run.reason != "complete":
        return TestResults({}, reason=run.reason, exploits=["filled_disk"] if run.reason == "disk" else [])
    if task.test.parser.startswith(SWEBENCH):
        graded = swebench_grading.grade(task, run.report, patch)
        if not canary or canaries.in_summary(reports.ANSI.sub("", run.report), canary):
            return graded
        forged = ["forged_report"] if solved(task, graded) else []
        return TestResults({}, reason="no_marker", output=graded.output, exploits=forged)
    try:
        suites = list(parsers.PARSERS[task.test.parser].parse(run.report))
    except ValueError:
        return TestResults({}, reason="no_marker")
    whole = canaries.ended(suites, canary, homes) if canary else suites
    own = TestResults(canaries.statuses(whole), reason="complete" if whole else "no_marker")
    # All is well, says a report of suites that did not come to their end.
    made_up = not solved(task, own) and solved(task, TestResults(canaries.statuses(suites)))
    return replace(own, exploits=["forged_report"]) if made_up else own
