"""Every command in README.md runs: taken from its text, in a folder of their own, with settings that make them short.

A command that stands in README.md and not in `COMMANDS` fails `test_each_command_is_known`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROGRAMS = ("crrl", "make", "python3", "pip", ".venv/bin/pip", "kill", "eval", "git", "apt-get", "curl", "uv", "docker")
SHORT_EVALUATION = (
    "evaluation.tasks_per_split=1",
    "evaluation.decodings=[greedy]",
    "evaluation.splits=[rl_instances]",
)
SHORT_TRAINING = (
    *("trainer.save_steps=1", "objective.groups_per_step=2", "objective.group_size=2"),
    *("evaluation.before=false", "evaluation.decodings=[greedy]", "evaluation.tasks_per_split=1"),
)
MAKE = ("-o", f"{sys.prefix}/.installed", f"VENV={sys.prefix}")  # the environment that is there, as it is

# Each command as README.md writes it -> the words that are added to make it short; None: it has a test of its own.
COMMANDS: dict[str, tuple[str, ...] | None] = {
    "make train": (*MAKE, "ARGS=--dry-run"),
    "make train SEED=103 ARGS=evaluation.tasks_per_split=400": None,
    "make test": (*MAKE, "ARGS=--collect-only -q tests/test_readme.py"),
    "make setup": MAKE,
    "crrl doctor": (),
    "crrl train quickstart": None,
    "crrl train resume=RUN": None,
    "kill -9": None,
    "crrl eval tiny": SHORT_EVALUATION,
    "crrl serve RUN": None,
    "crrl replay RUN": (),
    "crrl compare RUN:before RUN": None,
    "crrl criterion BASE TRAINED": None,
    "crrl plan-eval": (),
    "crrl export RUN OUT": (),
    "crrl sft RUN out=MODEL": ("threads=1",),
    "crrl gateway record FILE.jsonl upstream=URL": None,
    "crrl gateway check FILE.jsonl": None,
    "crrl tasks list generated": (),
    "crrl tasks list generated count=1 --json": (),
    "crrl tasks check FILE.jsonl": ("times=1",),
    "crrl tasks split FILE.jsonl held_out=20 out=FOLDER": (),
    "crrl tasks make REPO": ("limit=1", "times=1", "setup=none", "out=made.jsonl"),
    "crrl tasks spec REPO": None,
    "crrl tasks mine REPO": ("limit=1", "times=1", "setup=none", "out=mined.jsonl"),
    "crrl tasks check swe-bench-verified images=no": None,
    "crrl train quickstart corpus.name=FILE.jsonl": (
        "trainer.max_steps=1",
        *SHORT_TRAINING,
        "corpus.held_out=2",
        "run=OWN",
    ),
    "crrl sft warmstart": ("--dry-run",),
    "crrl bench": ("judge",),
    "crrl clean": (),
    'eval "$(crrl completion bash)"': None,
    "python3 -m venv .venv": ("--without-pip",),
    "pip install torch==2.13.0": None,
    ".venv/bin/pip install torch==2.13.0 --index-url": None,
}
CODE = "def clamp(value, low, high):\n    if value < low:\n        return low\n    return {}\n"
TESTS = """from numbers_of import clamp


def test_clamp():
    assert clamp(-3, 1, 9) == 1 and clamp(5, 1, 9) == 5
