"""The checkpoint with the best validation: kept whatever its age, and found as `checkpoints/best`.

Whoever evaluates during training calls `mark_best` with the policy's score, before or after its checkpoint is written.
The best of several noisy scores is too high on average: `BIAS` says so to whoever uses it.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

from crrl.errors import CrrlError

SCORES, BEST = "scores.json", "best"
BIAS = (
    "The best of several checkpoints was chosen partly by chance, so its validation score is too high: "
    "report it on tasks that did not choose it."
)


def mark_best(folder: Path, step: int, score: float) -> bool:
    """Records the validation score of the policy after `step` updates; `folder`: the run's checkpoints. Returns whether
    no other policy with a checkpoint has as high a score. Raises CrrlError: it is not a number."""
    if not math.isfinite(score):
        raise CrrlError(f"The validation score of step {step} is {score}.", "Look at its episodes in the report.")
    folder.mkdir(parents=True, exist_ok=True)
    others = {s: v for s, v in scores(folder).items() if s != step}
    _replace(folder / SCORES, json.dumps({**others, step: score}))
    point(folder)
    there = _steps(folder)
    return all(score > value for other, value in others.items() if other in there)


def scores(folder: Path) -> dict[int, float]:
    """Step -> validation score. Raises CrrlError: the file is damaged."""
    file = folder / SCORES
    try:
        return {int(step): float(score) for step, score in json.loads(file.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CrrlError(
            f"{file} is damaged ({type(error).__name__}: {error}).",
            f"Remove it: rm {file}. The best checkpoint is then the best of those evaluated from now on.",
        ) from error


def point(folder: Path) -> Path | None:
    """The checkpoint with the best score (of equals, the first), to which `best` now leads; None: there is none."""
    there = _steps(folder)
    scored = [(-score, step) for step, score in scores(folder).items() if step in there]
    name = there[min(scored)[1]].name if scored else None
    link = folder / BEST
    if name is None:
        link.unlink(missing_ok=True)
        return None
    if not link.is_symlink() or os.readlink(link) != name:
        new = folder / f".writing-{BEST}"
        new.unlink(missing_ok=True)
        new.symlink_to(name)
        os.rename(new, link)
    return folder / name


def _steps(folder: Path) -> dict[int, Path]:
    return {int(p.name[5:]): p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name)}


def _replace(file: Path, text: str) -> None:
    new = file.with_name(f".writing-{file.name}")
    with open(new, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(new, file)
