"""Writes a run's `report.html` and `learning-curve.svg` from its journal: all steps, and a few whole episodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crrl.report.html import Step, Transcript, Turn, solve_curve, write_report
from crrl.report.summary import Summary, write_atomically
from crrl.rollout.api import Episode
from crrl.rollout.journal import Journal

PER_PLACE = 6
TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>|\Z)", re.DOTALL)


def write_report_of(folder: Path, summary: Summary, journal: Journal, tokenizer: Any) -> None:
    steps = [Step(s.step + 1, s.metrics) for s in journal.steps() if s.state == "trained"]
    config = folder / "config.yaml"
    notice = "Control run: rewards or labels were shuffled, so there is nothing to learn." if summary.control else ""
    write_report(
        folder,
        summary,
        steps,
        list(transcripts(journal, tokenizer)),
        config.read_text() if config.exists() else "",
        notice=notice,
    )
    write_atomically(folder / "learning-curve.svg", solve_curve(summary, steps, standalone=True))


def transcripts(journal: Journal, tokenizer: Any) -> Iterator[Transcript]:
    """Some episodes of both evaluations, on the same tasks, and of the last training step."""
    last = max((s.step for s in journal.steps() if s.state == "trained"), default=-1)
    outline = journal.outline()
    tasks = sorted({row.task for row in outline if row.phase == "before"})[:: max(1, len(outline) // 40)]
    for phase in ("before", "train", "after"):
        rows = [r for r in outline if r.phase == phase and r.outcome != "lost"]
        if phase == "train":
            rows = [r for r in rows if r.group.startswith(f"train/{last}/")]
        else:
            rows.sort(key=lambda r: (r.task not in tasks, r.task, r.id))
        for row in rows[:PER_PLACE]:
            where = f"step {last + 1}" if phase == "train" else phase
            yield transcript(journal.episode(row.id, phase), where, tokenizer)


def transcript(episode: Episode, where: str, tokenizer: Any) -> Transcript:
    """The conversation as the engine saw it: the last sample's prompt and answer, decoded."""
    longest = max(episode.samples, key=lambda s: len(s.prompt_ids) + len(s.ids), default=None)
    text = tokenizer.decode(longest.prompt_ids + longest.ids) if longest else ""
    turns = [Turn(who, said.strip()) for who, said in TURN.findall(text)] or [Turn("conversation", text)]
    verdict = episode.verdict
    return Transcript(
        episode=episode.id,
        task=episode.task,
        where=where,
        outcome=episode.outcome,
        solved=bool(verdict and verdict.solved),
        reward=verdict.reward if verdict else 0.0,
        turns=turns,
        patch=episode.patch,
        exploits=verdict.exploits if verdict else [],
        lost_reason=episode.lost_reason,
    )
