"""Java projects: javac over code and tests, JUnit 4 and 5. A suite is a class; it covers the classes that it loads.

Maven, Gradle and Ant are not run: jars that the project needs come from its set-up (`/environment/lib`). An issue is
told from what an assertion says of both its sides (`asserted.py`).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from xml.etree.ElementTree import Element

from crrl.errors import CrrlError
from crrl.making.commits import TESTS
from crrl.making.survey import Survey
from crrl.making.trees.asserted import Asserted, Failure, compared_at
from crrl.making.trees.toolchain import REPORT_BYTES, Boxes, ended, surveyed
from crrl.rewards.reports import Suite, cases, junit_xml
from crrl.sandbox.api import Box
from crrl.task import Command, TestPlan
from crrl.tasks.setup.toolchains import JUNIT

LAYOUTS = (("src/main/java", "src/test/java"), ("src/java", "src/test"), ("src", "test"), ("src", "tests"))
RESOURCES = ("src/main/resources", "src/test/resources")
CLASSES, REPORTS, LOADED = ".crrl/classes", ".crrl/reports", ".crrl/loaded.txt"
CLASS = re.compile(rf"\] ([\w.$]+) source: file:\S*/{re.escape(CLASSES)}/", re.ASCII)
ERROR = re.compile(r"^(\S+\.java):\d+: error: (.*)", re.MULTILINE)
REPORT = f"cat {REPORTS}/TEST-*.xml"
CONSOLE = (
    f"java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp {CLASSES}:{JUNIT}:$CLASSPATH "
    f"org.junit.platform.console.ConsoleLauncher --disable-banner --details=none --reports-dir={REPORTS}"
)
EQUALITY = re.compile(r"(?:.* ==> |.* )?expected: ?<(.*)> but was: ?<(.*)>", re.DOTALL)
PARTS = re.compile(r"array|iterable|differ", re.IGNORECASE)  # of what is compared, not the whole
JARS = (
    "Say what fetches the jars it needs, setup='mvn -q dependency:copy-dependencies "
    "-DoutputDirectory=/environment/lib', or name the folder of one module."
)


class Java(Asserted):
    language = "java"
    suffixes = (".java",)

    def __init__(self, tree: Path, arguments: Sequence[str]) -> None:
        super().__init__(tree, arguments)
        found = [pair for pair in LAYOUTS if all((tree / folder).is_dir() for folder in pair)]
        self.folders = found[0] if found else (".",)
        self.left_out: dict[str, str] = {}

    def setup(self) -> list[Command]:
        """What a build tool would fetch, only the user can say."""
        return []

    def paths(self) -> list[str]:
        under = [PurePath(folder) for folder in self.folders]
        return [path for path in super().paths() if any(PurePath(path).is_relative_to(folder) for folder in under)]

    def sources(self) -> list[str]:
        return [path for path in super().sources() if not path.startswith(f"{self.folders[-1]}/")]

    def _build(self, *more: str) -> str:
        """With the files `more`, and what the code finds on its class path."""
        start = "./" if self.folders == (".",) else ""
        aside = " ".join(f"! -path {shlex.quote(start + path)}" for path in self.left_out)
        named = f"-name '*.java' ! -name module-info.java ! -path './.crrl/*' {aside}"
        sources = f"$(find {shlex.join(self.folders)} {named.strip()})"
        javac = f"javac -nowarn -proc:none -encoding UTF-8 -d {CLASSES} -cp {JUNIT}:$CLASSPATH {sources}"
        copied = [f"cp -r {folder}/. {CLASSES}" for folder in RESOURCES if (self.tree / folder).is_dir()]
        return " && ".join([f"mkdir -p {CLASSES}", " ".join([javac, *more]), *copied])

    def _run(self, suites: Sequence[str], cpu_s: float, *more: str) -> list[str]:
        """These classes, with those nested in them; all there are where none is named."""
        classes = [f"--select-class={name}" for name in dict.fromkeys(suite.partition("$")[0] for suite in suites)]
        chosen = [*classes, *more] if classes else [f"--scan-class-path={CLASSES}", "--include-classname=.*"]
        return ["sh", "-c", f"exec prlimit --cpu={cpu_s:.0f} {CONSOLE} {shlex.join(chosen)}"]

    def plan(self, suites: Sequence[str], seconds: float) -> TestPlan:
        whole = self.folders == (".",)
        canary = "--select-class=CRRL_CANARY"
        return TestPlan(
            Command(self._run(suites, 60 + 10 * seconds, canary)),
            "junit",
            [],
            [],
            needs=["junit"],
            build=[Command(["sh", "-c", self._build(*([] if whole else ["CRRL_CANARY.java"]))], timeout_s=600.0)],
            report=Command(["sh", "-c", REPORT]),
            protect=[path for path in self.paths() if TESTS.search(path)] if whole else [f"{self.folders[-1]}/"],
            timeout_s=600 + 20 * seconds,
        )

    def files(self, suite: str) -> list[str]:
        """Where the package says; or the only file of that name: javac does not mind folders."""
        name = PurePath(suite.partition("$")[0].replace(".", "/") + ".java")
        named = [path for path in self.paths() if PurePath(path).name == name.name]
        placed = [path for path in named if f"/{path}".endswith(f"/{name}")]
        return placed[:1] or (named if len(named) == 1 else [])

    async def survey(self, boxes: Boxes, timeout_s: float) -> Survey:
        async with boxes.open({}) as box:
            await self._built(boxes, box, timeout_s)
            result = await boxes.run(box, self._run(self.arguments, timeout_s), timeout_s)
            ended(result, timeout_s)
            report = await self._report(box)
            suites = dict.fromkeys(str(case.get("classname")) for case in cases(report)) if report else {}
            lines = await self._loaded(boxes, box, list(suites), timeout_s)
        found: dict[str, Suite] = {}
        for test, status in (pair for suite in junit_xml(report) for pair in suite.tests) if report else ():
            name, _, own = test.partition("::")
            found.setdefault(name, Suite(name)).tests.append((own, status))
        broken = {name: "no file is called like the class" for name in found if not self.files(name)}
        seconds = {f"{case.get('classname')}::{case.get('name')}": _time(case) for case in cases(report or "<none/>")}
        here = [suite for name, suite in found.items() if name not in broken]
        return surveyed(here, seconds, lines, result.output, {**broken, **self.left_out})

    async def _built(self, boxes: Boxes, box: Box, timeout_s: float) -> None:
        """Without the test files that javac cannot compile, and those that need them: they lack a package, as a rule.
        Raises CrrlError where code cannot be compiled."""
        while (built := await boxes.run(box, ["sh", "-c", self._build()], timeout_s)).code != 0:
            wrong = {path.removeprefix("./"): why for path, why in reversed(ERROR.findall(built.output))}
            tests = {path: why for path, why in wrong.items() if self._is_test(path) and path not in self.left_out}
            if not tests or len(tests) < len(wrong):
                said = [line for line in built.output.splitlines() if ": error:" in line]
                raise CrrlError(f"javac cannot build it: {said[0] if said else built.output[-500:]}", JARS)
            self.left_out |= tests

    def _is_test(self, path: str) -> bool:
        inside = self.folders != (".",) and path.startswith(f"{self.folders[-1]}/")
        return inside or TESTS.search(path) is not None

    def leave_out(self, broken: Mapping[str, str]) -> None:
        self.left_out = {path: why for path, why in broken.items() if path.endswith(".java")}

    async def _loaded(
        self, boxes: Boxes, box: Box, suites: Sequence[str], timeout_s: float
    ) -> dict[str, dict[int, set[str]]]:
        """Path -> 0, for all of it -> the suites that load a class of it: each in a machine of its own."""
        found: dict[str, dict[int, set[str]]] = {}
        for top in dict.fromkeys(suite.partition("$")[0] for suite in suites):
            env = {"JAVA_TOOL_OPTIONS": f"-Xlog:class+load=info:file={LOADED}"}
            await boxes.run(box, self._run([top], timeout_s), timeout_s, env)
            try:
                text = (await box.read(LOADED, limit=REPORT_BYTES)).decode("utf-8", "replace")
            except OSError:
                continue
            own = {suite for suite in suites if suite.partition("$")[0] == top}
            for name in dict.fromkeys(name.partition("$")[0] for name in CLASS.findall(text)):
                for path in self.files(name):
                    found.setdefault(path, {}).setdefault(0, set()).update(own)
        return found

    async def _report(self, box: Box) -> str:
        """All of it; "" where none was written."""
        result = await box.exec(["sh", "-c", REPORT], output_limit=REPORT_BYTES)
        return result.output if result.code == 0 else ""

    async def failures(self, boxes: Boxes, changed: Mapping[str, bytes], suite: str) -> list[Failure]:
        async with boxes.open(changed) as box:
            if (await boxes.run(box, ["sh", "-c", self._build()], 600)).code != 0:
                return []
            await boxes.run(box, self._run([suite], 300), 600)
            report = await self._report(box)
        (path,) = self.files(suite)
        data = (self.tree / path).read_bytes()
        return list(_failures(path, data, report)) if report else []


def _failures(path: str, data: bytes, report: str) -> Iterator[Failure]:
    frame = re.compile(rf"\({re.escape(PurePath(path).name)}:(\d+)\)")
    for case in cases(report):
        for said in case.iter("failure"):
            if place := frame.search(said.text or ""):
                line = int(place[1])
                if values := _values(said, path, data, line):
                    yield Failure(path, line, values)


def _values(said: Element, path: str, data: bytes, line: int) -> tuple[str, str] | None:
    """What was expected and what came. JUnit 4 marks with brackets where texts differ, and may leave out what is equal:
    then nothing can be told."""
    sides, message = compared_at(path, data, line), said.get("message") or ""
    if sides is None:
        return None
    if len(sides) == 1:
        wrong = b"assertFalse" in data.splitlines()[line - 1]
        return ("false", "true") if wrong else ("true", "false")
    found = EQUALITY.fullmatch(message)
    if found is None or PARTS.search(message[: found.start(1)]):
        return None
    values = [found[1], found[2]]
    if (said.get("type") or "").endswith("ComparisonFailure"):
        if any("..." in value for value in values):
            return None
        values = [re.sub(r"\[(.*)\]", r"\1", value, count=1, flags=re.DOTALL) for value in values]
    if any(side[0].type == "string_literal" for side in sides):
        values = [value if value == "null" else json.dumps(value, ensure_ascii=False) for value in values]
    return values[0], values[1]


def _time(case: Element) -> float:
    try:
        return float(case.get("time") or 0)
    except ValueError:
        return 0.0
