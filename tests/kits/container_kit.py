"""Images without a registry: a root of this host's own programs, with a repository in /testbed whose history holds its
repair; and the engines that answer here.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import docker
import pytest

from crrl.errors import CrrlError
from crrl.sandbox.containers.engine import ContainerEngine
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.diffs import between

PROGRAMS = "bash sh cat ls rm cp mv mkdir ln sleep kill env head wc grep sed id chmod true find git tar ps yes setsid"
PYTHON = "python3.11"
LIBRARY = f"/usr/lib/{PYTHON}"
LEFT_OUT = ("test", "__pycache__", "idlelib", "tkinter", "ensurepip", "lib2to3")
BUGGY, FIXED = "def add(a, b):\n    return a - b\n", "def add(a, b):\n    return a + b\n"
TEST = "from calc import add\n\n\ndef test_zero():\n    assert add(0, 0) == 0\n"
TEST_AFTER = TEST + "\n\ndef test_add():\n    assert add(2, 2) == 4\n"
IMAGE, WORKER_IMAGE = "localhost/crrl-test-bed:latest", "localhost/crrl-test-worker:latest"
CORPORA_IMAGE = "localhost/crrl-test-corpora:latest"
SCRIPT = """set -uxo pipefail
git status
git apply -v - <<'EOF'
%sEOF
: '>>>>> Start Test Output'
python3 runner.py
: '>>>>> End Test Output'
"""
# What SWE-bench's images have pytest for; its summary is what the log parser reads.
RUNNER = """import importlib, sys
sys.path.insert(0, '.')
for file in [word for word in sys.argv[1:] if word.endswith('.py')] or ['test_calc.py']:
    tests = importlib.import_module(file[:-3])
    for name in sorted(vars(tests)):
        if name.startswith('test_'):
            try:
                getattr(tests, name)()
                print(f'PASSED {file}::{name}')
            except Exception as error:
                print(f'FAILED {file}::{name} - {error!r}')
"""


# What images of other corpora have: SWE-bench Pro its repository in /app, SWE-smith conda and pytest, R2E-Gym a script
# in the repository and the hidden tests outside.
OF_CORPORA = {
    "opt/miniconda3/bin/activate": "conda() { :; }\n",
    "usr/bin/pytest": '#!/bin/bash\nexec python3 runner.py "$@"\n',
    "testbed/run_tests.sh": "echo ===== short test summary info =====\nPYTHONPATH=. python3 r2e_tests/run.py\n"
    "python3 runner.py $PYTEST_ADDOPTS\n",
    "r2e_tests/run.py": """from calc import add
