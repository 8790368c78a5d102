"""The set-up that a project's own files ask for, today and as of a date."""

from __future__ import annotations

from pathlib import Path

import pytest

from crrl.errors import CrrlError
from crrl.tasks.setup.project import setup

OLD_STYLE = """
EXTRAS_REQUIRE = {
    "reco": ["python-dateutil"],
    "tests": ["pytest"],
}
EXTRAS_REQUIRE["dev"] = EXTRAS_REQUIRE["reco"] + EXTRAS_REQUIRE["tests"]
setup(name="x", extras_require=EXTRAS_REQUIRE)
"""


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def words(root: Path, when: str = "") -> list[list[str]]:
    """What each command installs, options of dates and builds left out."""
    found = []
    for command in setup(root, when):
        argv = command.argv if command.argv[0] == "uv" else command.argv[2].split(" || ")[0].replace("'", "").split()
        taken = iter(argv[4:])
        found.append([w for w in taken if not (w.startswith(("--exclude-newer", "--config-setting")) and next(taken))])
    return found


def test_nothing_is_asked_for(tmp_path: Path) -> None:
    assert setup(tmp_path) == []
    assert words(tmp_path, "2021-05-01") == [["pytest", "setuptools"]]


def test_project_extras_groups_and_files(tmp_path: Path) -> None:
    toml = '[project]\nname = "x"\n[project.optional-dependencies]\ntest = []\ndev = []\n'
    tree(tmp_path, pyproject_dot_toml=toml + '[dependency-groups]\ntests = ["mock", {include-group = "dev"}]\n')
    tree(tmp_path, requirements_dot_txt="six\n", requirements__dev_dot_txt="tox\n")
    assert words(tmp_path)[0] == ["pytest", "-r", "requirements.txt", "mock", "-e", ".[test]"]
    assert words(tmp_path, "2021-05-01") == [
        ["pytest", "setuptools", "mock", "-e", ".[test]"],
        ["-r", "requirements.txt"],
        ["-r", "requirements/dev.txt"],
        ["-e", ".[dev]"],
        ["--no-deps", "-e", "."],  # a developer's tool may have brought a released copy of the project
    ]


def test_what_developers_install_comes_along(tmp_path: Path) -> None:
    groups = 'base = ["ruff", {include-group = "dev"}]\ndev = ["trustme", {include-group = "base"}]\n'
    toml = f'[project]\nname = "x"\n[dependency-groups]\n{groups}'
    tree(tmp_path, pyproject_dot_toml=toml, requirements__dev_dot_txt="tox\n")
    assert words(tmp_path) == [
        ["pytest", "-e", "."],
        ["-r", "requirements/dev.txt"],
        ["trustme", "ruff", "-e", "."],
        ["--no-deps", "-e", "."],
    ]
    assert [command.argv[0] for command in setup(tmp_path)] == ["uv", "sh", "sh", "uv"]


def test_the_extra_that_lists_pytest_where_no_name_says_so(tmp_path: Path) -> None:
    extras = '[project.optional-dependencies]\nall = ["ruff", "pytest >= 8", "hypothesis"]\ncov = ["pytest-cov"]\n'
    tree(tmp_path, pyproject_dot_toml=f'[project]\nname = "x"\n{extras}')
    assert words(tmp_path) == [["pytest", "-e", "."], ["-e", ".[all]"], ["--no-deps", "-e", "."]]
    groups = '[dependency-groups]\nci = ["pytest", "mock"]\n'
    tree(tmp_path, pyproject_dot_toml=f'[project]\nname = "x"\n{extras}{groups}')
    assert words(tmp_path)[1] == ["pytest", "mock", "-e", "."]  # the smallest
    tree(tmp_path, pyproject_dot_toml=f'[project]\nname = "x"\n{extras}test = ["mock"]\n')
    assert words(tmp_path) == [["pytest", "-e", ".[test]"]]
    tree(
        tmp_path,
        pyproject_dot_toml="",
        setup_dot_py="",
        setup_dot_cfg="[options.extras_require]\nci =\n  pytest\n  mock\n",
    )
    assert words(tmp_path)[1] == ["-e", ".[ci]"]


def test_extras_of_old_set_ups(tmp_path: Path) -> None:
    tree(tmp_path, setup_dot_py=OLD_STYLE)
    assert words(tmp_path, "2019-03-01") == [
        ["pytest", "setuptools", "-e", ".[tests]"],
        ["-e", ".[dev]"],
        ["--no-deps", "-e", "."],
    ]
    (tmp_path / "setup.py").write_text("setup()")
    tree(tmp_path, setup_dot_cfg="[options.extras_require]\ntesting = mock\n")
    assert words(tmp_path, "2019-03-01") == [["pytest", "setuptools", "-e", ".[testing]"]]


def test_packages_are_of_a_month_s_end(tmp_path: Path) -> None:
    tree(tmp_path, requirements_dot_txt="six\n")
    needed, optional = setup(tmp_path, "2021-05-03T10:00:00Z")
    limits = dict(zip(needed.argv, needed.argv[1:], strict=False))
    assert limits["--exclude-newer"] == "2021-06-01"
    assert "setuptools=2023-06-01" in needed.argv and "pytest=2023-06-01" in needed.argv
    assert "pytest=2024-09-01" in setup(tmp_path, "2024-08-10")[0].argv
    # what can no longer be installed is done without; any other failure is one
    assert optional.argv[:2] == ["sh", "-c"] and optional.argv[2].endswith("-r requirements.txt || [ $? -eq 1 ]")
    assert setup(tmp_path, "2021-05-30") == setup(tmp_path, "2021-05-03")  # one environment for both


def test_other_build_tools_get_no_setting_of_setuptools(tmp_path: Path) -> None:
    tree(tmp_path, setup_dot_py="")
    assert "editable_mode=compat" in setup(tmp_path)[0].argv
    tree(tmp_path, pyproject_dot_toml='[build-system]\nbuild-backend = "mesonpy"\nrequires = ["meson-python"]\n')
    assert "editable_mode=compat" not in setup(tmp_path)[0].argv


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CrrlError, match=r"pyproject\.toml: "):
        setup(tree(tmp_path, pyproject_dot_toml="[project"))
