"""npm packages: `node --test`, mocha, jest and vitest.

Which of them it is, and with which options, is read from the script `test` of package.json. Each test file is a suite;
all four leave a report in the shape of jest's. Coverage is V8's (node, mocha) or the framework's own (jest, vitest),
file by file; of a source that is compiled before it runs, whose lines V8 does not know, every test is asked.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from crrl.errors import CrrlError
from crrl.making.commits import TESTS
from crrl.making.survey import Survey
from crrl.making.tracing import Trace
from crrl.making.trees import script_trace
from crrl.making.trees.toolchain import REPORT_BYTES, Boxes, ended, surveyed
from crrl.making.trees.traced import Traced
from crrl.rewards.reports import JEST_RUN, Suite, jest_json, objects
from crrl.sandbox.api import Box
from crrl.task import Command, TestPlan

SCRIPTS = Path(__file__).with_name("scripts")
REPORT = ".crrl/report.json"
PROGRAMS = {"vitest": "vitest", "jest": "jest", "mocha": "mocha", "_mocha": "mocha", "react-scripts": "jest"}
VALUED = frozenset(
    [
        *("-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions", "-u", "--ui", "-t"),
        *("--timeout", "-c", "--config", "--extension", "--ext", "--package", "--opts", "--file", "--project", "-e"),
    ]
)
REPORTING = re.compile(r"(-R|--reporters?|--test-reporter(-destination)?|--reporter-options?|-O|--outputFile)(=|$)")
LEFT_OUT = re.compile(
    r"--(watch|coverage|ci|verbose|silent|colors?|run|experimental-test-coverage|test)(=|\b)|^run$|-w$"
)
TEST_FILE = re.compile(r"(^|/)tests?([-.][^/]*)?\.[cm]?[jt]sx?$")
BUILDS = re.compile(r"\b(build|compile|tsc|babel|rollup|esbuild|tsup|swc|webpack)\b")
INSTALL = """
cd /environment && for file in package.json package-lock.json npm-shrinkwrap.json .npmrc; do
  if [ -f /workspace/$file ]; then cp /workspace/$file .; fi