print('PASSED' if add(2, 2) == 4 else 'FAILED', 'r2e_tests/test_1.py::test_add')
print('PASSED' if add(0, 0) == 0 else 'FAILED', 'r2e_tests/test_1.py::test_zero')
""",
}


def engine_or_skip(name: str) -> ContainerEngine:
    """Where CI says that there are engines, one that does not answer is a failure."""
    try:
        return ContainerEngine(name)
    except CrrlError as error:
        reason = f"no {name} here: {error.message}"
        pytest.fail(reason) if name in os.environ.get("CRRL_ENGINES", "").split() else pytest.skip(reason)


def put_image(engine: ContainerEngine, name: str = IMAGE, *, user: str = "") -> None:
    """`CORPORA_IMAGE` has what is in `OF_CORPORA`, too."""
    client = docker.APIClient(base_url=engine.address, version="1.41", timeout=300)
    changes = ["ENV PATH=/usr/local/bin:/usr/bin:/bin", "ENV OF_THE_IMAGE=yes", "VOLUME /var/data"]
    changes += [f"USER {user}"] if user else []
    repository, _, tag = name.rpartition(":")
    client.import_image_from_data(_root(name == CORPORA_IMAGE), repository=repository, tag=tag, changes=changes)
    client.close()


def drop_image(engine: ContainerEngine, name: str) -> None:
    engine.delete(name)


@functools.cache
def history() -> tuple[Path, str, str]:
    """(repository, base commit, commit of the repair): checked out at the base, the repair in its objects."""
    folder = Path(tempfile.mkdtemp(prefix="crrl-testbed-"))
    folder.chmod(0o755)
    files = {"calc.py": BUGGY, "test_calc.py": TEST, "runner.py": RUNNER, ".gitignore": "build/\n"}
    for name, text in files.items():
        (folder / name).write_text(text)
    os.symlink("calc.py", folder / "link.py")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "base")
    base = git(folder, "rev-parse", "HEAD")
    (folder / "calc.py").write_text(FIXED)
    (folder / "test_calc.py").write_text(TEST_AFTER)
    git(folder, "commit", "-qam", "the repair and its test")
    fix = git(folder, "rev-parse", "HEAD")
    git(folder, "reset", "-q", "--hard", base)
    git(folder, "gc", "-q")
    return folder, base, fix


def git(folder: Path, *args: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", folder, *identity, *args], check=True, capture_output=True, text=True
    ).stdout.strip()


def image_task(**changed: Any) -> Task:
    """As a row of SWE-bench, version 5, becomes: its image, script and log parser."""
    diff = between("test_calc.py", TEST, TEST_AFTER)
    plan = TestPlan(
        command=Command(["bash", "-c", SCRIPT % diff]),
        parser="swebench:parse_log_pytest:pass_and_fail",
        fail_to_pass=["test_calc.py::test_add"],
        pass_to_pass=["test_calc.py::test_zero"],
        protect=["test_calc.py"],
        timeout_s=60.0,
    )
    values = {
        "id": "owner__calc-1",
        "corpus": "swe-bench",
        "split": "test",
        "language": "python",
        "family": "owner/calc",
        "source": Source(
            repo="https://github.com/owner/calc", base_commit=history()[1], image=IMAGE, workdir="/testbed"
        ),
        "issue": "add(2, 2) is 0",
        "test": plan,
        "solution": between("calc.py", BUGGY, FIXED),
        **changed,
    }
    return Task(**values)


@functools.cache
def _root(of_corpora: bool) -> bytes:
    """A tar of /: the programs, their libraries, Python, /testbed, and a mirror of its history elsewhere."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("tmp", "proc", "dev", "sys", "root", "home/worker", "var/data", "usr/bin", "usr/lib", "opt"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            info.uid = info.gid = 1234 if folder.startswith("home") else 0
            tar.addfile(info)
        for name, target in (("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib"), ("sbin", "usr/bin")):
            _link(tar, name, target)
        binaries = [Path(found) for name in PROGRAMS.split() if (found := shutil.which(name, path="/usr/bin:/bin"))]
        binaries.append(Path(f"/usr/bin/{PYTHON}"))
        for binary in binaries:
            tar.add(binary.resolve(), f"usr/bin/{binary.name}", filter=_owned)
        _link(tar, "usr/bin/python3", PYTHON)
        modules = list(Path(LIBRARY, "lib-dynload").glob("*.so"))
        for library in _libraries([*binaries, *modules]):
            tar.add(library.resolve(), f"usr/lib/{library.name}", filter=_owned)
        tar.add(LIBRARY, LIBRARY[1:], filter=_library)
        _text(tar, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\nworker:x:1234:1234::/home/worker:/bin/bash\n")
        _text(tar, "etc/group", "root:x:0:\nworker:x:1234:\n")
        testbed = history()[0]
        tar.add(testbed, "testbed", filter=_owned)
        tar.add(testbed / ".git", "opt/mirror.git", filter=_owned)
        _text(tar, "testbed/build/old.o", "an artefact of the image's own build")
        if of_corpora:
            tar.add(testbed, "app", filter=_owned)
            _link(tar, "usr/bin/python", PYTHON)
            for name, text in OF_CORPORA.items():
                _text(tar, name, text, 0o755)
    return out.getvalue()


def _libraries(binaries: list[Path]) -> list[Path]:
    said = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    return sorted({Path(word) for word in said.split() if word.startswith("/") and not word.endswith(":")})


def _owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def _library(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    names = info.name.split("/")
    return None if set(names) & set(LEFT_OUT) or any(n.startswith("config-") for n in names) else _owned(info)


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)


def _text(tar: tarfile.TarFile, name: str, text: str, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(text.encode()), mode
    tar.addfile(info, io.BytesIO(text.encode()))
