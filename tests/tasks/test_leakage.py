"""Leakage: the same bug under another id, at the same commit, or with nearly the same patch; and dates."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora import find, load
from crrl.tasks.leakage import Twin, commit_of, gap_days, plain_id, twins


def make(id: str, repo: str = "https://github.com/a/b", commit: str = "", patch: str = "", day: str = "") -> Task:
    plan = TestPlan(Command([]), "pytest", ["t"], [])
    source = Source(repo=repo, base_commit=commit or hashlib.sha1(id.encode()).hexdigest())
    return Task(id, "c", "s", "python", "f", source, "", plan, solution=patch, created_at=day)


def patch(path: str, *added: str) -> str:
    lines = "".join(f"+{line}\n" for line in added)
    return f"--- a/{path}\n+++ b/{path}\n@@ -0,0 +1,{len(added)} @@\n{lines}"


def test_by_id_commit_and_patch() -> None:
    fix = ["value = compute(first)", "if value is None:", "    return default", "return value"]
    evaluation = [
        make("org__repo-1"),
        make("other-2", repo="https://github.com/Org/Repo.git", commit="abcdef0123"),
        make("third-3", patch=patch("src/core.py", *fix)),
    ]
    training = [
        make("instance_Org__Repo-1-v0123456789"),
        make("mirror", repo="https://github.com/swesmith/org__repo.abcdef01", commit="9" * 40),
        make("same-commit", repo="https://github.com/org/repo", commit="abcdef0123"),
        make("near", patch=patch("lib/vendored/core.py", *fix[:3], "return  value")),
        make("same lines elsewhere", patch=patch("src/other.py", *fix)),
        make("only brackets", patch=patch("src/core.py", "}", "{", "else:")),
        make("new", patch=patch("src/core.py", "entirely = different", fix[0])),
    ]
    found = twins(training, evaluation)
    assert [(twin.task, twin.twin, twin.how) for twin in found] == [
        (training[0].id, "org__repo-1", "id"),
        ("mirror", "other-2", "commit"),
        ("same-commit", "other-2", "commit"),
        ("near", "third-3", "patch"),
    ]
    assert found[3].similarity == 1.0  # white space does not count
    assert twins(training, []) == []


def test_names_and_commits() -> None:
    assert plain_id("instance_X__y-" + "a" * 40 + "-vnan") == "x__y-" + "a" * 40
    assert plain_id("django__django-12345") == "django__django-12345"
    assert commit_of(make("x", repo="https://github.com/A/b.git/", commit="ABCDEF012345")) == ("a/b", "abcdef01")
    assert commit_of(replace(make("x"), source=Source(files={}))) is None


def test_verified_and_lite_share_bugs(test_data: Path) -> None:
    """93 of the whole sets; of the parts at hand, exactly the ids that are in both."""
    verified = load(find("swe-bench-verified"), test_data / "swe-bench/SWE-bench_Verified").tasks
    lite = load(find("swe-bench-lite"), test_data / "swe-bench/SWE-bench_Lite").tasks
    shared = {task.id for task in verified} & {task.id for task in lite}
    found = twins(lite, verified)
    assert {twin.task for twin in found if twin.how == "id"} == shared and len(shared) == 16
    renamed = twins([replace(task, id=f"x{n}") for n, task in enumerate(lite)], verified)
    assert Counter(twin.how for twin in renamed)["commit"] >= len(shared)
    moved = [replace(t, id=f"x{n}", source=replace(t.source, base_commit="0" * 40)) for n, t in enumerate(lite)]
    by_patch = {lite[int(twin.task[1:])].id for twin in twins(moved, verified) if twin.how == "patch"}
    assert shared <= by_patch and len(by_patch - shared) <= 1


def test_unlike_corpora_share_nothing(test_data: Path) -> None:
    gym = load(find("swe-gym"), test_data / "swe-gym/SWE-Gym.train.sample.parquet").tasks
    multilingual = load(find("swe-bench-multilingual"), test_data / "swe-bench/SWE-bench_Multilingual").tasks
    defects4j = load(find("defects4j"), test_data / "defects4j/v2.0.1").tasks
    gitbug = load(find("gitbug-java"), test_data / "gitbug-java").tasks
    assert twins(gym, multilingual) == [] == twins(defects4j, gitbug)


def test_dates() -> None:
    early, late = make("a", day="2022-05-01 18:07:16"), make("b", day="2023-05-01T00:00:00Z")
    assert gap_days([early], [late]) == 365 and gap_days([late], [early]) == -365
    assert gap_days([make("c", day="")], [late]) is None
    assert Twin("a", "b", "id").similarity == 1.0
