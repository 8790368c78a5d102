"""Shared by SWE-bench and its relatives: a row is a repository at a commit, an issue, a fix, tests before and after.

Rows of the harness's version 5 carry their image, script and log parser. For older ones, the repository's own command
runs on the files that contain the listed tests.

Without images (`images=no`, Python only) that command runs for rows of either kind, in the environment that the
repository's own files ask for (`setup/project.py`), and the test patch is put back by us.
"""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import replace
from pathlib import PurePosixPath

from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.rows import Row, diff, failing, names, text
from crrl.tasks.diffs import touched

TESTBED = "/testbed"
TIMEOUT_S = 1800.0  # of the official harness
PYTEST = "pytest -rA"
# Repositories that older rows come from, where the command is not plain pytest or the parser not the general one.
OLDER: dict[str, tuple[str, str]] = {
    "astropy/astropy": (PYTEST, "parse_log_astropy"),
    "django/django": ("./tests/runtests.py --verbosity 2 --settings=test_sqlite --parallel 1", "parse_log_django"),
    "marshmallow-code/marshmallow": (PYTEST, "parse_log_marshmallow"),
    "matplotlib/matplotlib": (PYTEST, "parse_log_matplotlib"),
    "mwaskom/seaborn": ("pytest --no-header -rA", "parse_log_seaborn"),
    "pallets/flask": (PYTEST, "parse_log_flask"),
    "psf/requests": (PYTEST, "parse_log_requests"),
    "pvlib/pvlib-python": (PYTEST, "parse_log_pvlib"),
    "pydata/xarray": (PYTEST, "parse_log_xarray"),
    "pydicom/pydicom": (PYTEST, "parse_log_pydicom"),
    "pylint-dev/astroid": (PYTEST, "parse_log_astroid"),
    "pylint-dev/pylint": (PYTEST, "parse_log_pylint"),
    "pytest-dev/pytest": (PYTEST, "parse_log_pytest"),
    "pyvista/pyvista": (PYTEST, "parse_log_pyvista"),
    "scikit-learn/scikit-learn": (PYTEST, "parse_log_scikit"),
    "sphinx-doc/sphinx": ("tox --current-env -epy39 -v --", "parse_log_sphinx"),
    "sqlfluff/sqlfluff": (PYTEST, "parse_log_sqlfluff"),
    "sympy/sympy": (
        "PYTHONWARNINGS='ignore::UserWarning,ignore::SyntaxWarning' bin/test -C --verbose",
        "parse_log_sympy",
    ),
}
IMAGELESS = {"sphinx-doc/sphinx": PYTEST}  # where the command above needs a tool that the repository does not list
CONDA = "source /opt/miniconda3/bin/activate && conda activate testbed\n"
LANGUAGES = {
    ".py": "python",
    ".java": "java",
    ".js": "javascript",
    ".jsx": "javascript",
    ".ts": "typescript",
    ".tsx": "typescript",
    ".go": "go",
    ".rs": "rust",
    ".c": "c",
    ".h": "c",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".hpp": "cpp",
    ".cs": "c#",
    ".php": "php",
    ".rb": "ruby",
    ".kt": "kotlin",
}
KEPT = ("version", "difficulty", "environment_setup_commit", "repo_language", "language")


def task_of(row: Row, corpus: str, split: str, *, image: str | None) -> Task:
    """The task of a row as SWE-bench has them; `image` None: without one. Raises ValueError, naming the field."""
    solution = diff(row, "patch")
    test_patch = diff(row, "test_patch", default="")
    repo = text(row, "repo")
    plan = TestPlan(
        command=Command([]),
        parser="",
        fail_to_pass=failing(row, "FAIL_TO_PASS"),
        pass_to_pass=names(row, "PASS_TO_PASS"),
        timeout_s=TIMEOUT_S,
        protect=touched(test_patch),
    )
    if image is None:
        parser = text(row, "log_parser", default="")
        plan = commanded(plan, repo, test_patch, command=IMAGELESS.get(repo, ""), parser=parser, activate="")
        source = Source(repo=f"https://github.com/{repo}", base_commit=text(row, "base_commit"))
    else:
        plan = _scripted(plan, row) if row.get("eval_script") else commanded(plan, repo, test_patch)
        source = Source(
            repo=f"https://github.com/{repo}",
            base_commit=text(row, "base_commit"),
            image=text(row, "image", image),
            workdir=TESTBED,
        )
    return Task(
        id=text(row, "instance_id"),
        corpus=corpus,
        split=split,
        language=language_of(touched(solution)),
        family=repo,
        source=source,
        issue=text(row, "problem_statement", default=""),
        test=plan,
        solution=solution,
        created_at=str(row.get("created_at") or ""),
        provenance={key: str(row[key]) for key in KEPT if row.get(key)},
    )


def imageless(row: Row, split: str, corpus: str) -> Task:
    """The task of a row, to be set up here (`images=no`)."""
    return task_of(row, corpus, split, image=None)


def _scripted(plan: TestPlan, row: Row) -> TestPlan:
    """The official script puts the tests back itself: the patch with them is a part of it."""
    return replace(
        plan,
        command=Command(["bash", "-c", text(row, "eval_script")]),
        parser=f"swebench:{text(row, 'log_parser')}:{text(row, 'eval_type', 'pass_and_fail')}",
    )


def commanded(
    plan: TestPlan, repo: str, test_patch: str, command: str = "", parser: str = "", activate: str = CONDA
) -> TestPlan:
    """Run `command` (default: the repository's own) on the test files; the test patch is put back before it."""
    own = OLDER.get(repo, (PYTEST, "parse_log_pytest_options"))
    files = directives(plan, repo, test_patch)
    if files and "pytest" in (command or own[0]):
        files.append("test_CRRL_CANARY.py")  # its end is told by a test of the judge's own
    line = f"{command or own[0]} {' '.join(shlex.quote(name) for name in files)}"
    return replace(
        plan,
        command=Command(["bash", "-c", activate + line]),
        parser=f"swebench:{parser or own[1]}:pass_and_fail",
        test_patch=test_patch,
    )


def directives(plan: TestPlan, repo: str, test_patch: str) -> list[str]:
    """The arguments of the test command: the files of the test patch, as in the official harness and as the
    repository's runner wants them; without such a patch, the files that contain the listed tests."""
    listed = [test.split("::")[0] for test in (*plan.fail_to_pass, *plan.pass_to_pass) if "::" in test]
    files = sorted({path for path in (touched(test_patch) or listed) if path.endswith(".py")})
    if repo == "django/django":
        return [path.removeprefix("tests/").removesuffix(".py").replace("/", ".") for path in files]
    return files


def language_of(paths: list[str]) -> str:
    """The language of most of these files, "" if unknown."""
    suffixes = Counter(LANGUAGES.get(PurePosixPath(path).suffix, "") for path in paths)
    del suffixes[""]
    return suffixes.most_common(1)[0][0] if suffixes else ""


def image_name(user: str, id: str, separator: str) -> str:
    """How the corpora name the image of an instance on Docker Hub."""
    return f"{user}/sweb.eval.x86_64.{id.replace('__', separator).lower()}:latest"
