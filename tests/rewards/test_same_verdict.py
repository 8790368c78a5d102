"""The judge says what plain `python -m pytest` says."""

# ruff: noqa: E501 (programs in strings)
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from judge_kit import FILES, make_task

from crrl.rewards.judge import PytestJudge

LIBRARY = "def inc(x):\n    return x + 1\n"
TREES: dict[str, dict[str, str]] = {
    "pass and fail": {k: v for k, v in FILES.items() if k != "pyproject.toml"},
    "skips and expected failures": {
        "tests/test_it.py": "import pytest\n\n@pytest.mark.skip\ndef test_s():\n    pass\n\n"
        "@pytest.mark.xfail\ndef test_x():\n    assert 0\n\n@pytest.mark.xfail\ndef test_xp():\n    pass\n\n"
        "@pytest.mark.xfail(strict=True)\ndef test_xs():\n    pass\n\ndef test_dyn():\n    pytest.skip('no')\n"
        "def test_ok():\n    pass\n"
    },
    "parametrised": {
        "lib.py": LIBRARY,
        "tests/test_it.py": "import pytest\nfrom lib import inc\n\n"
        "@pytest.mark.parametrize('a,b', [(1, 2), (2, 4), ('x y', 3)], ids=['one', 'two', 'sp ace'])\n"
        "def test_p(a, b):\n    assert inc(a) == b\n",
    },
    "errors in fixtures": {
        "tests/test_it.py": "import pytest\n\n@pytest.fixture\ndef up():\n    1 / 0\n\n@pytest.fixture\ndef down():\n"
        "    yield 1\n    1 / 0\n\ndef test_a(up):\n    pass\n\ndef test_b(down):\n    pass\n\n"
        "def test_c(down):\n    assert 0\n\ndef test_d(nothing):\n    pass\n"
    },
    "conftest and fixtures of the repository": {
        "conftest.py": "import pytest\n\n@pytest.fixture(scope='session')\ndef base():\n    return 41\n",
        "tests/conftest.py": "import pytest\n\n@pytest.fixture(autouse=True)\ndef env(monkeypatch):\n"
        "    monkeypatch.setenv('X', '1')\n\ndef pytest_collection_modifyitems(items):\n    items.reverse()\n",
        "lib.py": LIBRARY,
        "tests/test_it.py": "import os\nfrom lib import inc\n\ndef test_1(base):\n    assert inc(base) == 42\n\n"
        "def test_2(tmp_path, capsys, caplog):\n    (tmp_path / 'f').write_text('x')\n    print('hi')\n"
        "    assert capsys.readouterr().out == 'hi\\n'\n    assert os.environ['X'] == '1'\n",
    },
    "classes and unittest": {
        "lib.py": LIBRARY,
        "tests/__init__.py": "",
        "tests/test_it.py": "import unittest\nfrom lib import inc\n\nclass TestA:\n    def setup_method(self):\n"
        "        self.x = 1\n    def test_m(self):\n        assert inc(self.x) == 2\n    def test_n(self):\n"
        "        assert inc(self.x) == 3\n\nclass Old(unittest.TestCase):\n    def setUp(self):\n        self.y = 2\n"
        "    def test_u(self):\n        self.assertEqual(inc(self.y), 3)\n    def test_sub(self):\n"
        "        for i in range(3):\n            with self.subTest(i=i):\n                self.assertNotEqual(i, 1)\n"
        "    @unittest.skip('no')\n    def test_skip(self):\n        pass\n",
    },
    "error in collection": {
        "lib.py": "1 / 0\n",
        "tests/test_it.py": "from lib import inc\n\ndef test_a():\n    pass\n",
        "tests/test_other.py": "def test_b():\n    pass\n",
    },
    "settings of the repository": {
        "pytest.ini": "[pytest]\naddopts = -x --strict-markers\npythonpath = src\npython_functions = check_*\n"
        "markers = slow: is slow\n",
        "src/pkg/__init__.py": "VALUE = 3\n",
        "tests/test_it.py": "import pytest\nfrom pkg import VALUE\n\ndef check_a():\n    assert VALUE == 3\n\n"
        "@pytest.mark.slow\ndef check_b():\n    assert 0\n\ndef check_c():\n    pass\n",
    },
    "processes, threads, clocks, frames": {
        "lib.py": "import collections, inspect, logging, threading\nP = collections.namedtuple('P', 'x y')\n"
        "def work():\n    out = []\n    t = threading.Thread(target=lambda: out.append(P(1, 2)))\n    t.start()\n"
        "    t.join()\n    logging.getLogger('x').warning('done')\n    return out, inspect.currentframe().f_code.co_name\n",
        "tests/test_it.py": "import gc, multiprocessing, os, subprocess, sys, time\nfrom lib import work\n\n"
        "def test_w():\n    assert work()[1] == 'work'\n\ndef test_s():\n"
        "    assert subprocess.check_output([sys.executable, '-c', 'print(1)']) == b'1\\n'\n\n"
        "def test_f():\n    pid = os.fork()\n    if pid == 0:\n        os._exit(3)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3\n\n"
        "def test_m():\n    with multiprocessing.Pool(2) as p:\n        assert p.map(abs, [-1, 2]) == [1, 2]\n\n"
        "def test_g():\n    assert gc.get_objects()\n",
    },
}
WORDS = {
    "PASSED": "passed",
    "FAILED": "failed",
    "ERROR": "error",
    "SKIPPED": "skipped",
    "XFAIL": "skipped",
    "XPASS": "passed",
}
LINE = re.compile(r"^(\S+?::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", re.MULTILINE)


def plain(files: dict[str, str], folder: Path) -> dict[str, str]:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    command = [sys.executable, "-m", "pytest", "-v", "--color=no", "-p", "no:cacheprovider", "tests"]
    env = {"PATH": "/usr/bin:/bin", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "300"}
    said = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False).stdout
    found: dict[str, str] = {}
    for name, word in LINE.findall(said):
        # a failing test whose tear-down fails too is reported twice: it failed
        found[name] = WORDS[word] if found.get(name) != "failed" else "failed"
    return found


@pytest.mark.parametrize("name", TREES)
async def test_same_ids_and_statuses_as_plain_pytest(judge: PytestJudge, tmp_path: Path, name: str) -> None:
    files = TREES[name]
    expected = plain(files, tmp_path)
    names = [*expected, "tests/test_it.py::test_that_is_not_there"]
    results = await judge.run(make_task(files, fail=names, keep=[]), "")
    assert results.reason == "complete", results
    assert results.exploits == []
    assert {k: v for k, v in results.tests.items() if v != "missing"} == expected, results.output
    assert results.tests["tests/test_it.py::test_that_is_not_there"] == "missing"
    assert expected or name == "error in collection"
