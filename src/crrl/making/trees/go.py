"""Go modules: `go test`. A suite is a package; coverage is `-coverprofile`, package by package."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from crrl.errors import CrrlError
from crrl.making.survey import Survey
from crrl.making.tracing import Trace
from crrl.making.trees import go_trace
from crrl.making.trees.toolchain import REPORT_BYTES, Boxes, ended, surveyed
from crrl.making.trees.traced import Traced
from crrl.rewards.reports import GO_EVENT, Suite, go_json, objects
from crrl.task import Command, TestPlan
from crrl.tasks.setup.environments import GO_MODULES, PLACE

DOWNLOAD = f"HOME=/tmp GOFLAGS=-mod=mod GOMODCACHE={PLACE}/{GO_MODULES} go mod download && chmod -R u+w {PLACE}"
PROFILE = ".crrl/cover.out"
BLOCK = re.compile(r"^(\S+):(\d+)\.\d+,(\d+)\.\d+ \d+ (\d+)$", re.MULTILINE)


class Go(Traced):
    language = "go"
    suffixes = (".go",)

    def __init__(self, tree: Path, arguments: Sequence[str]) -> None:
        super().__init__(tree, arguments)
        try:
            text = (tree / "go.mod").read_text("utf-8", "replace")
        except OSError as error:
            raise CrrlError(
                f"go.mod: {error.strerror}", "Is it a Go module? (GOPATH projects: go mod init NAME)"
            ) from None
        found = re.search(r"^module\s+\"?([^\s\"]+)", text, re.MULTILINE)
        self.module = found[1] if found else ""
        self.requires = re.search(r"^\s*(require\b|[\w.-]+\.[a-z]+/\S+ v\d)", text, re.MULTILINE) is not None
        vendored = (tree / "vendor/modules.txt").is_file()
        self.env = {"GOFLAGS": "-mod=vendor"} if vendored else {}

    def setup(self) -> list[Command]:
        if not self.requires or self.env:
            return []
        return [Command(["sh", "-ec", DOWNLOAD], timeout_s=1800.0)]

    def plan(self, suites: Sequence[str], seconds: float) -> TestPlan:
        limit = 60 + 10 * seconds
        argv = ["go", "test", "-json", "-vet=off", f"-timeout={limit:.0f}s", *suites]
        return TestPlan(Command(argv, env=self.env), "go", [], [], needs=["go"], timeout_s=300 + 3 * limit)

    def files(self, suite: str) -> list[str]:
        folder = self._folder(suite)
        return [path for path in self.paths() if posixpath.dirname(path) == folder and path.endswith("_test.go")]

    def _folder(self, package: str) -> str:
        return package.removeprefix(self.module).strip("/")

    async def survey(self, boxes: Boxes, timeout_s: float) -> Survey:
        suites: list[Suite] = []
        seconds: dict[str, float] = {}
        lines: dict[str, dict[int, set[str]]] = {}
        broken: dict[str, str] = {}
        said = ""
        async with boxes.open({}) as box:
            await boxes.run(box, ["mkdir", "-p", ".crrl"], 60)
            wanted = self.arguments or ["./..."]
            form = "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}"
            listed = await boxes.run(box, ["go", "list", "-e", "-f", form, *wanted], timeout_s, self.env)
            packages = [line for line in listed.output.split() if line.startswith(self.module)]
            if listed.code != 0 or not packages:
                raise CrrlError(
                    f"go list finds no package with tests in {' '.join(wanted)}.\n{listed.output[-800:]}",
                    "Name packages, tests=./PACKAGE/...; what it requires is fetched by go mod download (setup=CMD).",
                )
            for package in packages:
                for whole in (["-coverpkg=./..."], []):  # where a package of the module does not compile: its own
                    covered = ["-covermode=set", *whole, f"-coverprofile={PROFILE}"]
                    argv = ["go", "test", "-json", "-vet=off", *covered, package]
                    result = await boxes.run(box, argv, timeout_s, self.env)
                    ended(result, timeout_s)
                    found = [suite for suite in go_json(result.output) if suite.tests]
                    if found:
                        break
                said += result.output[-2000:]
                if not found:
                    broken[self._folder(package)] = _reason(result.output)
                suites += found
                seconds |= _seconds(result.output)
                try:
                    profile = (await box.read(PROFILE, limit=REPORT_BYTES)).decode("utf-8", "replace")
                except OSError:
                    continue
                for path, first, last, count in BLOCK.findall(profile):
                    if int(count):
                        own = lines.setdefault(self._folder(path), {})
                        for line in range(int(first), int(last) + 1):
                            own.setdefault(line, set()).add(package)
        return surveyed(suites, seconds, lines, said, broken)

    async def traces(
        self, boxes: Boxes, changed: Mapping[str, bytes], suite: str, known: frozenset[str]
    ) -> dict[str, Trace]:
        sources = {path: (self.tree / path).read_bytes() for path in self.sources()}
        results = go_trace.results(sources)
        tests = {path: (self.tree / path).read_bytes() for path in self.files(suite)}
        for arguments in (True, False):  # an untyped constant has no type to be noted by
            made = go_trace.traced(tests, results, self.module, arguments=arguments)
            if made is None:
                return {}
            async with boxes.open({**changed, **made}) as box:
                await boxes.run(box, ["mkdir", "-p", ".crrl"], 60)
                argv = ["go", "test", "-vet=off", "-timeout=120s", "-gcflags=-lang=go1.18", suite]
                result = await boxes.run(box, argv, 600, self.env)
                try:
                    found = (await box.read(go_trace.FILE, limit=REPORT_BYTES)).decode("utf-8", "replace")
                except OSError:
                    if "[build failed]" in result.output:
                        continue
                    return {}
            return go_trace.read(tests, found)
        return {}


def _reason(said: str) -> str:
    """Why a package does not run, in one line: the first that names a place, or else the last."""
    lines = [line for line in said.splitlines() if line and not line.startswith(("{", "#", "FAIL", "ok"))]
    named = [line for line in lines if re.match(r"\S+\.go:\d+", line)]
    return (named or lines[-1:] or ["it reports nothing"])[0].strip()[:160]


def _seconds(report: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for event in objects(report, GO_EVENT):
        if event.get("Test") and event.get("Elapsed") is not None:
            found[f"{event['Package']}::{event['Test']}"] = float(event["Elapsed"])
    return found
