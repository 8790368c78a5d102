"""What real histories hold: renamed and deleted tests, binary files, symlinks, submodules, merges, shallow clones,
options of absent plugins, commits whose packages cannot be had, tests that only the repair lets compile."""

from __future__ import annotations

from pathlib import Path

import pytest
from history_kit import BUGGY, FIXED, ONE, TWO, commit, git

from crrl.cli.main import main
from crrl.errors import CrrlError
from crrl.making import mined_issue, plans
from crrl.tasks.files import load_tasks


def mine(root: Path, *words: str) -> tuple[int, Path]:
    out = root.parent / "mined.jsonl"
    return main(["tasks", "mine", str(root), f"out={out}", "times=1", "network=no", *words]), out


BASE: dict[str, str | bytes | None] = {"m.py": BUGGY, "tests/test_m.py": ONE}
THREE = "\n\ndef test_three():\n    assert f(3) == 4\n"
KINDS: dict[str, dict[str, str | bytes | None]] = {
    "renamed": {"tests/test_m.py": None, "tests/test_more.py": TWO},
    "another deleted": {"tests/test_m.py": TWO, "tests/test_old.py": None},
    "binary": {"tests/test_m.py": TWO, "tests/data.bin": b"\x00\xff\xfe" * 20},
    "latin-1": {"tests/test_m.py": b"# -*- coding: latin-1 -*-\n# M\xfcller\n" + TWO.encode()},
    "crlf": {"tests/test_m.py": TWO.replace("\n", "\r\n")},
    "new folder": {"tests/unit/test_m_unit.py": TWO},
    "beside the code": {"test.py": TWO},
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_commit_does_to_its_tests(kind: str, tmp_path: Path) -> None:
    root = tmp_path / "project"
    commit(root, "start", {**BASE, "tests/test_old.py": "def test_old():\n    pass\n"})
    commit(root, "f of two is wrong", {"m.py": FIXED, **KINDS[kind]})
    code, out = mine(root, "setup=none")
    assert code == 0
    (task,), _ = load_tasks(out)
    assert [test.rpartition("::")[2] for test in task.test.fail_to_pass] == ["test_two"]
    assert main(["tasks", "check", str(out), "times=1"]) == 0


@pytest.mark.timeout(600)
def test_links_and_submodules_among_tests_are_left_alone(tmp_path: Path) -> None:
    other, root = tmp_path / "other", tmp_path / "project"
    commit(other, "start", {"data.txt": "1"})
    commit(root, "start", BASE)
    (root / "tests/link").symlink_to("test_m.py")
    git(root, "submodule", "add", "-q", str(other), "tests/other")
    commit(root, "f of two is wrong", {"m.py": FIXED, "tests/test_m.py": TWO})
    code, out = mine(root, "setup=none")
    assert code == 0
    (task,), _ = load_tasks(out)
    assert list(task.test.restore_from) == ["tests/test_m.py"]


@pytest.mark.timeout(600)
def test_options_of_absent_plugins_in_the_configuration(tmp_path: Path) -> None:
    root = tmp_path / "project"
    config = "[pytest]\naddopts = --cov=m --strict-config\nrequired_plugins = pytest-nowhere\nminversion = 99\n"
    commit(root, "start", {**BASE, "pytest.ini": config})
    commit(root, "f of two is wrong", {"m.py": FIXED, "tests/test_m.py": TWO})
    code, out = mine(root, "setup=none")
    assert code == 0 and main(["tasks", "check", str(out), "times=1"]) == 0


@pytest.mark.timeout(600)
def test_fixtures_of_plugins_in_the_environment(tmp_path: Path) -> None:
    root, site = tmp_path / "project", "lib/python3*/site-packages"
    commit(root, "start", BASE)
    test = TWO.replace("def test_two():", "def test_two(two):").replace("f(2)", "f(two)")
    commit(root, "f of two is wrong", {"m.py": FIXED, "tests/test_m.py": test})
    plugin = "import pytest\\n\\n@pytest.fixture\\ndef two():\\n    return 2\\n"
    entry = "[pytest11]\\ntwo = pytest_two\\n"
    made = (
        f"cd /environment/{site} && printf '{plugin}' > pytest_two.py && mkdir pytest_two-1.dist-info && "
        f"printf '{entry}' > pytest_two-1.dist-info/entry_points.txt && "
        "printf 'Metadata-Version: 2.1\\nName: pytest-two\\nVersion: 1\\n' > pytest_two-1.dist-info/METADATA"
    )
    code, out = mine(root, f"setup={made}")
    assert code == 0
    (task,), _ = load_tasks(out)
    assert [test.rpartition("::")[2] for test in task.test.fail_to_pass] == ["test_two"]


@pytest.mark.timeout(600)
def test_python_files_that_a_set_up_generates_are_part_of_the_task(tmp_path: Path) -> None:
    """A version, a parser: without it nothing can be imported."""
    root = tmp_path / "project"
    generated = "from _version import VERSION\n\n\n"
    commit(root, "start", {**BASE, "m.py": generated + BUGGY})
    commit(root, "f of two is wrong", {"m.py": generated + FIXED, "tests/test_m.py": TWO})
    code, out = mine(root, "setup=echo 'VERSION = 1' > _version.py")
    assert code == 0
    (task,), _ = load_tasks(out)
    assert "_version.py" in "".join(task.source.patches) and "b/_version.py" not in (task.solution or "")
    assert main(["tasks", "check", str(out), "times=1"]) == 0


@pytest.mark.timeout(600)
def test_each_refused_commit_gets_its_reason_and_is_not_met_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "project"
    commit(root, "start", BASE)
    bad = commit(root, "fix: nothing can be imported", {"m.py": "import nowhere\n", "tests/test_m.py": TWO})
    commit(root, "fix: f of two", {"m.py": FIXED, "tests/test_m.py": TWO + THREE})
    big = "".join(f"x{n} = {n}\n" for n in range(600))
    large = commit(root, "fix: many", {"m.py": FIXED + big, "tests/test_m.py": TWO})
    code, out = mine(root, "setup=none")
    said = capsys.readouterr().err
    assert code == 0, said
    assert f"{bad[:12]}  unavailable: needs the Python module nowhere" in said and f"{large[:12]}  too large: " in said
    assert "1 unavailable, most often: needs the Python module nowhere" in said
    work = out.with_suffix(".work").read_bytes()
    assert mine(root, "setup=none")[0] == 0
    assert out.with_suffix(".work").read_bytes() == work and bad[:12] not in capsys.readouterr().err


@pytest.mark.timeout(600)
def test_a_commit_whose_packages_cannot_be_had_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "project"
    commit(root, "start", {**BASE, "setup.sh": "exit 3\n"})
    commit(root, "fix: f", {"m.py": FIXED, "tests/test_m.py": TWO})
    commit(root, "later", {"setup.sh": "exit 0\n", "m.py": BUGGY, "requirements.txt": "\n"})
    commit(root, "fix: f again", {"m.py": FIXED, "tests/test_m.py": TWO + "\n"})
    code, _ = mine(root, "setup=sh setup.sh")
    said = capsys.readouterr().err
    assert code == 0 and "1 unavailable, most often: Set-up failed (exit code 3)" in said, said


def test_shallow_clones_and_no_repository_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, shallow = tmp_path / "project", tmp_path / "shallow"
    commit(root, "start", BASE)
    commit(root, "fix", {"m.py": FIXED, "tests/test_m.py": TWO})
    git(tmp_path, "clone", "-q", "--depth=1", root.as_uri(), str(shallow))
    assert mine(shallow)[0] == 1
    assert "git fetch --unshallow" in capsys.readouterr().err
    (tmp_path / "folder").mkdir()
    assert mine(tmp_path / "folder")[0] == 1 and mine(tmp_path / "nowhere")[0] == 1
    assert mine(root, "since=yesterday")[0] == 2


@pytest.mark.timeout(600)
def test_tests_that_only_the_repair_lets_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where names are missing the issue tells their signatures; where nobody can say what, there is no task."""
    root = tmp_path / "project"
    commit(root, "start", BASE)
    test = "from m import f, g\n\n\ndef test_g():\n    assert g(1, by=2) == 3\n"
    commit(
        root,
        "fix: g was never there",
        {"m.py": FIXED + "\n\ndef g(x, *, by):\n    return x + by\n", "tests/test_m.py": test},
    )
    code, out = mine(root, "setup=none")
    assert code == 0
    (task,), _ = load_tasks(out)
    assert "`def g(x, *, by)` in m.py" in task.issue and "return x + by" not in task.issue
    other = tmp_path / "other" / "project"
    other.parent.mkdir()
    commit(other, "start", {"m.py": "import nowhere\n" + BUGGY, "tests/test_m.py": ONE})
    commit(other, "fix the import", {"m.py": FIXED, "tests/test_m.py": TWO})
    assert mine(other, "setup=none")[0] == 1
    assert "1 nothing runs before the repair" in capsys.readouterr().err


SOLUTION = """diff --git a/p.go b/p.go
--- a/p.go
+++ b/p.go
@@ -1,3 +1,3 @@
 func Open(name string) error {
-	return err
+	return fmt.Errorf("opening %s: %w", name, retryLimit)
 }
"""


@pytest.mark.parametrize(
    "message, told",
    [
        ("Open loses the name of the file.", True),
        ("Open loses the name of the file. Use fmt.Errorf to wrap it.", False),
        ("Open loses the name of the file.\n\nNow wraps the error with Errorf().", False),
        ("use fmt.Errorf in Open", False),
        ("Open gives up at once instead of respecting `retryLimit`", False),
        ('return fmt.Errorf("opening %s: %w", name, retryLimit)', False),
    ],
)
def test_repairs_told_in_prose(message: str, told: bool) -> None:
    text = mined_issue.report(message, SOLUTION, "")
    assert not {"Errorf", "retryLimit"} & set(mined_issue.NAME.findall(text.replace(".", " ")))
    assert (text == message) is told
    assert bool(text) is message.startswith("Open loses")


def test_commands_are_made_to_report() -> None:
    rust = plans.plan("rust", ["cargo", "test", "--all"], [], {})
    assert rust.command.argv == ["cargo", "test", "--no-fail-fast", "--all"]
    rust = plans.plan("rust", ["env", "A=1", "cargo", "+stable", "test", "--", "slow"], [], {})
    assert rust.command.argv == ["env", "A=1", "cargo", "+stable", "test", "--no-fail-fast", "--", "slow"]
    with pytest.raises(CrrlError, match="go on after a failure"):
        plans.plan("rust", ["sh", "-c", "cargo test"], [], {})
    plans.check("rust", ["cargo", "test", "--test", "quick-q"])
    jest = plans.plan("javascript", ["npx", "jest"], [], {})
    assert jest.command.argv[2:] == ["--json", "--outputFile=.crrl/report.json"] and jest.report is not None
    assert plans.plan("javascript", ["npm", "test"], [], {}).command.argv[2] == "--"
    assert plans.plan("python", ["python3", "-m", "pytest", "-x"], ["t.py"], {}).command.argv == ["-x"]
    assert plans.plan("python", ["sh", "-c", "run --junitxml"], [], {}).parser == "pytest-xml"
    for language, test in [
        ("rust", ["cargo", "test", "--", "--nocapture"]),
        ("rust", ["env", "RUST_TEST_NOCAPTURE=1", "cargo", "test"]),
        ("rust", ["cargo", "test", "-q"]),
        ("rust", ["cargo", "test", "--", "--format=json"]),
        ("rust", ["cargo", "nextest", "run"]),
        ("javascript", ["npx", "vitest", "run"]),
        ("javascript", ["node", "--test"]),
        ("go", ["go", "test", "./..."]),
        ("go", []),
        ("cobol", ["make"]),
    ]:
        with pytest.raises(CrrlError):
            plans.check(language, test)
