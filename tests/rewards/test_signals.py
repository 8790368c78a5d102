"""What tool calls were for: commands, reads, edits, tests; failed and repeated ones; and the reward on them."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from crrl.gateway.canonical import Call
from crrl.rewards import make
from crrl.rewards.api import TestResults, Trace
from crrl.rewards.signals import Turn, counts, kinds_of, turns_of
from crrl.tasks.generator.generate import generate

TASK = generate("train", 0, 0)
TASK = replace(TASK, test=replace(TASK.test, fail_to_pass=["a", "b"], pass_to_pass=["c"]))
PATCH = "--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-b = 1\n+b = 2\n"


def shell(cmd: str) -> Call:
    return Call("shell", json.dumps({"cmd": cmd}))


def edit(old: str = "b = 1") -> Call:
    return Call("edit", json.dumps({"path": "m.py", "old": old, "new": "b = 2"}))


@pytest.mark.parametrize(
    ("cmd", "kinds"),
    [
        ("cat m.py", "reads"),
        ("grep x m.py | head -3", ""),
        ("cd src && head -n 20 m.py | grep x", "reads"),
        ("sed -n 1,20p m.py", "reads"),
        ("echo 'cat m.py'; ls", ""),
        ("sed -i s/1/2/ m.py", "edits"),
        ("perl -pi -e s/1/2/ m.py", "edits"),
        ("cat > m.py <<'EOF'\npytest\ncat x\nEOF", "edits"),
        ("cat <<EOF > m.py\nb = 2\nEOF\npython -m pytest -q", "edits tests"),
        ("echo x >> m.py", "edits"),
        ("make 2>&1 >/dev/null", ""),
        ("git diff > /tmp/mine.diff", ""),
        ("python -c 'x > 3'", ""),
        ("git apply fix.diff", "edits"),
        ("FOO=1 timeout 60 python3 -m pytest tests/test_m.py 2>&1 | tail -5", "tests"),
        ("pytest --version", ""),
        ("python tests/test_m.py", "tests"),
        ("./manage.py test", "tests"),
        ("python manage.py test app", "tests"),
        ("go test ./...", "tests"),
        ("cargo test --no-run", ""),
        ("npm run test", "tests"),
        ("./gradlew :core:test", "tests"),
        ("mvn -q test", "tests"),
        ("make check", "tests"),
        ("grep -rn pytest .", ""),
    ],
)
def test_kinds_of_commands(cmd: str, kinds: str) -> None:
    assert kinds_of(shell(cmd)) == {"commands", *kinds.split()}


@pytest.mark.parametrize(
    ("name", "arguments", "kinds"),
    [
        ("edit", {"path": "m.py", "old": "x", "new": "y"}, {"edits"}),
        ("edit", {"blocks": "m.py\n<<<<<<< SEARCH"}, {"edits"}),
        ("str_replace_editor", {"command": "view", "path": "m.py"}, {"reads"}),
        ("str_replace_editor", {"command": "str_replace", "path": "m.py", "old_str": "x"}, {"edits"}),
        ("write_file", {"path": "m.py", "content": "pytest"}, {"edits"}),
        ("read_file", {"path": "m.py"}, {"reads"}),
        ("shell", {"command": ["bash", "-lc", "pytest -q"]}, {"commands", "tests"}),
        ("execute_bash", {"command": "cat m.py"}, {"commands", "reads"}),
        ("finish", {}, set()),
    ],
)
def test_kinds_of_tools(name: str, arguments: dict, kinds: set[str]) -> None:
    assert kinds_of(Call(name, json.dumps(arguments))) == kinds


def test_calls_that_cannot_be_read_are_of_no_kind() -> None:
    for raw in ("", "{", "[1]", '{"cmd": 3}', '"cat"', "[" * 100_000):
        assert kinds_of(Call("shell", raw)) == set()


@pytest.mark.parametrize(
    ("cmd", "told", "failed"),
    [
        ("ls", "a\nb", 0),
        ("ls x", "ls: no such file\nexit code 2", 1),
        ("ls x", "<returncode>2</returncode><output>no such file</output>", 1),
        ("ls", "<returncode>0</returncode><output>error: is in the text</output>", 0),
        ("frob", "bash: frob: command not found", 1),
        ("sleep 99", "killed after 10 s", 1),
        ("pytest", "1 failed\nexit code 1", 0),  # it did what it is for
        ("pytest", "usage: ...\nexit code 4", 1),
        ("ls", '{"output": "", "metadata": {"exit_code": 1}}', 1),
        ("ls", "Process exited with code 3", 1),
    ],
)
def test_failed_commands(cmd: str, told: str, failed: int) -> None:
    assert turns_of([([shell(cmd)], told)])[0].failed == failed


def test_a_repeated_call_is_one_with_no_edit_in_between() -> None:
    said = [shell("pytest"), shell("pytest"), edit(), shell("pytest"), edit(), edit("b = 2"), shell(" pytest")]
    turns = turns_of([([call], "") for call in said])
    assert [turn.repeated for turn in turns] == [0, 1, 0, 0, 0, 0, 0]
    assert counts(turns) == {
        "commands": 4, "files_read": 0, "tests_run": 4, "failed": 0, "repeated": 1, "turns_before_edit": 2,
    }  # fmt: skip
    assert counts(turns_of([([], "words")])) == {}
    assert counts(turns_of([([shell("ls")], ""), ([], "")]))["turns_before_edit"] == 2, "there is no edit"


def test_hostile_texts_take_no_time() -> None:
    started = time.process_time()
    for text in ("<<a\n", "\n", "test", " ", "python -x ", "'", "a:", "exit code "):
        text *= 80_000 // len(text)
        turns_of([([shell(text)], text), ([shell("go " + text)], text)])
    assert time.process_time() - started < 5


def value(turns: list[Turn], passed: str = "abc", patch: str = PATCH) -> float | None:
    tests = {name: "passed" if name in passed else "failed" for name in "abc"}
    results = TestResults(tests, trace=Trace(turns=turns))  # type: ignore[arg-type]
    return make("process", {})(TASK, patch, results, [])


LOOK, EDIT, TEST = Turn(1, commands=1, reads=1), Turn(1, edits=1), Turn(1, commands=1, tests=1)


def test_the_reward() -> None:
    assert value([LOOK, EDIT, TEST]) == 1.0
    assert value([EDIT, TEST]) == value([LOOK, EDIT]) == value([LOOK, TEST, EDIT]) == pytest.approx(2 / 3)
    assert value([LOOK, replace(EDIT, failed=1), EDIT, TEST]) == pytest.approx((3 / 4 + 2) / 3)
    assert value([LOOK, EDIT, TEST, replace(TEST, failed=1, repeated=1)]) == pytest.approx((1 / 2 + 2) / 3)
    assert value([LOOK, EDIT, TEST], passed="ac") == 0.5, "half of what must flip does"
    assert value([]) is None and value([Turn()]) is None


def test_attacks_on_the_reward() -> None:
    ritual = [LOOK, EDIT, TEST]
    assert value(ritual, passed="c") == 0.0, "a comment, with everything done right around it"
    assert value(ritual, passed="") == value(ritual, patch="") == value([LOOK] * 50) == 0.0
    assert value([LOOK, TEST], passed="abc") == 0.0, "nothing was edited by a call"
    assert value([replace(TEST, failed=9, repeated=9)] * 3 + ritual) >= 0.0
    assert make("process", {})(TASK, PATCH, None, []) is None
