"""`engine=remote` end to end: the shipped policy behind its own server does what it does here, and no key is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_kit import KEY

from crrl.cli.main import main
from crrl.evaluation.compare import compare, incomparable
from crrl.evaluation.results import read
from crrl.rollout.journal import Journal

pytestmark = pytest.mark.timeout(300)
SMALL = ("evaluation.tasks_per_split=3", "evaluation.splits=[rl_instances]", "evaluation.decodings=[greedy]")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TEST_KEY", KEY)
    words = ["serve", "tiny", "port=0", "engine.threads=1", "sampling=agent", f"api_key={KEY}", "model=mine", "--json"]
    server = subprocess.Popen([sys.executable, "-m", "crrl.cli.main", *words], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["openai"]
    finally:
        server.kill()
        server.wait()


def test_a_policy_behind_an_endpoint_is_the_same_policy(
    tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy: the same patches, the same tokens counted, by another way; `crrl compare` sees no difference but that."""
    remote = ("mine", "engine=remote", f"engine.url={served}", "engine.key_variable=TEST_KEY", "run=remote")
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "tiny", *SMALL, "run=here", "engine.threads=1"]) == 0
    assert main(["eval", *remote, *SMALL]) == 0
    told = json.loads((tmp_path / "runs/here/summary.json").read_text())["evaluation"]
    found = json.loads((tmp_path / "runs/remote/summary.json").read_text())["evaluation"]
    assert (found["policy"], found["checkpoint"], found["weights"]) == ("mine", served, "")
    patches, metrics = [], []
    for name, told_of in (("here", told), ("remote", found)):
        with Journal.open(tmp_path / "runs" / name, read_only=True) as journal:
            patches.append({e.task: e.patch for e in journal.episodes("eval")})
        metrics.append(told_of["metrics"]["rl_instances"]["greedy"])
    assert patches[0] == patches[1] and any(patches[0].values())
    assert metrics[0]["per_episode"]["tokens"] == metrics[1]["per_episode"]["tokens"]
    assert metrics[0]["per_episode"]["prompt_tokens"] == metrics[1]["per_episode"]["prompt_tokens"]
    results = [read(str(tmp_path / "runs" / name)) for name in ("here", "remote")]
    assert compare(results).comparisons[0].points == 0 and not incomparable(results)
    kept = b"".join(p.read_bytes() for p in (tmp_path / "runs/remote").rglob("*") if p.is_file())
    assert KEY.encode() not in kept and b"TEST_KEY" in kept


def test_what_an_endpoint_cannot_do_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    url = "engine.url=http://127.0.0.1:9/v1"
    for words, said in (
        (["train", "quickstart", "engine=remote", url], "cannot be trained on"),
        (["serve", "tiny", "engine.name=remote", url], "is served already"),
        (["eval", "big", "engine=remote"], "Where is the endpoint?"),
        (["eval", "big", "engine=remote", url, "engine.dtype=bfloat16"], "engine.dtype would be ignored"),
        (["eval", "big", "engine=remote", url, "engine.model=other"], "engine.model would be ignored"),
        (["eval", "big", "engine=remote", url, "evaluation.top_k=3"], "evaluation.top_k does not exist"),
        (["eval", "tiny", url], "engine.url would be ignored"),
    ):
        assert main([*words, "--dry-run"] if words[0] != "serve" else words) == 2, words
        assert said in capsys.readouterr().err, words
    assert not (tmp_path / "runs").exists()
