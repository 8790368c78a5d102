"""BugsInPy (Widyasari et al. 2020): 502 bugs of 17 Python projects. From a clone of its repository.

The buggy tree is the buggy commit; the failing tests are the fixed commit's version of `test_file`. The tests named in
`run_test.sh` must flip, the others of those files are the baseline that admission measures.
The packages of `requirements.txt` are installed under the oldest Python here that is not older than the bug's.
Traps: `bug.info` writes `key="v"` and `key ="v"`, with and without carriage returns; a third of requirements.txt is
UTF-16, and some list the project itself; tests are named for pytest, tox and unittest; the Python versions are 3.6 to
3.8. Its own tool checks out the fixed version unless told `-v 0`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.corpus import Corpus
from crrl.tasks.corpora.issue import failing_tests
from crrl.tasks.diffs import touched
from crrl.tasks.files import Problem
from crrl.tasks.setup import interpreters
from crrl.tasks.setup.environments import pip
from crrl.tasks.setup.project import PATHS, before, builders, optional

REPORT = ".crrl/report.xml"
PYTEST = ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "junit_family=xunit1"]
PUBLISHED = date(2020, 6, 30)  # the month: unpinned packages come from before it
REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+(\[[\w,]+\])?\s*([=<>!~].*)?")
LEFT_OUT = ("pkg-resources", "pip", "pywin32", "pypiwin32", "wincertstore")  # of Debian's pip, and of Windows


def read(path: Path) -> Iterator[Task | Problem]:
    folders = (path / "projects").glob("*/bugs/*")
    for folder in sorted(folders, key=lambda f: (f.parent.parent.name.lower(), int(f.name) if f.name.isdigit() else 0)):
        if not folder.is_dir():
            continue
        try:
            yield _task(folder)
        except FileNotFoundError as error:
            yield Problem(Path(error.filename), 0, "missing")
        except ValueError as error:
            yield Problem(folder / "bug.info", 0, str(error))


def _task(folder: Path) -> Task:
    project, number = folder.parent.parent, folder.name
    info, about = _info(folder / "bug.info"), _info(project / "project.info")
    solution = text(folder / "bug_patch.txt")
    if not touched(solution):
        raise ValueError("bug_patch.txt is empty")
    files = [name.strip() for name in info["test_file"].split(";") if name.strip()]
    wanted = list(_tests(text(folder / "run_test.sh"), files))
    if not wanted:
        raise ValueError("run_test.sh names no test")
    where = sorted({test.split("::")[0] for test in wanted})
    fixed = info["fixed_commit_id"]
    script = _script(folder / "setup.sh")
    return Task(
        id=f"bugsinpy-{project.name.lower()}-{number}",
        corpus="bugsinpy",
        split="test",
        language="python",
        family=project.name,
        source=Source(repo=about["github_url"].rstrip("/"), base_commit=info["buggy_commit_id"]),
        issue=failing_tests(project.name, [(test, "") for test in wanted]),
        test=TestPlan(
            command=Command([*PYTEST, "--junitxml", REPORT, *where, "test_CRRL_CANARY.py"]),
            parser="pytest-xml",
            fail_to_pass=wanted,
            pass_to_pass=[],
            timeout_s=300.0,
            needs=[interpreters.at_least(info["python_version"])],
            report=Command(["cat", REPORT]),
            restore_from={name: fixed for name in files},
            baseline=True,
        ),
        setup=_setup([*_requirements(folder / "requirements.txt", project.name), *script.packages], script.editable),
        solution=solution,
        provenance={"python": info["python_version"], "fixed_commit": fixed}
        | ({"setup.sh, not run": "; ".join(script.others)} if script.others else {}),
    )


@dataclass(frozen=True)
class _Script:
    """What a setup.sh asks for: packages, the project with extras, and what is not understood."""

    packages: list[str]
    editable: list[str]
    others: list[str]


def _script(file: Path) -> _Script:
    """Of the 298 bugs that have one. Their lines are `pip install ...` and `python setup.py install|develop|build`."""
    packages, editable, others = list[str](), list[str](), list[str]()
    lines = [line.strip() for line in text(file).splitlines()] if file.is_file() else []
    for line in filter(None, lines):
        words = line.split()
        if re.match(r"pip3? install ", line) and words[2] in ("-e", "."):
            editable.append(words[-1])
        elif re.match(r"pip3? install ", line) and all(REQUIREMENT.fullmatch(word) for word in words[2:]):
            packages += words[2:]
        elif re.match(r"python3? setup\.py (install|develop|build)$", line):
            editable.append(".")
        elif not line.startswith("#"):
            others.append(line)
    return _Script(packages, list(dict.fromkeys(editable)), others)


def _setup(requirements: list[str], editable: list[str]) -> list[Command]:
    """All at once, or else one by one, as the corpus's own tool does: the lists are frozen environments, and some of
    their packages no longer exist, or not for this Python (uv's exit code 1)."""
    (install,) = pip(*builders(), "--no-deps")
    one_by_one = f'for each; do {shlex.join(install.argv)} "$each" || [ $? -eq 1 ] || exit 2; done'
    script = f'{shlex.join(install.argv)} "$@" && exit 0; [ $? -eq 1 ] || exit 2; {one_by_one}'
    listed = Command(["sh", "-c", script, "sh", *requirements], timeout_s=2 * install.timeout_s)
    project = [optional(command) for name in editable for command in pip(*PATHS, *before(PUBLISHED), "-e", name)]
    return [*([listed] if requirements else []), *pip(*before(PUBLISHED), "pytest", "setuptools"), *project]


def text(file: Path) -> str:
    """In any encoding that Windows left it in."""
    data = file.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return data.decode(encoding, "surrogateescape" if encoding != "utf-16" else "strict").replace("\r\n", "\n")


def _info(file: Path) -> dict[str, str]:
    found = dict(re.findall(r'^\s*(\w+)\s*=\s*"(.*?)"', text(file), flags=re.MULTILINE))
    of_bug = ("python_version", "buggy_commit_id", "fixed_commit_id", "test_file")
    needed = ("github_url",) if file.name == "project.info" else of_bug
    for key in needed:
        if not found.get(key):
            raise ValueError(f"{file.name}: {key} is missing")
    return found


def _tests(script: str, files: list[str]) -> Iterator[str]:
    """pytest ids of what a run_test.sh runs."""
    for line in script.splitlines():
        for word in line.split():
            if "::" in word or word.endswith(".py"):
                yield word
            elif "unittest" in line and "." in word:
                yield _dotted(word, files)


def _dotted(name: str, files: list[str]) -> str:
    """`tests.test_black.BlackTestCase.test_x` -> `tests/test_black.py::BlackTestCase::test_x`."""
    for file in files:
        module = file.removesuffix(".py").replace("/", ".")
        if name == module or name.startswith(module + "."):
            return "::".join([file, *name[len(module) :].strip(".").split(".")]).removesuffix("::")
    raise ValueError(f"run_test.sh: {name} is in none of {', '.join(files)}")


def _requirements(file: Path, project: str) -> list[str]:
    """The packages to install, without the project itself: it is the checkout."""
    if not file.is_file():
        return []
    lines = [line.strip() for line in text(file).splitlines()]
    listed = [line for line in lines if REQUIREMENT.fullmatch(line)]
    own = {*LEFT_OUT, project.lower()}
    return [line for line in dict.fromkeys(listed) if re.split(r"[\[=<>!~\s]", line)[0].lower() not in own]


CORPUS = Corpus("bugsinpy", ("test",), read, "https://github.com/soarsmu/BugsInPy")