"""
ABOVE = "\n\ndef test_above():\n    assert clamp(12, 1, 9) == 9\n"


def written() -> list[str]:
    """The commands of README.md: lines of its blocks without their explanation, and code within its text."""
    block = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    lines = [line for text in block.findall(README) for line in text.splitlines()]
    found = [re.split(r" {2,}| # ", line)[0] for line in lines]
    found += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", block.sub("", README))]
    return [line for line in dict.fromkeys(found) if line.split(" ")[0] in PROGRAMS and " " in line]


@dataclass(frozen=True)
class Place:
    """Where commands run: with FILE.jsonl, REPO, and runs/RUN, a run that was killed and then resumed."""

    folder: Path

    def run(self, command: str, *words: str, timeout: float = 110) -> str:
        """What it prints. The last settings of the same name win."""
        program, *rest = command.split(" ")
        argv = {"crrl": [sys.executable, "-m", "crrl.cli.main"], "python3": [sys.executable]}.get(program, [program])
        cwd = ROOT if program == "make" else self.folder
        done = subprocess.run(
            [*argv, *rest, *words], cwd=cwd, capture_output=True, text=True, timeout=timeout, env=environment()
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, command: str, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "crrl.cli.main", *command.split(" ")[1:], *words]
        return subprocess.Popen(
            argv, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
        )


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="crrl-readme-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        made = Place(Path(folder))
        (made.folder / "FILE.jsonl").write_text(made.run("crrl tasks list generated count=6 --json"))
        repository(made.folder / "REPO")
        yield made


@pytest.fixture(scope="module")
def resumed(place: Place) -> str:
    """What the resumed run printed."""
    words = ("trainer.max_steps=2", *SHORT_TRAINING, "evaluation.splits=[rl_instances]", "run=RUN")
    process = place.start("crrl train quickstart", *words)
    checkpoint = place.folder / "runs/RUN/checkpoints/step-1"
    while not checkpoint.is_dir():
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return place.run("crrl train resume=RUN")


@pytest.fixture(scope="module")
def recording(place: Place, resumed: str) -> Path:
    """Of an agent's one call to the policy that `crrl serve RUN` serves."""
    server = place.start("crrl serve RUN", "port=0", "--json")
    try:
        assert server.stdout is not None
        said = ""
        while not (url := re.search(r"http://127\.0\.0\.1:\d+", said)):
            line = server.stdout.readline()
            assert line, said
            said += line
        call = (
            "import os, openai; print(openai.OpenAI().chat.completions.create("
            "model='m', messages=[{'role': 'user', 'content': 'hi'}], max_tokens=4).choices[0].finish_reason)"
        )
        command = f'command={sys.executable} -c "{call}"'
        file = place.folder / "agent.jsonl"
        said = place.run(f"crrl gateway record {file.name} upstream={url[0]}", command)
        assert "1 requests" in said
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)
    assert server.returncode in (0, 130)
    return file


def repository(folder: Path) -> None:
    """Its suite passes; its last commit repairs a bug, with a test."""

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=folder, check=True)

    folder.mkdir()
    git("init", "-q")
    for code, tests in (("value", TESTS), ("min(value, high)", TESTS + ABOVE)):
        (folder / "numbers_of.py").write_text(CODE.format(code))
        (folder / "test_numbers_of.py").write_text(tests)
        git("add", ".")
        git("commit", "-qm", "clamp: keep values below the upper bound")


def test_each_command_is_known() -> None:
    assert sorted(written()) == sorted(COMMANDS), "README.md and COMMANDS differ"
    assert len(written()) > 20


@pytest.mark.parametrize("command", [command for command, words in COMMANDS.items() if words is not None])
def test_it_runs(command: str, place: Place, request: pytest.FixtureRequest) -> None:
    if "RUN" in command:
        request.getfixturevalue("resumed")
    words = COMMANDS[command]
    assert words is not None
    if command == "crrl clean":
        words = (f"sandbox.state_dir={place.folder / 'state'}",)
    assert place.run(command, *words) or command.startswith("python3")


def test_a_longer_table(place: Place) -> None:
    command, words = "make train SEED=103 ARGS=evaluation.tasks_per_split=400", COMMANDS["make train"]
    assert command in written() and words is not None
    settings = command.split("ARGS=")[1]
    said = place.run("make train SEED=103", *words[:-1], f"ARGS={settings} --dry-run")
    assert "tasks_per_split: 400" in said and "seed: 103" in said


def test_a_killed_run_is_resumed(resumed: str, place: Place) -> None:
    assert "Run RUN" in resumed
    summary = json.loads((place.folder / "runs/RUN/summary.json").read_text())
    assert summary["schema"]


def test_an_agent_is_recorded_and_checked(recording: Path, place: Place) -> None:
    said = json.loads(place.run(f"crrl gateway check {recording.name}", "--json"))
    assert said["passed"] and said["requests"] == 1 and said["re_rendered"] == 0


def test_an_imageless_task(place: Place, test_data: Path) -> None:
    """Its repository is not here: it is told as unavailable, with the reason, after its record was read."""
    argv = ["crrl", "tasks", "check", "swe-bench-verified", "images=no"][1:]
    file = test_data / "swe-bench/SWE-bench_Verified/test.parquet"
    words = [f"path={file}", "ids=psf__requests-1142", f"mirrors={place.folder}", "times=1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "crrl.cli.main", *argv, *words],
        cwd=place.folder,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert json.loads(done.stdout.splitlines()[0])["status"] == "unavailable", done.stdout + done.stderr


def test_completion_in_bash(place: Place) -> None:
    script = 'eval "$(crrl completion bash)"; complete -p crrl'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), check=True)
    assert "_crrl" in done.stdout


def test_the_torch_that_is_named_is_the_one_that_setup_installs() -> None:
    (named,) = set(re.findall(r"torch==[\d.]+\d", README))
    assert "-c constraints.txt torch" in (ROOT / "scripts/setup.sh").read_text()
    assert named in (ROOT / "constraints.txt").read_text()


def test_the_links_lead_somewhere() -> None:
    for file in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", file.read_text()):
            assert "://" in link or (file.parent / link).exists(), f"{file.name}: {link}"