done
if [ -f package-lock.json ] || [ -f npm-shrinkwrap.json ]; then verb=ci; else verb=install; fi
npm $verb --no-audit --no-fund --ignore-scripts --legacy-peer-deps --loglevel=error
own=$(find node_modules -type d -path "*node_modules/NAME" | head -1)
if [ -n "$own" ]; then echo "the packages hold a copy of the project itself: $own"; exit 1; fi
"""
WRITE = 'mkdir -p .crrl && printf %s "$1" > "$2"'


@dataclass(frozen=True)
class Framework:
    """`options`: words that the script gives it; `files`: of tests, or patterns; `env`: of the script; `builds`: what
    the script does before."""

    name: str
    options: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    builds: tuple[str, ...] = ()

    def argv(self, files: Sequence[str]) -> list[str]:
        """Runs these files, or all, and leaves the report."""
        if self.name == "node":
            reporter = ["--test-reporter=./.crrl/node_report.mjs", f"--test-reporter-destination={REPORT}"]
            return ["node", "--test", *self.options, *reporter, *files]
        if self.name == "mocha":
            return ["mocha", *self.options, "--reporter", "./.crrl/mocha_report.cjs", *files]
        if self.name == "jest":
            only = ["--runTestsByPath", *files] if files else []
            return ["jest", *self.options, "--ci", "--watchman=false", "--json", f"--outputFile={REPORT}", *only]
        return ["vitest", "run", *self.options, "--reporter=json", f"--outputFile={REPORT}", *files]

    @property
    def prepare(self) -> list[Command]:
        """What stands ready before it runs."""
        script = {"node": "node_report.mjs", "mocha": "mocha_report.cjs"}.get(self.name)
        text = (SCRIPTS / script).read_text() if script else ""
        target = f".crrl/{script}" if script else ".crrl/.keep"
        first = Command(["sh", "-c", WRITE, "sh", text, target])
        return [first, *(Command(["sh", "-c", words], env=dict(self.env)) for words in self.builds)]


class JavaScript(Traced):
    language = "javascript"
    suffixes = (".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx")
    aside = re.compile(rf"{Traced.aside.pattern}|\.d\.ts$|\.min\.|(^|/)[^/]*\.config\.\w+$|(^|/)\.")

    def __init__(self, tree: Path, arguments: Sequence[str]) -> None:
        super().__init__(tree, arguments)
        self.package = _package(tree)
        self.framework = framework(self.package)

    def setup(self) -> list[Command]:
        if not any(self.package.get(f"{kind}ependencies") for kind in ("d", "devD", "peerD", "optionalD")):
            return []
        script = INSTALL.replace("NAME", str(self.package.get("name") or "-"))
        return [Command(["sh", "-ec", script], timeout_s=1800.0)]

    def plan(self, suites: Sequence[str], seconds: float) -> TestPlan:
        limited = ["prlimit", f"--cpu={int(60 + 10 * seconds)}", *self.framework.argv(suites)]
        run = Command(limited, env=dict(self.framework.env))
        plan = TestPlan(run, "jest", [], [], needs=["node"], timeout_s=300 + 30 * seconds)
        return replace(plan, build=self.framework.prepare, report=Command(["cat", REPORT]))

    def files(self, suite: str) -> list[str]:
        return [suite]

    def knows(self, path: str) -> bool:
        return self.framework.name in ("jest", "vitest") or PurePath(path).suffix in (".js", ".mjs", ".cjs")

    def sources(self) -> list[str]:
        return [path for path in super().sources() if not _is_test(path)]

    async def survey(self, boxes: Boxes, timeout_s: float) -> Survey:
        """Once whole, to find the test files; then each by itself, with coverage."""
        async with boxes.open({}) as box:
            given = self.arguments or list(self.framework.files)
            argv = self.framework.argv([]) + given if self.framework.name == "jest" else self.framework.argv(given)
            report, said = await self._report(
                boxes, box, ["bash", "-O", "globstar", "-c", _globbed(argv)], timeout_s, {}
            )
            suites, seconds = list(_suites(report)), _seconds(report)
            lines: dict[str, dict[int, set[str]]] = {}
            for suite in suites:
                for path, numbers in (await self._covered(boxes, box, suite.name, timeout_s)).items():
                    for number in numbers:
                        lines.setdefault(path, {}).setdefault(number, set()).add(suite.name)
        return surveyed(suites, seconds, lines, said, {})

    async def _report(
        self, boxes: Boxes, box: Box, argv: list[str], timeout_s: float, env: Mapping[str, str]
    ) -> tuple[str, str]:
        """The report and what was printed. Raises CrrlError where there is none."""
        for command in self.framework.prepare:
            built = await boxes.run(box, command.argv, timeout_s, command.env)
            if built.code != 0:
                said = f"{shlex.join(command.argv)[:80]} fails: {built.output[-800:]}"
                raise CrrlError(said, "It runs before the tests, offline.")
        result = await boxes.run(box, argv, timeout_s, {**dict(self.framework.env), **env})
        ended(result, timeout_s)
        try:
            return (await box.read(REPORT, limit=REPORT_BYTES)).decode("utf-8", "replace"), result.output
        except OSError:
            found = re.findall(r"Cannot find (?:module|package) '([^'./][^']*)'", result.output)
            lacking = f" It lacks {', '.join(dict.fromkeys(found))}." if found else ""
            raise CrrlError(
                f"{self.framework.name} leaves no report.{lacking}\n{result.output.strip()[-1500:]}",
                f"Does `{shlex.join(argv)[:200]}` run? Say what installs it: setup=CMD.",
            ) from None

    async def _covered(self, boxes: Boxes, box: Box, file: str, timeout_s: float) -> dict[str, list[int]]:
        """The lines of the project that the tests of a file run; of each path that is known."""
        argv, env = self.framework.argv([file]), {**dict(self.framework.env)}
        if self.framework.name in ("node", "mocha"):
            env["NODE_V8_COVERAGE"] = "/tmp/coverage"
            await boxes.run(box, ["rm", "-rf", "/tmp/coverage"], 60)
            await boxes.run(box, argv, timeout_s, env)
            script = (SCRIPTS / "v8_lines.cjs").read_text()
            result = await boxes.run(box, ["node", "-e", script, "/tmp/coverage", "/workspace"], timeout_s)
            try:
                found: dict[str, list[int]] = json.loads(result.output)
            except ValueError:
                return {}
            return {path: lines for path, lines in found.items() if PurePath(path).suffix in (".js", ".mjs", ".cjs")}
        argv += {
            "jest": ["--coverage", "--coverageReporters=json", "--coverageDirectory=.crrl/coverage"],
            "vitest": ["--coverage.enabled", "--coverage.reporter=json", "--coverage.reportsDirectory=.crrl/coverage"],
        }[self.framework.name]
        await boxes.run(box, ["rm", "-rf", ".crrl/coverage"], 60)
        await boxes.run(box, argv, timeout_s, env)
        try:
            covered = json.loads(await box.read(".crrl/coverage/coverage-final.json", limit=REPORT_BYTES))
        except (OSError, ValueError):
            return {}
        return {path.removeprefix("/workspace/"): _istanbul_lines(found) for path, found in covered.items()}

    async def traces(
        self, boxes: Boxes, changed: Mapping[str, bytes], suite: str, known: frozenset[str]
    ) -> dict[str, Trace]:
        data = (self.tree / suite).read_bytes()
        traced = script_trace.traced(suite, data, known, str(self.package.get("name") or ""))
        if traced is None:
            return {}
        async with boxes.open({**changed, suite: traced}) as box:
            for command in self.framework.prepare:
                await boxes.run(box, command.argv, 600, command.env)
            await boxes.run(box, ["prlimit", "--cpu=120", *self.framework.argv([suite])], 300, dict(self.framework.env))
            try:
                found = (await box.read(script_trace.FILE, limit=REPORT_BYTES)).decode("utf-8", "replace")
            except OSError:
                return {}
        return script_trace.read(suite, data, found)


def framework(package: Mapping[str, Any]) -> Framework:
    """What the script `test` runs. Raises CrrlError for what is none of the four."""
    script = str((package.get("scripts") or {}).get("test") or "")
    builds: list[str] = []
    for part in re.split(r"&&|;", _unfolded(package, script)):
        try:
            words = shlex.split(part)
        except ValueError:
            continue
        env = [tuple(word.split("=", 1)) for word in words if re.match(r"[A-Z_][A-Z0-9_]*=", word)]
        for place, word in enumerate(words):
            name = PROGRAMS.get(PurePath(word).name) or ("node" if word == "--test" else None)
            if name is not None:
                before = words[words.index("node") + 1 : place] if name == "node" and "node" in words else []
                options, files = _sorted([*before, *words[place + 1 :]])
                return Framework(name, tuple(options), tuple(files), tuple((a, b) for a, b in env), tuple(builds))
        if BUILDS.search(part):
            builds.append(part.strip())
    listed = {**(package.get("devDependencies") or {}), **(package.get("dependencies") or {})}
    for name in ("vitest", "jest", "mocha"):
        if name in listed:
            return Framework(name)
    raise CrrlError(
        f"package.json's test script ({script or 'none'}) runs none of node --test, mocha, jest, vitest.",
        "Other frameworks leave no report that crrl reads; for the bugs of its history: crrl tasks mine.",
    )


def _unfolded(package: Mapping[str, Any], script: str, depth: int = 3) -> str:
    """With the scripts that it runs in their place."""
    scripts = package.get("scripts") or {}

    def found(match: re.Match[str]) -> str:
        inner = str(scripts.get(match[1], ""))
        return _unfolded(package, inner, depth - 1) if depth and inner else match[0]

    before = str(scripts.get("pretest", "")) if depth == 3 else ""
    whole = re.sub(r"(?:npm|pnpm|yarn)\s+(?:run\s+)?(?:-s\s+)?([\w:-]+)", found, script)
    return f"{before} && {whole}" if before else whole


def _sorted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options, and files."""
    options: list[str] = []
    files: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word in ("|", "||", ">", "&"):
            break
        if REPORTING.match(word):
            next(waiting, None) if "=" not in word else None
        elif LEFT_OUT.search(word):
            continue
        elif word in VALUED:
            options += [word, next(waiting, "")]
        elif word.startswith("-"):
            options.append(word)
        else:
            files.append(word)
    return options, files


