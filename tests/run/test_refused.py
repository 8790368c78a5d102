"""A run whose every request we refuse stops: such episodes are no zeros (invariant 2), and the cause is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from crrl.rollout.journal import Journal

ASKS = """
import json, os, sys, urllib.error, urllib.request
asked = {"model": os.environ["MODEL"], "messages": [{"role": "user", "content": "hello"}], **json.loads(sys.argv[1])}
url, key = os.environ["OPENAI_BASE_URL"] + "/chat/completions", os.environ["OPENAI_API_KEY"]
request = urllib.request.Request(url, json.dumps(asked).encode(), {"Authorization": f"Bearer {key}"})
request.add_header("Content-Type", "application/json")
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
REFUSED = '{"logit_bias": {"5": 1.0}}'


def train(folder: Path, state_dir: Path) -> subprocess.CompletedProcess[str]:
    recipe = {
        "defaults": ["quickstart", "_self_"],
        "agent": {
            "name": "command",
            "command": f"python3 ~/asks.py '{REFUSED}'",
            "files": {"asks.py": f"{{% raw %}}{ASKS}{{% endraw %}}"},
        },
        "renderer": {"key": "generic-text"},
        "rewards": {"weights": {"tests": 1.0}},
        "evaluation": {"tasks_per_split": 2, "splits": ["rl_instances"], "decodings": ["sampled"]},
    }
    (folder / "asking.yaml").write_text(yaml.safe_dump(recipe))
    words = [
        str(folder / "asking.yaml"),
        "run=r",
        f"runs_dir={folder}",
        f"sandbox.state_dir={state_dir}",
        "trainer.max_steps=0",
    ]
    argv = [sys.executable, "-m", "crrl.cli.main", "train", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.timeout(300)
def test_a_run_whose_every_request_is_refused_stops_and_says_why(tmp_path: Path, state_dir: Path) -> None:
    done = train(tmp_path, state_dir)
    assert "Traceback" not in done.stderr and done.returncode == 1, done.stderr
    assert "refused every request of the agent: 'logit_bias'" in done.stderr and "renderer.key" in done.stderr
    with Journal.open(tmp_path / "r", read_only=True) as journal:
        assert journal.phases() == {}, "an episode that we refused was scored"
        assert journal.lost_tries() == []
