"""The checkpoint with the best validation is kept, and found by its name; checkpoints may lie on another disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from learning_kit import Rows, random_rows, trainer_of

from crrl.engines.load import load_model
from crrl.errors import CrrlError
from crrl.learning import checkpoint
from crrl.learning.best import mark_best, scores


def fill(folder: Path) -> None:
    (folder / "weights").write_text("weights")


def write(folder: Path, step: int, keep: int = 2) -> None:
    checkpoint.write(folder, step, "policy", keep, fill)


def steps(folder: Path) -> list[int]:
    return [int(p.name[5:]) for p in checkpoint.checkpoints(folder)]


def test_the_best_is_kept_besides_the_newest(tmp_path: Path) -> None:
    for step, score in ((1, 0.2), (2, 0.5), (3, 0.4), (4, 0.5), (5, 0.1)):
        assert mark_best(tmp_path, step, score) == (step in (1, 2)), "of equals, the first"
        write(tmp_path, step)
    assert steps(tmp_path) == [2, 4, 5]
    assert (tmp_path / "best").resolve() == tmp_path / "step-2"
    assert checkpoint.verify(tmp_path / "best").step == 2
    assert mark_best(tmp_path, 6, 0.9)
    write(tmp_path, 6)
    assert steps(tmp_path) == [5, 6] and (tmp_path / "best").readlink() == Path("step-6")


def test_a_score_may_come_after_its_checkpoint_and_again(tmp_path: Path) -> None:
    """A resumed run takes the steps after its last checkpoint again, and evaluates them again."""
    for step in (1, 2, 3):
        write(tmp_path, step, keep=3)
    assert mark_best(tmp_path, 2, 0.5) and not mark_best(tmp_path, 3, 0.4)
    assert (tmp_path / "best").readlink() == Path("step-2")
    assert mark_best(tmp_path, 2, 0.3) is False and scores(tmp_path) == {2: 0.3, 3: 0.4}
    assert (tmp_path / "best").readlink() == Path("step-3")


def test_what_has_no_checkpoint_is_not_the_best(tmp_path: Path) -> None:
    mark_best(tmp_path, 7, 0.9)
    write(tmp_path, 8)
    assert not (tmp_path / "best").exists() and not (tmp_path / "best").is_symlink()
    assert mark_best(tmp_path, 8, 0.1), "7 was never saved"
    shutil.rmtree(tmp_path / "step-8")  # by its owner
    write(tmp_path, 9)
    assert not (tmp_path / "best").is_symlink() and steps(tmp_path) == [9]


def test_bad_scores(tmp_path: Path) -> None:
    for score in (float("nan"), float("inf")):
        with pytest.raises(CrrlError, match="validation score of step 1 is"):
            mark_best(tmp_path, 1, score)
    for text in ("{", "[1]", '{"a": 1}', '{"1": null}'):
        (tmp_path / "scores.json").write_text(text)
        with pytest.raises(CrrlError, match=r"scores\.json is damaged") as error:
            mark_best(tmp_path, 1, 0.5)
        assert "rm " in error.value.remedy


# Another disk -------------------------------------------------------------------------------------------------


def test_checkpoints_may_lie_elsewhere(tmp_path: Path) -> None:
    run, shared = tmp_path / "runs" / "first", tmp_path / "shared"
    run.mkdir(parents=True)
    checkpoint.link(run, str(shared))
    checkpoint.link(run, str(shared))  # as a resumed run does
    trainer_of(run, Rows(random_rows), max_steps=1).train()
    assert steps(shared / "first") == [1]
    found = checkpoint.latest(run)
    assert found is not None
    source = Rows(random_rows)
    trainer_of(run, source, load_model(found), found, max_steps=2).train()
    assert [step for step, _ in source.taken] == [1] and steps(shared / "first") == [1, 2]


def test_a_disk_that_is_not_there_is_no_run_without_checkpoints(tmp_path: Path) -> None:
    run, shared = tmp_path / "runs" / "first", tmp_path / "shared"
    run.mkdir(parents=True)
    checkpoint.link(run, str(shared))
    write(run / "checkpoints", 1)
    shared.rename(tmp_path / "unmounted")
    with pytest.raises(CrrlError, match=f"are in {shared}/first, which is not there") as error:
        checkpoint.latest(run)
    assert f"ln -sfn NEW_PLACE {run}/checkpoints" in error.value.remedy


def test_another_runs_checkpoints_are_never_mixed_with_ours(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "first").mkdir(parents=True)
    checkpoint.link(tmp_path / "a" / "first", str(tmp_path / "shared"))
    write(tmp_path / "a" / "first" / "checkpoints", 1)
    with pytest.raises(CrrlError, match="has the checkpoints of another run of this name") as error:
        checkpoint.link(tmp_path / "b" / "first", str(tmp_path / "shared"))
    assert "run=NAME" in error.value.remedy and not (tmp_path / "b" / "first" / "checkpoints").exists()
