"""Real bugs from real history, end to end: buggy fails, fix passes, and our verdict is that of the corpus's own tests.

A small sample runs always; everything at hand with `make test-corpora`. Repositories that are not at hand are read from
local clones, CRRL_TEST_REPOSITORIES/OWNER/NAME, where somebody has them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
from toolchain_kit import require

from crrl.admission.admission import Admission, admit, share
from crrl.admission.check import _first_admitted
from crrl.rewards.task_judge import TaskJudge
from crrl.rewards.tests import solved
from crrl.sandbox import default_state_dir
from crrl.task import Task
from crrl.tasks.command import at_mirror
from crrl.tasks.corpora import find, load
from crrl.tasks.diffs import between, touched
from crrl.tasks.setup import own_tools, project, toolchains
from crrl.tasks.setup.toolchains import JUNIT4

DATA = Path(os.environ.get("CRRL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
LIMIT_S = 120
BY_CHANCE = ("quixbugs-java-minimum_spanning_tree",)  # goes through a hash map by identity: each run breaks other tests


def ids(corpus: str) -> list[str]:
    return [task.id for task in load(find(corpus), DATA / corpus).tasks] if (DATA / corpus).is_dir() else []


def task_of(corpus: str, id: str) -> Task:
    (task,) = load(find(corpus), DATA / corpus, ids=[id]).tasks
    require(task.test.needs)
    return task


def sound(admission: Admission, times: int) -> Task:
    assert admission.status == "admitted", admission.reasons
    assert (admission.empty, admission.fixed) == (times, times) and admission.task is not None
    assert admission.task.test.fail_to_pass
    return admission.task


@pytest.mark.parametrize("id", ["quixbugs-python-gcd", "quixbugs-python-detect_cycle"])
async def test_quixbugs_sample(test_data: Path, task_judge: TaskJudge, id: str) -> None:
    judged = sound(await admit(task_of("quixbugs", id), task_judge, times=1), 1)
    await same_as_its_own_tests(judged, task_judge)


async def test_quixbugs_sample_in_java(test_data: Path, task_judge: TaskJudge) -> None:
    sound(await admit(task_of("quixbugs", "quixbugs-java-gcd"), task_judge, times=1), 1)


@pytest.mark.parametrize("id", ["polyglot-python-grep", "polyglot-go-matrix"])
async def test_polyglot_sample(test_data: Path, task_judge: TaskJudge, id: str) -> None:
    sound(await admit(task_of("polyglot", id), task_judge, times=1), 1)


@pytest.mark.corpora
@pytest.mark.timeout(900)
@pytest.mark.parametrize("id", ids("quixbugs"))
async def test_every_program_of_quixbugs(test_data: Path, task_judge: TaskJudge, id: str) -> None:
    judged = sound(await admit(task_of("quixbugs", id), task_judge, times=1), 1)
    await same_as_its_own_tests(judged, task_judge)


@pytest.mark.corpora
@pytest.mark.timeout(900)
@pytest.mark.parametrize("id", ids("polyglot"))
async def test_every_exercise_of_polyglot(test_data: Path, task_judge: TaskJudge, id: str) -> None:
    judged = sound(await admit(task_of("polyglot", id), task_judge, times=1), 1)
    assert share(judged) > 0.3, judged.test.decoys


def at_hand(task: Task) -> Task:
    """With its repository from a local clone, else skipped."""
    clones = os.environ.get("CRRL_TEST_REPOSITORIES")
    local = at_mirror(task, Path(clones) if clones else None)
    if local == task:
        pytest.skip(f"no clone of {task.source.repo} below CRRL_TEST_REPOSITORIES")
    return local


@pytest.mark.corpora
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("corpus", "folder", "id"),
    [
        ("bugsinpy", "bugsinpy", "bugsinpy-youtube-dl-1"),
        ("bugsinpy", "bugsinpy", "bugsinpy-tornado-1"),
        ("defects4j", "defects4j/v2.0.1", "defects4j-Lang-1"),
        ("defects4j", "defects4j/v2.0.1", "defects4j-Jsoup-93"),
        ("gitbug-java", "gitbug-java", "iipc-jwarc-d47a479c9025"),
        ("gitbug-java", "gitbug-java", "fusesource-jansi-58260c6ce08c"),
    ],
)
async def test_bugs_of_repositories_at_hand(
    test_data: Path, task_judge: TaskJudge, corpus: str, folder: str, id: str
) -> None:
    (task,) = load(find(corpus), test_data / folder, ids=[id]).tasks
    judged = sound(await admit(at_hand(task), task_judge, times=1), 1)
    assert judged.test.pass_to_pass  # the measured baseline


@pytest.mark.corpora
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("corpus", "folder", "id"),
    [
        ("swe-bench", "swe-bench/SWE-bench", "marshmallow-code__marshmallow-1359"),
        ("swe-bench-verified", "swe-bench/SWE-bench_Verified", "sympy__sympy-13372"),
        ("swe-bench-verified", "swe-bench/SWE-bench_Verified", "pytest-dev__pytest-10051"),  # a generated version
        ("swe-gym", "swe-gym/SWE-Gym.train.sample.parquet", "facebookresearch__hydra-1695"),  # a generated parser
    ],
)
async def test_swe_bench_without_images(
    test_data: Path, task_judge: TaskJudge, corpus: str, folder: str, id: str
) -> None:
    """Set up here, graded by the official package; the negative control convicts what only reports success."""
    imageless = find(corpus).imageless
    assert imageless is not None
    (task,) = load(imageless, test_data / folder, ids=[id]).tasks
    settle = partial(project.settled, prepare=task_judge._boxes.prepare, environments=task_judge.environments)
    judged = sound(await _first_admitted(at_hand(task), settle, task_judge, 1), 1)
    assert judged.setup and set(judged.test.fail_to_pass) == set(task.test.fail_to_pass)
    forged = await task_judge.run(judged, await forging(judged, task_judge))
    assert not solved(judged, forged) and "exit_hook" in forged.exploits


async def forging(task: Task, task_judge: TaskJudge) -> str:
    """A patch that repairs nothing, and prints at the end of the process that all tests have passed."""
    (path, *_) = [name for name in touched(task.solution or "") if name.endswith(".py")]
    text = ((await task_judge._boxes.prepare(task.source)).lower / path).read_text()
    report = "".join(f"PASSED {test}\n" for test in (*task.test.fail_to_pass, *task.test.pass_to_pass))
    hook = f"\nimport atexit, os\natexit.register(lambda: (os.write(1, {report!r}.encode()), os._exit(0)))\n"
    return between(path, text, text + hook)


@pytest.mark.corpora
@pytest.mark.timeout(1800)
async def test_a_bug_that_defects4j_itself_builds(task_judge: TaskJudge) -> None:
    """CRRL_TEST_DEFECTS4J: a bug it can check out here, e.g. Csv-1 (it needs its repositories and its Java)."""
    bug = os.environ.get("CRRL_TEST_DEFECTS4J")
    home = toolchains.defects4j(default_state_dir())
    if not bug or home is None:
        pytest.skip("no Defects4J, or CRRL_TEST_DEFECTS4J is not set")
    (task,) = load(find("defects4j"), home, ids=[f"defects4j-{bug}"]).tasks
    judged = sound(await admit(own_tools.checked_out(task, task_judge.state_dir), task_judge, times=1), 1)
    assert judged.test.pass_to_pass


async def same_as_its_own_tests(task: Task, task_judge: TaskJudge) -> None:
    """Verdicts by us, and by the corpus's own runner over its own files, on the buggy and on the correct program."""
    own = own_pytest if task.language == "python" else own_junit
    for fixed in (False, True):
        ours = await task_judge.run(task, (task.solution or "") if fixed else "")
        passed, failed = own(task.family, fixed)
        assert solved(task, ours) == fixed == (failed == 0 and passed > 0)
        if ours.reason == "complete" and (fixed or task.id not in BY_CHANCE):
            counted = list(ours.tests.values())
            assert (counted.count("passed"), len(counted)) == (passed, passed + failed)


