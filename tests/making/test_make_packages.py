"""`crrl tasks make` on real packages, unpacked from PyPI sdists that carry their tests: at least 30 tasks each.

Heavy, and needs the network: `make test-corpora`. MINUTES is a wall-clock target for two free cores; a machine that
others use at the same time is told from the CPU-seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.tasks.files import load_tasks

WANTED, MINUTES, CORES = 30, 10, 2
PIP = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]


@pytest.mark.corpora
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("package", ["toolz==1.2.0", "boltons==26.2.0"])
def test_thirty_tasks(package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--no-binary", package.partition("==")[0], "--dest", str(tmp_path), package]
    got = subprocess.run([*PIP, *words], capture_output=True, text=True, check=False)
    if got.returncode != 0:
        pytest.skip(f"no sdist of {package} here: {got.stderr[-300:]}")
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    root, out = tmp_path / archive.name.removesuffix(".tar.gz"), tmp_path / "made.jsonl"
    assert main(["tasks", "make", str(root), f"out={out}", f"limit={WANTED}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    tasks, problems = load_tasks(out)
    assert len(tasks) >= WANTED and not problems
    assert told["cpu_seconds"] < MINUTES * 60 * CORES, told
    with capsys.disabled():
        print(f"\n{package}: {told}")
