"""The command line as a user meets it: a process, its exit code, what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crrl.conf.load import load_recipe, to_yaml


def crrl(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "crrl.cli.main", *words], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "'train'"),
        (["train"], "needs a RECIPE"),
        (["train", "quikstart"], "'quickstart'"),
        (["train", "quickstart", "max_steps=3"], "trainer.max_steps"),
        (["train", "quickstart", "--seed=3"], "seed=3"),
        (["train", "resume=nothing"], "no run to resume"),
        (["eval", "nothing"], "neither a run nor a model folder"),
        (["replay", "nothing"], "is not a run"),
        (["bench", "engin"], "'engine'"),
        (["bench", "length", "tokens=8,1024"], "lengths of 16 or more"),
        (["bench", "soak", "seconds=-1"], "not a duration"),
        (["bench", "vllm", "rounds=0"], "rounds=0"),
        (["bench", "vllm", "transports=disk,strem"], "strem"),
        (["tasks", "chek"], "'check'"),
        (["gateway", "chek", "r.jsonl"], "'check'"),
        (["gateway", "check", "r.jsonl"], "no such file"),
        (["gateway", "record", "r.jsonl"], "upstream=URL"),
        (["doctor", "seed=1"], "takes no settings"),
        (["completion", "tcsh"], "bash"),
    ],
)
def test_usage_errors_exit_2_on_one_screen(words: list[str], says: str, tmp_path: Path) -> None:
    done = crrl(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 15 and done.stdout == ""
    assert list(tmp_path.iterdir()) == []  # no outputs/ folder, nothing half-written


def test_errors_as_json() -> None:
    done = crrl("train", "quikstart", "--json")
    value = json.loads(done.stdout)
    assert done.returncode == value["exit_code"] == 2
    assert value["schema"] == 1 and "quickstart" in value["remedy"]


def test_dry_run_prints_the_settings_and_starts_nothing(tmp_path: Path) -> None:
    done = crrl("train", "quickstart", "--dry-run", "--json", "seed=3", cwd=tmp_path)
    value = json.loads(done.stdout)
    assert value["config"]["seed"] == 3 and value["config"]["run"] == "quickstart-seed3"
    assert any("6400 episodes" in line for line in value["would"])
    assert list(tmp_path.iterdir()) == []


def test_help_and_errors_load_nothing_heavy() -> None:
    code = "import sys; from crrl.cli.main import main; main(sys.argv[1:]); "
    code += "print([m for m in ('torch', 'uvicorn') if m in sys.modules])"
    for words in (["--help"], ["train", "--help"], ["train", "quickstart", "max_steps=3"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "[]"


def test_resuming_takes_the_runs_settings_and_only_changes_what_may(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(load_recipe("quickstart", ["seed=9", "run=mine"])))
    done = crrl("train", "resume=mine", "trainer.max_steps=99", "--dry-run", "--json", cwd=tmp_path)
    config = json.loads(done.stdout)["config"]
    assert (config["seed"], config["trainer"]["max_steps"]) == (9, 99)
    refused = crrl("train", "quickstart", "resume=mine", "seed=1", cwd=tmp_path)
    assert refused.returncode == 2 and "in the middle of a run" in refused.stderr
    rule = crrl("train", "resume=mine", "objective.credit.side=1.0", cwd=tmp_path)  # a replay knows one rule
    assert rule.returncode == 2 and "in the middle of a run" in rule.stderr
    exists = crrl("train", "quickstart", "run=mine", cwd=tmp_path)
    assert exists.returncode == 2 and "resume=mine" in exists.stderr
    near = crrl("train", "resume=mime", cwd=tmp_path)
    assert near.returncode == 2 and "'mine'" in near.stderr


def test_doctor_says_what_is_there() -> None:
    done = crrl("doctor", "--json")
    value = json.loads(done.stdout)
    assert done.returncode == (0 if value["ready"] else 1)
    by_name = {f["name"]: f for f in value["findings"]}
    assert by_name["python"]["status"] == "ok" and by_name["torch"]["found"]
    assert all(f["remedy"] for f in value["findings"] if f["status"] != "ok")
    assert by_name["caches"]["status"] in ("ok", "note") and by_name["caches"]["found"]


def test_doctor_fails_where_bubblewrap_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "crrl.cli.main", "doctor", "--json"],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path)},
    )
    value = json.loads(done.stdout)
    assert done.returncode == 1 and value["ready"] is False
    assert "install bubblewrap" in next(f for f in value["findings"] if f["name"] == "bubblewrap")["remedy"]


def test_completion_knows_recipes_keys_and_values() -> None:
    assert crrl("completion", "words", "train", "qui").stdout.split() == ["quickstart"]
    assert crrl("completion", "words", "train", "quickstart", "trainer.max_s").stdout.split() == ["trainer.max_steps="]
    assert "sandbox.name=bubblewrap" in crrl("completion", "words", "train", "x", "sandbox.name=").stdout.split()
    assert "doctor" in crrl("completion", "words", "").stdout.split()
    assert crrl("completion", "words", "tasks", "s").stdout.split() == ["show", "split", "spec"]
    assert crrl("completion", "words", "gateway", "r").stdout.split() == ["record"]
    assert crrl("completion", "words", "clean", "e").stdout.split() == ["environments", "engines"]


def test_bash_completion_in_bash() -> None:
    script = crrl("completion", "bash").stdout
    path = str(Path(sys.executable).parent)
    driver = f'PATH="{path}:$PATH"\n{script}\nCOMP_LINE="crrl train qu"; COMP_POINT=13; _crrl; echo "${{COMPREPLY[@]}}"'
    assert subprocess.run(["bash", "-c", driver], capture_output=True, text=True).stdout.strip() == "quickstart"