def own_pytest(program: str, fixed: bool) -> tuple[int, int]:
    """(passed, not passed) by `pytest`, as QuixBugs says to run it. One that does not end has failed."""
    options = ["-q", "-p", "no:cacheprovider", *(["--correct"] if fixed else [])]
    command = [sys.executable, "-B", "-m", "pytest", *options, f"python_testcases/test_{program}.py"]
    limited = ["sh", "-c", 'ulimit -t 10 -v 2000000; exec "$@"', "sh", *command]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    try:
        done = subprocess.run(
            limited, cwd=DATA / "quixbugs", env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return 0, 1
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout[-300:])}
    failed = counts.get("failed", 0) + counts.get("error", 0)
    return counts.get("passed", 0), failed if counts else 1


def own_junit(program: str, fixed: bool) -> tuple[int, int]:
    """(passed, not passed) by JUnit 4's own runner. QuixBugs has a copy of the tests for the correct programs."""
    root, name = DATA / "quixbugs", f"{program.upper()}_TEST"
    package = "java_testcases.junit.crt_program" if fixed else "java_testcases.junit"
    with tempfile.TemporaryDirectory(prefix="crrl-junit-") as folder:
        helper = Path(folder, *package.split("."), "QuixFixOracleHelper.java")  # the copy's own is not at hand
        helper.parent.mkdir(parents=True)
        text = (root / "java_testcases/junit" / helper.name).read_text()
        helper.write_text(text.replace("package java_testcases.junit;", f"package {package};"))
        test = root.joinpath(*package.split("."), f"{name}.java")
        places = ["-d", folder, "-sourcepath", f"{folder}:{root}", "-cp", JUNIT4]
        subprocess.run(["javac", "-nowarn", "-encoding", "UTF-8", *places, test], check=True, capture_output=True)
        run = [
            "java",
            "-XX:+UseSerialGC",
            "-cp",
            f"{folder}:{JUNIT4}",
            "org.junit.runner.JUnitCore",
            f"{package}.{name}",
        ]
        said = subprocess.run(run, capture_output=True, text=True, timeout=LIMIT_S, check=False).stdout
    if ok := re.search(r"^OK \((\d+) test", said, flags=re.MULTILINE):
        return int(ok[1]), 0
    counts = re.search(r"^Tests run: (\d+),  Failures: (\d+)", said, flags=re.MULTILINE)
    assert counts is not None, said[-500:]
    return int(counts[1]) - int(counts[2]), int(counts[2])
