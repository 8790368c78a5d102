"""An evaluation as logs of Inspect (inspect_ai.log.EvalLog, version 2, JSON): for Inspect's viewer, and for those who
scan transcripts with Scout or Docent, which read such logs.

One log is one cell: a split under one decoding. A lost episode is a sample with an error and no score; a truncated one
has its score, as here.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crrl.report.evaluation import PHASE, cell_of
from crrl.report.from_journal import transcript
from crrl.report.summary import write_atomically
from crrl.rollout.api import Episode
from crrl.rollout.journal import Journal

ROLES = ("system", "user", "assistant", "tool")


def write_inspect(folder: Path, journal: Journal, tokenizer: Any, summary: dict[str, Any]) -> list[Path]:
    """`folder/SPLIT-DECODING.json`, one for each cell of the evaluation whose summary.json this is."""
    folder.mkdir(parents=True, exist_ok=True)
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for episode in journal.episodes(PHASE):
        cells.setdefault(cell_of(episode.id), []).append(_sample(episode, tokenizer))
    written = []
    for (split, decoding), samples in cells.items():
        file = folder / f"{split}-{decoding}.json".replace("/", "_")
        write_atomically(file, json.dumps(_log(f"{split}, {decoding}", samples, summary), ensure_ascii=True) + "\n")
        written.append(file)
    return written


def _log(name: str, samples: list[dict[str, Any]], summary: dict[str, Any]) -> dict[str, Any]:
    told = summary["evaluation"]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    judged = [s for s in samples if "error" not in s]
    solved = sum(s["scores"]["resolved"]["value"] == "C" for s in judged)
    accuracy = solved / len(judged) if judged else 0.0
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "created": now,
            "task": name,
            "task_id": summary["run"],
            "eval_id": summary["run"],
            "run_id": summary["run"],
            "dataset": {"name": told["benchmark"], "samples": len({s["id"] for s in samples})},
            "model": told["policy"],
            "config": {"epochs": max(s["epoch"] for s in samples)},
            "scorers": [{"name": "resolved"}],
            "metadata": {"weights": told["weights"], "seed": summary["seed"]},
        },
        "plan": {},
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(judged),
            "scores": [{"name": "resolved", "scorer": "resolved", "metrics": {"accuracy": _metric(accuracy)}}],
        },
        "stats": {"started_at": now, "completed_at": now},
        "samples": samples,
    }


def _metric(value: float) -> dict[str, Any]:
    return {"name": "accuracy", "value": value}


def _sample(episode: Episode, tokenizer: Any) -> dict[str, Any]:
    read = transcript(episode, "", tokenizer)
    messages = [{"role": t.who if t.who in ROLES else "user", "content": t.text} for t in read.turns if t.text]
    answer = next((m["content"] for m in reversed(messages) if m["role"] == "assistant"), "")
    sample: dict[str, Any] = {
        "id": episode.task,
        "epoch": episode.attempt + 1,
        "input": next((m["content"] for m in messages if m["role"] == "user"), ""),
        "target": "",
        "messages": messages,
        "output": {"model": "", "completion": answer},
        "metadata": {"patch": episode.patch, "outcome": episode.outcome, "exploits": list(read.exploits)},
    }
    if episode.outcome == "lost" or episode.verdict is None:
        reason = episode.lost_reason or "lost"
        return {**sample, "error": {"message": reason, "traceback": "", "traceback_ansi": ""}}
    value = "C" if episode.verdict.solved else "I"
    return {**sample, "scores": {"resolved": {"value": value, "answer": episode.patch}}}