def _globbed(argv: Sequence[str]) -> str:
    """For a shell, which spells out patterns."""
    return " ".join(word if "*" in word and "'" not in word else shlex.quote(word) for word in argv)


def _package(tree: Path) -> dict[str, Any]:
    try:
        found = json.loads((tree / "package.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CrrlError(f"package.json: {error}", "Is it an npm package?") from None
    if not isinstance(found, dict):
        raise CrrlError("package.json is no object.", "Is it an npm package?")
    return found


def _is_test(path: str) -> bool:
    return TESTS.search(path) is not None or TEST_FILE.search(path) is not None


def _suites(report: str) -> list[Suite]:
    try:
        suites = list(jest_json(report))
    except ValueError as error:
        raise CrrlError(f"The report cannot be read: {error}", "Does the suite run to its end?") from None
    return [Suite(suite.name.removeprefix("/workspace/"), suite.tests) for suite in suites]


def _seconds(report: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for run in objects(report, JEST_RUN):
        for file in run["testResults"]:
            name = str(file.get("name") or "").removeprefix("/workspace/")
            for test in file["assertionResults"]:
                found[f"{name}::{test['fullName']}"] = float(test.get("duration") or 0) / 1000
    return found


def _istanbul_lines(found: Mapping[str, Any]) -> list[int]:
    ran = [found["statementMap"][key] for key, count in found["s"].items() if count]
    return sorted({line for place in ran for line in range(place["start"]["line"], place["end"]["line"] + 1)})
