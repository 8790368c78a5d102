"""BugsInPy (Widyasari et al. 2020): 502 bugs of 17 Python projects. From a clone of its repository.

The buggy tree is the buggy commit; the failing tests are the fixed commit's version of `test_file`. The tests named in
`run_test.sh` must flip, the others of those files are the baseline that admission measures.
Traps: `bug.info` writes `key="v"` and `key ="v"`, with and without carriage returns; a third of requirements.txt is
UTF-16; tests are named for pytest, tox and unittest; the Python versions are 3.6 to 3.8. Its own tool checks out the
fixed version unless told `-v 0`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crrl.tasks.corpora.corpus import Corpus
from crrl.tasks.corpora.issue import failing_tests
from crrl.tasks.diffs import touched
from crrl.tasks.files import Problem
from crrl.tasks.task import Command, Source, Task, TestPlan

# In requirements, but not needed to run tests with our own pytest.
TOOLS = frozenset(
    {"atomicwrites", "attrs", "coverage", "flake8", "importlib-metadata", "iniconfig", "mccabe", "more-itertools"}
    | {"packaging", "pip", "pkg-resources", "pluggy", "py", "pycodestyle", "pyflakes", "pyparsing", "pytest"}
    | {"setuptools", "six", "toml", "tox", "virtualenv", "wcwidth", "wheel", "zipp"}
)


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
    fixed = info["fixed_commit_id"]
    return Task(
        id=f"bugsinpy-{project.name.lower()}-{number}",
        corpus="bugsinpy",
        split="test",
        language="python",
        family=project.name,
        source=Source(repo=about["github_url"].rstrip("/"), base_commit=info["buggy_commit_id"]),
        issue=failing_tests(project.name, [(test, "") for test in wanted]),
        test=TestPlan(
            command=Command(sorted({test.split("::")[0] for test in wanted})),
            parser="pytest",
            fail_to_pass=wanted,
            pass_to_pass=[],
            timeout_s=300.0,
            needs=[f"python:{name}" for name in _requirements(folder / "requirements.txt", project.name)],
            restore_from={name: fixed for name in files},
            baseline=True,
        ),
        solution=solution,
        provenance={"python": info["python_version"], "fixed_commit": fixed},
    )


def text(file: Path) -> str:
    """Whatever encoding Windows left it in."""
    data = file.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return data.decode(encoding, "surrogateescape" if encoding != "utf-16" else "strict").replace("\r\n", "\n")


def _info(file: Path) -> dict[str, str]:
    found = dict(re.findall(r'^\s*(\w+)\s*=\s*"(.*?)"', text(file), flags=re.MULTILINE))
    needed = ("github_url",) if file.name == "project.info" else ("buggy_commit_id", "fixed_commit_id", "test_file")
    for key in needed:
        if not found.get(key):
            raise ValueError(f"{file.name}: {key} is missing")
    return {"python_version": "", **found}


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
    """Packages; some lists name the project itself, which is the checkout."""
    if not file.is_file():
        return []
    names = [re.split(r"[=<>!~\[; ]", line.strip())[0].lower() for line in text(file).splitlines()]
    own = {*TOOLS, project.lower()}
    return [name for name in dict.fromkeys(names) if re.fullmatch(r"[a-z0-9._-]+", name) and name not in own]


CORPORA = [Corpus("bugsinpy", ("test",), read, "https://github.com/soarsmu/BugsInPy")]
