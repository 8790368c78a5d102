"""The journal under kill -9, full disks, damaged and foreign files, and second writers."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from crrl.errors import CrrlError
from crrl.gateway.api import Sample
from crrl.learning.replay import replay
from crrl.learning.rows import row_hash, rows_of
from crrl.rewards.api import Verdict
from crrl.rollout import journal_file
from crrl.rollout.api import Episode, TrainedRow
from crrl.rollout.journal import FILE, Journal


def make(n: int, tokens: int = 40, **changes) -> Episode:
    """Episode number n; its content is a function of n, so a reader can tell whether it is whole."""
    rng = random.Random(n)
    ids = [rng.randrange(2**17) for _ in range(tokens)]
    logprobs = [-rng.random() * 10 for _ in range(tokens)]
    first = Sample(f"s{n}", "x", None, [1, 2, n], ids, logprobs, [3] * tokens, {"temperature": 1.0, "top": None})
    second = Sample(f"t{n}", "x", f"s{n}", [9], [5], [-0.25], [4])
    verdict = Verdict(float(n % 2), {"tests": 0.5}, {"a::b": "passed"}, ["conftest"], solved=bool(n % 2))
    episode = Episode(
        *(f"e{n}", f"g{n // 4}", f"task{n // 4}", n % 4, 2**64 - 1 - n, "scored"),
        samples=[first, second],
        patch=f"diff --git {n} \udcff".encode("utf-8", "replace").decode(),
        verdict=verdict,
        timings={"agent": 0.5, "judge": 0.25},
        well_formed=True,
    )
    return dataclasses.replace(episode, **changes)


def test_everything_comes_back(tmp_path: Path) -> None:
    lost = Episode("lost", "g9", "task9", 0, 1, "lost", lost_reason="sandbox_died: gone", tries=3)
    with Journal.create(tmp_path / "run", {"seed": 7, "versions": {"torch": "2"}}) as journal:
        for n in range(8):
            assert journal.add_episode("train", make(n))
        journal.add_episode("train", lost)
        journal.add_episode("eval-before-greedy", make(0))  # the same id in another phase is another episode
        journal.add_lost_try("train", "e3", "task0", "sandbox_died", "exit 137", version=2)
        journal.plan_step(0, ["g1", "g0"], version=0)
        journal.step_trained(0, {"loss": 0.5})
        journal.plan_step(1, ["g9"], version=1)
    with Journal.open(tmp_path / "run") as journal:
        assert journal.meta == {"seed": 7, "versions": {"torch": "2"}}
        assert journal.finished("train") == {*(f"e{n}" for n in range(8)), "lost"}
        assert journal.phases() == {"train": 9, "eval-before-greedy": 1}
        assert journal.episode("e5") == make(5) and journal.episode("lost") == lost
        assert list(journal.episodes(None)) == [make(0), *(make(n) for n in range(8)), lost]
        assert [e.id for e in journal.group("g1")] == ["e4", "e5", "e6", "e7"]
        row = next(r for r in journal.outline("train") if r.id == "e1")
        assert (row.reward, row.solved, row.exploits, row.wall_s) == (1.0, True, 1, 0.75)
        assert [(s.step, s.groups, s.state, s.metrics) for s in journal.steps()] == [
            (0, ["g1", "g0"], "trained", {"loss": 0.5}),
            (1, ["g9"], "planned", {}),
        ]
        assert journal.lost_tries()[0]["cause"] == "sandbox_died"
        with pytest.raises(CrrlError, match="no episode e99"):
            journal.episode("e99")


def test_nothing_is_counted_twice(tmp_path: Path) -> None:
    with Journal.create(tmp_path, {}) as journal:
        assert journal.add_episode("train", make(1))
        size = (tmp_path / "tokens/segment-00001.bin").stat().st_size
        assert not journal.add_episode("train", make(1))
        assert (tmp_path / "tokens/segment-00001.bin").stat().st_size == size
        with pytest.raises(CrrlError, match="finished twice"):
            journal.add_episode("train", make(1, patch="another"))
        journal.plan_step(0, ["a", "b"], 0)
        journal.plan_step(0, ["a", "b"], 0)
        with pytest.raises(CrrlError, match="other groups"):
            journal.plan_step(0, ["b", "a"], 0)
        with pytest.raises(CrrlError, match="never planned"):
            journal.step_trained(5, {})
        rows = [TrainedRow("e1", 0, "00ff", 0.5)]
        journal.step_trained(0, {}, rows)
        journal.step_trained(0, {}, rows)
        assert journal.trained_rows() == rows
        with pytest.raises(CrrlError, match="other rows"):
            journal.step_trained(0, {}, [TrainedRow("e1", 0, "00fe", 0.5)])
        assert journal.trained_rows(0) == rows


def test_replay_reads_the_journal(tmp_path: Path) -> None:
    with Journal.create(tmp_path, {}) as journal:
        for n in range(4):
            journal.add_episode("train", make(n))
        rows, _ = rows_of(make(2), 0.1)
        journal.plan_step(0, ["g0"], 0)
        journal.step_trained(0, {}, [TrainedRow("e2", i, row_hash(r), r.advantage) for i, r in enumerate(rows)])
        report = replay(journal.episodes(), journal.trained_rows())
        assert report.exact and report.rebuilt == 1 and report.episodes == 4


def test_the_ledger_hash_sees_content_and_not_time(tmp_path: Path) -> None:
    def hash_of(name: str, episodes: list[Episode]) -> str:
        with Journal.create(tmp_path / name, {}) as journal:
            for episode in episodes:
                journal.add_episode("train", episode)
            return journal.ledger_hash()

    a, b = make(1), make(2)
    renamed = [dataclasses.replace(s, session="y") for s in a.samples]
    same = dataclasses.replace(a, timings={"agent": 9.0}, tries=2, samples=renamed)
    assert hash_of("ab", [a, b]) == hash_of("ba", [b, same])
    for i, other in enumerate(
        [
            dataclasses.replace(a, patch="x"),
            dataclasses.replace(a, samples=[dataclasses.replace(a.samples[0], versions=[2] * 40), a.samples[1]]),
            dataclasses.replace(a, samples=a.samples[:1]),
            dataclasses.replace(a, verdict=dataclasses.replace(a.verdict, reward=0.5)),
        ]
    ):
        assert hash_of(f"other{i}", [other, b]) != hash_of(f"again{i}", [a, b])


def write_until_killed(folder: Path, told: int) -> None:
    """The life of the child that is killed: go on where the journal ends; tell each episode once it is added."""
    with Journal.open(folder) as journal:
        for step in journal.steps()[-1:]:  # a step that was planned is taken by whoever goes on
            journal.step_trained(step.step, {"n": 4 * step.step + 3})
        done = len(journal.finished("train"))
        for n in itertools.count(done):
            journal.add_episode("train", make(n, tokens=2000))
            os.write(told, n.to_bytes(4, "little"))  # from here on it must never be lost
            if n % 4 == 3:
                journal.plan_step(n // 4, [f"g{n // 4}"], n)
                journal.step_trained(n // 4, {"n": n})


def test_kill_9_at_any_instant_loses_nothing(tmp_path: Path) -> None:
    rng = random.Random(0)
    Journal.create(tmp_path, {}).close()
    told, rounds = -1, 0
    while told <= 10 or rounds < 25:  # on a starved machine most children are killed before they have begun
        rounds += 1
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            write_until_killed(tmp_path, writer)
            os._exit(1)
        os.close(writer)
        time.sleep(rng.uniform(0.0, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as pipe:
            heard = pipe.read()
        told = max(told, int.from_bytes(heard[-4:], "little")) if heard else told
        with Journal.open(tmp_path) as journal:
            finished = journal.finished("train")
            assert finished == {f"e{n}" for n in range(len(finished))}
            assert len(finished) - 1 in (told, told + 1)  # one may have committed without being told
            for n in range(max(0, len(finished) - 20), len(finished)):
                assert journal.episode(f"e{n}") == make(n, tokens=2000)
            assert all(step.state == "trained" for step in journal.steps()[:-1])
        told = len(finished) - 1


def test_a_torn_tail_is_cut_and_a_missing_record_is_not_hidden(tmp_path: Path) -> None:
    with Journal.create(tmp_path, {}) as journal:
        journal.add_episode("train", make(1))
    segment = tmp_path / "tokens/segment-00001.bin"
    whole = segment.read_bytes()
    segment.write_bytes(whole + b"torn")
    (tmp_path / "tokens/segment-00002.bin").write_bytes(b"only torn")
    with Journal.open(tmp_path) as journal:
        assert journal.cut_bytes == 13 and segment.read_bytes() == whole
        journal.add_episode("train", make(2))
        assert journal.episode("e1") == make(1) and journal.episode("e2") == make(2)
    damaged = bytearray(segment.read_bytes())
    damaged[10] ^= 1
    segment.write_bytes(damaged)
    with Journal.open(tmp_path) as journal:
        assert journal.episode("e2") == make(2)
        with pytest.raises(CrrlError, match="checksum"):
            journal.episode("e1")
    segment.write_bytes(damaged[:-1])
    with pytest.raises(CrrlError, match=r"cut off at byte \d+"):
        Journal.open(tmp_path)


def test_segments_roll_over(tmp_path: Path) -> None:
    with Journal.create(tmp_path, {}) as journal:
        journal._tokens._limit = 2000
        for n in range(10):
            journal.add_episode("train", make(n))
    assert len(list((tmp_path / "tokens").iterdir())) > 2
    with Journal.open(tmp_path) as journal:
        journal.add_episode("train", make(10))
        assert [journal.episode(f"e{n}") for n in range(11)] == [make(n) for n in range(11)]


def test_only_one_writes_and_any_may_read(tmp_path: Path) -> None:
    with Journal.create(tmp_path, {}) as journal:
        journal.add_episode("train", make(1))
        with pytest.raises(CrrlError, match=f"pid {os.getpid()}.* is writing"):
            Journal.open(tmp_path)
        with Journal.open(tmp_path, read_only=True) as reader:
            assert reader.episode("e1") == make(1)
            journal.add_episode("train", make(2))
            assert reader.finished("train") == {"e1", "e2"}
            with pytest.raises(ValueError, match="for reading"):
                reader.add_episode("train", make(3))
    with Journal.open(tmp_path):
        pass
    with pytest.raises(CrrlError, match="exists"):
        Journal.create(tmp_path, {})


@pytest.mark.parametrize("read_only", [False, True])
def test_foreign_files_are_refused(tmp_path: Path, read_only: bool) -> None:
    with pytest.raises(CrrlError, match="no journal at"):
        Journal.open(tmp_path, read_only=read_only)
    (tmp_path / FILE).write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(CrrlError, match="not an SQLite file"):
        Journal.open(tmp_path, read_only=read_only)
    (tmp_path / FILE).unlink()
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(CrrlError, match="not a crrl journal"):
        Journal.open(tmp_path, read_only=read_only)
    Journal.create(tmp_path / "newer", {}).close()
    with sqlite3.connect(tmp_path / "newer" / FILE) as newer:
        newer.execute(f"PRAGMA user_version = {journal_file.SCHEMA_VERSION + 1}")
    with pytest.raises(CrrlError, match="a newer crrl"):
        Journal.open(tmp_path / "newer", read_only=read_only)


def test_network_file_systems_are_recognised() -> None:
    mounts = "\n".join(
        [
            "/dev/sda1 / ext4 rw 0 0",
            "srv:/home /home nfs4 rw 0 0",
            "tmpfs /home/me/local tmpfs rw 0 0",
            "x /mnt/with\\040space fuse.sshfs rw 0 0",
        ]
    )
    kinds = {p: journal_file.filesystem(Path(p), mounts) for p in ("/var", "/home/me", "/home/me/local/x")}
    assert kinds == {"/var": "ext4", "/home/me": "nfs4", "/home/me/local/x": "tmpfs"}
    assert journal_file.filesystem(Path("/mnt/with space/a"), mounts) in journal_file.NETWORK
    assert journal_file.filesystem(Path("/homework"), mounts) not in journal_file.NETWORK


FULL_DISK = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from test_journal import make
from crrl.errors import CrrlError
from crrl.rollout.journal import Journal
journal = Journal.create(Path(sys.argv[1]), {})
n = 0
try:
    while True:
        journal.add_episode("train", make(n, tokens=3000))
        n += 1
except CrrlError as error:
    assert "is full" in error.message and "resume=" in error.remedy, error
journal.close()
import os
os.unlink(Path(sys.argv[1]) / "ballast")
with Journal.open(Path(sys.argv[1])) as journal:
    assert journal.finished("train") == {f"e{i}" for i in range(n)}
    assert all(journal.episode(f"e{i}") == make(i, tokens=3000) for i in range(n))
    assert journal.cut_bytes == 0, "half a record was left behind"
    journal.add_episode("train", make(n, tokens=3000))
print("episodes", n)
"""


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """On a real small file system, mounted in a user namespace."""
    if not shutil.which("unshare"):
        pytest.skip("no unshare")
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "full.py").write_text(FULL_DISK)
    run = f"mount -t tmpfs -o size=1200k none {disk} && head -c 200000 /dev/zero > {disk}/ballast && "
    run += f"exec {sys.executable} {tmp_path}/full.py {disk} {Path(__file__).parent}"
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", run], capture_output=True, text=True, timeout=60)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr[:100]}")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 3


def test_many_threads_write(tmp_path: Path) -> None:
    with Journal.create(tmp_path, {}) as journal:

        def write(k: int) -> None:
            for n in range(k, 40, 4):
                journal.add_episode("train", make(n))

        threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.perf_counter() - start < 20
        assert [journal.episode(f"e{n}") for n in range(40)] == [make(n) for n in range(40)]
