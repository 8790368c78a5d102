"""The caches: their sizes, what goes and in which order, and that nothing in use ever does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.sandbox import cache, workspace
from crrl.task import Source

NOBODY = 65534


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="crrl-cache-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def environment(state: Path, number: int, *, days: float = 0.0, size: int = 100_000) -> Path:
    """One that is `days` old."""
    path = state / "environments" / f"{number:032x}"
    path.mkdir(parents=True)
    (path / "data").write_bytes(os.urandom(size))
    then = time.time() - days * 86400
    os.utime(path, (then, then))
    return path


def clean(state: Path, *words: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, object]:
    assert main(["clean", *words, f"sandbox.state_dir={state}", "--json"]) == code
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def run(text: str, *words: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A process of its own. It is told to end through its stdin."""
    argv = [*prefix, sys.executable, "-c", textwrap.dedent(text), *map(str, words)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


USES = """
import sys
from pathlib import Path
from crrl.sandbox import in_use
print(in_use.use(Path(sys.argv[2]), Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_without_arguments_it_only_lists(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = environment(state, 1, days=400)
    found = clean(state, capsys=capsys)
    assert found["kinds"]["environments"]["entries"] == 1  # type: ignore[index]
    assert found["removed"] == []
    assert main(["clean", f"sandbox.state_dir={state}"]) == 0
    assert "400 days ago" in capsys.readouterr().out
    assert made.is_dir()
    assert main(["clean", f"sandbox.state_dir={state / 'none'}"]) == 0
    assert not (state / "none").exists(), "listing made the folder"


def test_by_age(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = environment(state, 1, days=31), environment(state, 2, days=29)
    clean(state, "older=30d", "--dry-run", capsys=capsys)
    assert old.is_dir()
    found = clean(state, "older=30d", capsys=capsys)
    assert not old.exists()
    assert new.is_dir()
    assert [row["name"] for row in found["removed"]] == [f"environments/{old.name}"]  # type: ignore[attr-defined]
    assert found["freed_bytes"] >= 100_000  # type: ignore[operator]


def test_by_size_the_least_recently_used_go_first(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [environment(state, n, days=days, size=1_000_000) for n, days in enumerate((1, 4, 2, 3))]
    clean(state, "max_gb=0.0025", capsys=capsys)
    assert [path.is_dir() for path in made] == [True, False, True, False]


@pytest.mark.parametrize("word", ["older=30", "older=-1d", "older=d", "max_gb=many", "max_gb=-1", "workspace"])
def test_words_that_cannot_be_meant(state: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = environment(state, 1, days=400)
    assert main(["clean", word, f"sandbox.state_dir={state}"]) == 2
    assert made.is_dir()
    assert word.partition("=")[0] in capsys.readouterr().err


def test_what_somebody_installed_goes_only_when_named(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {"toolchains": "maven", "interpreters": "cpython-3.9", "agents": "codex", "engines": "vllm"}
    folders = {kind: kind for kind in places} | {"interpreters": "toolchains/python"}
    for kind, name in places.items():
        path = state / folders[kind] / name
        path.mkdir(parents=True)
        os.utime(path, (0, 0))
    clean(state, "max_gb=0", "older=1d", capsys=capsys)
    for kind, name in places.items():
        assert (state / folders[kind] / name).is_dir()
    clean(state, "toolchains", capsys=capsys)
    assert not (state / "toolchains/maven").exists()
    assert (state / "toolchains/python/cpython-3.9").is_dir(), "an interpreter is no toolchain"
    clean(state, "interpreters", "agents", "engines", capsys=capsys)
    assert not (state / "engines/vllm").exists()
    assert not (state / "toolchains/python/cpython-3.9").exists()
    assert not (state / "agents/codex").exists()


def test_files_that_workspaces_share_are_counted_once_and_freed_with_the_last(state: Path, tmp_path: Path) -> None:
    def git(*words: str) -> str:
        settings = ["-c", "user.name=t", "-c", "user.email=t@t"]
        return subprocess.run(
            ["git", *settings, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    (tmp_path / "large").write_bytes(os.urandom(2_000_000))
    for text in ("a", "b"):
        (tmp_path / "small").write_text(text)
        git("add", ".")
        git("commit", "-qm", text)
    commits = git("log", "--format=%H").split()
    script = """
    import sys
    from pathlib import Path
    from crrl.sandbox import workspace
    from crrl.task import Source
    for commit in sys.argv[3:]:
        workspace.prepare(Source(repo=sys.argv[2], base_commit=commit), Path(sys.argv[1]), int(65534))
    """
    assert run(script, state, tmp_path, *commits).wait(60) == 0
    found = cache.look(state, ["workspaces"])
    assert len(found.entries) == 2
    one = found.entries[0].size
    assert one > 4_000_000, "the file and git's object of it"
    assert found.size() < one * 1.1
    first = cache.remove(state, cache.choose(found, ["workspaces"], at_most=found.size() - 1))
    assert len(first.entries) == 1
    assert first.freed < 1_000_000, "the other workspace still has the large file"
    assert cache.look(state, ["workspaces"]).size() > 4_000_000
    last = cache.remove(state, cache.choose(cache.look(state, ["workspaces"]), ["workspaces"]))
    assert last.freed > 4_000_000
    assert cache.look(state, ["workspaces"]).size() == 0
    assert not [path for path in (state / "workspaces").rglob("*") if path.is_file()]


def test_what_a_living_process_uses_stays_until_it_ends(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = environment(state, 1, days=400)
    other = environment(state, 2, days=400)
    user = run(USES, state, made)
    try:
        assert user.stdout is not None and user.stdout.readline() == "True\n"
        os.utime(made, (0, 0))  # not only the stamp protects it
        for words in (["environments"], ["older=1d"], ["max_gb=0"]):
            found = clean(state, *words, capsys=capsys)
            assert made.is_dir()
            assert found["kinds"]["environments"]["in_use"] == 1  # type: ignore[index]
        assert not other.exists()
        assert "sandbox.cache_gb allows: in use." in cache.keep_within(state, 0)[-1]
    finally:
        user.send_signal(signal.SIGKILL)
        user.wait()
    clean(state, "max_gb=0", capsys=capsys)
    assert not made.exists()


def test_a_use_between_looking_and_removing_counts(state: Path) -> None:
    made = environment(state, 1, days=400)
    chosen = cache.choose(cache.look(state), ["environments"])
    user = run(USES, state, made)
    assert user.communicate(timeout=60)[0] == "True\n"  # it used the entry and is gone again
    assert cache.remove(state, chosen).entries == []
    assert made.is_dir()


def test_a_mounted_folder_is_used_as_what_it_is_a_part_of(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = state / "toolchains/python/cpython-3.9.21"
    (real / "bin").mkdir(parents=True)
    (state / "toolchains/python/cpython-3.9").symlink_to(real)
    jdk = state / "toolchains/jdk"
    (jdk / "lib/jvm").mkdir(parents=True)
    script = """
    import sys
    from pathlib import Path
    from crrl.sandbox import in_use
    for path in sys.argv[2:]:
        in_use.use_mount(Path(path), Path(sys.argv[1]))
    print(flush=True)
    sys.stdin.read()
    """
    user = run(script, state, state / "toolchains/python/cpython-3.9", jdk / "lib/jvm", "/usr")
    try:
        assert user.stdout is not None and user.stdout.readline()
        clean(state, "toolchains", "interpreters", capsys=capsys)
        assert jdk.is_dir()
        assert real.is_dir()
        assert (state / "toolchains/python/cpython-3.9").is_symlink()
    finally:
        user.communicate()
    clean(state, "toolchains", "interpreters", capsys=capsys)
    assert not jdk.exists()
    assert not real.exists()


PREPARES = """
import os, random, sys
from pathlib import Path
from crrl.sandbox import workspace
from crrl.task import Source
made = []
for n in random.sample(range(40), 40):
    made.append(workspace.prepare(Source(files={"a.py": f"x = {n}", "b/c.py": "y"}), Path(sys.argv[1]), 65534))
for space in made:
    assert (space.lower / "b/c.py").read_text() == "y", space
    assert (space.git_dir / "HEAD").exists(), space
"""


def test_cleaning_while_others_work(state: Path) -> None:
    """Processes come and go, preparing the same workspaces, while one cleans all that is not in use."""
    removed = 0
    for _ in range(3):
        users = [run(PREPARES, state) for _ in range(2)]
        while any(user.poll() is None for user in users):
            removed += len(cache.remove(state, cache.choose(cache.look(state, ["workspaces"]), ["workspaces"])).entries)
        assert [user.wait() for user in users] == [0, 0]
    assert removed > 0


def test_two_cleans_at_once(state: Path) -> None:
    for n in range(300):
        environment(state, n, size=10)
    argv = [sys.executable, "-m", "crrl.cli.main", "clean", "environments", f"sandbox.state_dir={state}"]
    cleans = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(3)]
    assert [process.wait(60) for process in cleans] == [0, 0, 0]
    assert not list((state / "environments").iterdir())


def test_a_killed_clean_leaves_whole_entries_or_leftovers(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(20):
        path = environment(state, n)
        for m in range(300):
            (path / f"f{m}").touch()
    argv = [sys.executable, "-m", "crrl.cli.main", "clean", "environments", f"sandbox.state_dir={state}"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(state.glob("environments/removed-*")):
        pass
    process.kill()
    process.wait()
    assert list(state.glob("environments/removed-*")), "it was killed too late to show anything"
    for path in (state / "environments").iterdir():
        assert path.name.startswith("removed-") or len(list(path.iterdir())) == 301
    found = clean(state, "max_gb=1", capsys=capsys)
    assert not list(state.glob("environments/removed-*"))
    assert found["kinds"]["leftovers"]["entries"] == 0  # type: ignore[index]


def test_what_a_killed_process_left_half_made_goes_but_not_that_of_a_living_one(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half_made = [
        "clone-x",
        "history-x",
        "patch-x",
        "doors-x",
        "workspaces/ab/new-x",
        "environments/k.new-x",
        "checkouts/new-x",
    ]
    for name in half_made:
        (state / name).mkdir(parents=True)
    user = run(USES, state, state / "clone-x")
    assert user.stdout is not None and user.stdout.readline()
    for name in half_made:
        (state / name).chmod(0o700)  # touched since the process began
    clean(state, "leftovers", capsys=capsys)
    assert all((state / name).is_dir() for name in half_made)
    user.communicate()
    clean(state, "leftovers", capsys=capsys)
    assert not any((state / name).exists() for name in half_made)


@pytest.mark.skipif(os.getuid() != 0, reason="changes its uid")
def test_trees_without_write_permission(state: Path) -> None:
    """As an ordinary user: root may do anything."""
    path = environment(state, 1)
    (path / "deep/er").mkdir(parents=True)
    (path / "deep/er/file").touch(0o444)
    for folder in (path / "deep/er", path / "deep", path):
        folder.chmod(0o555)
    subprocess.run(["chown", "-R", str(NOBODY), state], check=True)
    script = """
    import sys
    from pathlib import Path
    from crrl.sandbox import cache
    done = cache.remove(Path(sys.argv[1]), cache.choose(cache.look(Path(sys.argv[1])), ["environments"]))
    print(len(done.entries), done.kept)
    """
    process = run(script, state, prefix=("setpriv", f"--reuid={NOBODY}", "--clear-groups"))
    assert process.communicate(timeout=60)[0] == "1 []\n"
    assert not path.exists()


def test_links_are_not_followed(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_bytes(b"x" * 500_000)
    path = environment(state, 1, size=10)
    (path / "link").symlink_to(tmp_path)
    (state / "agents").mkdir()
    (state / "agents/mine").symlink_to(tmp_path)
    found = clean(state, "environments", "agents", capsys=capsys)
    assert found["freed_bytes"] < 100_000  # type: ignore[operator]
    assert not path.exists()
    assert not (state / "agents/mine").is_symlink()
    assert (tmp_path / "mine").exists()


def test_what_is_mounted_below_an_entry_is_safe(state: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    (state / "toolchains/with a space/here").mkdir(parents=True)
    script = """
    import subprocess, sys
    from crrl.cli.main import main
    subprocess.run(["mount", "--bind", sys.argv[2], sys.argv[1] + "/toolchains/with a space/here"], check=True)
    sys.exit(main(["clean", "toolchains", "sandbox.state_dir=" + sys.argv[1]]))
    """
    process = run(script, state, tmp_path, prefix=("unshare", "-Urm"))
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "something is mounted there" in said
    assert (tmp_path / "mine").exists()
    assert (state / "toolchains/with a space/here").is_dir()


def test_a_workspace_that_was_removed_is_made_again(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Source(files={"a.py": "x = 1"})
    assert run(PREPARES, state).wait(60) == 0
    clean(state, "workspaces", capsys=capsys)
    made = workspace.prepare(source, state, NOBODY)
    assert (made.lower / "a.py").read_text() == "x = 1"
    assert cache.look(state, ["workspaces"]).entries[0].in_use, "by this process"


def test_the_budget_of_a_run_is_enforced_at_its_start(state: Path, tmp_path: Path) -> None:
    old = environment(state, 1, days=3, size=3_000_000)
    new = environment(state, 2, days=1, size=3_000_000)
    words = ["evaluation.splits=[rl_instances]", "evaluation.decodings=[greedy]", "evaluation.tasks_per_split=1"]
    argv = [sys.executable, "-m", "crrl.cli.main", "eval", "tiny", *words]
    done = subprocess.run(
        [*argv, f"sandbox.state_dir={state}", "sandbox.cache_gb=0.004"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not old.exists()
    assert new.is_dir()
    assert "removed 1 entry" in done.stdout + done.stderr


def test_images_that_were_fetched(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real SIF files are pulled by a stand-in for Apptainer's own program."""
    program = tmp_path / "apptainer"
    program.write_text('#!/bin/sh\nexec head -c 1000000 /dev/urandom > "$3"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(name, f"unix://{tmp_path}/none")
    script = """
    import sys
    from pathlib import Path
    from crrl.sandbox import fetch_images
    fetched = fetch_images(sys.argv[2:], engine="apptainer", state_dir=Path(sys.argv[1]))
    print(*(done.how for done in fetched), flush=True)
    sys.stdin.read()
    """
    assert run(script, state, "a/old", "a/new").communicate(timeout=60)[0] == "fetched fetched\n"
    user = run(script, state, "a/old")
    assert user.stdout is not None and user.stdout.readline() == "there\n"
    (state / "sif/mine.sif").write_bytes(b"not ours")
    found = clean(state, "images", capsys=capsys)
    assert [row["name"] for row in found["removed"]] == ["a/new"]  # type: ignore[attr-defined]
    assert found["kinds"]["images"] | {"oldest": 0, "newest": 0} == {  # type: ignore[index]
        "entries": 1,
        "bytes": 1_000_000,
        "in_use": 1,
        "oldest": 0,
        "newest": 0,
    }
    user.communicate()
    clean(state, "max_gb=0", capsys=capsys)
    assert [path.name for path in (state / "sif").iterdir()] == ["mine.sif"]


def test_images_whose_engine_does_not_answer(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (state / "images.json").write_text('{"a/old": 0}')
    for name in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(name, f"unix://{tmp_path}/none")
    monkeypatch.setenv("PATH", str(tmp_path))
    old = environment(state, 1, days=400)
    found = clean(state, "max_gb=0", capsys=capsys)
    assert not old.exists()
    assert "images: No container engine answers" in found["notes"][0]  # type: ignore[index]
    assert json.loads((state / "images.json").read_text()) == {"a/old": 0}
