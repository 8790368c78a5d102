"""All of a run's trackers as one. A tracker that fails is named once and left out; the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crrl import registry
from crrl.conf.schema import Config
from crrl.report.from_journal import transcript
from crrl.report.trackers.api import TrackedRun, Tracker
from crrl.rollout.api import Episode

HIDDEN = "(not tracked)"
TEXT = 4000  # characters of a patch, and of a conversation, in the table of episodes


class Trackers:
    """`tracker.name`'s, in that order. Raises CrrlError: one of them cannot start.

    Args:
        note: tells the user about a tracker that failed.
    """

    def __init__(self, run: TrackedRun, note: Callable[[str], None]) -> None:
        self._settings, self._note = run.settings, note
        self._open: dict[str, Tracker] = {}
        try:
            for name in run.settings.name:
                part = registry.find("crrl.trackers", name)
                self._open[name] = part.require(part.make(run), Tracker)
        except BaseException:
            self.close(failed=True)
            raise

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._each(lambda tracker: tracker.log(step, metrics))

    def evaluation(self, step: int, splits: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """The rates of one evaluation. `splits`: of `evaluation.benchmark.assemble`, with `after` alone."""
        if metrics := evaluation_metrics(splits):
            self.log(step, metrics)

    def episodes(self, step: int, groups: Callable[[], Sequence[Sequence[Episode]]], tokenizer: Any) -> None:
        """`tracker.episodes` of a step's episodes, evenly over its groups; `groups` is called if they are shown."""
        if self._open and self._settings.episodes:
            rows = [table_row(step, episode, tokenizer) for episode in spread(groups(), self._settings.episodes)]
            self._each(lambda tracker: tracker.episodes(step, rows))

    def checkpoint(self, step: int, folder: Path) -> None:
        if self._settings.checkpoints:
            self._each(lambda tracker: tracker.checkpoint(step, folder))

    def close(self, failed: bool) -> None:
        self._each(lambda tracker: tracker.close(failed))
        self._open.clear()

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                do(tracker)
            except Exception as error:
                self._open.pop(name)
                self._note(
                    f"tracker={name} failed ({type(error).__name__}: {error}); it gets no more numbers. "
                    "The journal has all of them."
                )


def evaluation_metrics(splits: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """`evaluation/<split>/<decoding>/{solved,low,high,well_formed}`; `low` and `high` are the ends of the 95%
    interval."""
    metrics: dict[str, float] = {}
    for split, decodings in splits.items():
        for decoding, cell in decodings.items():
            result = cell["after"]
            low, high = result["ci95"]
            values = {"solved": result["rate"], "low": low, "high": high, "well_formed": result["well_formed"]}
            metrics |= {f"evaluation/{split}/{decoding}/{name}": float(v) for name, v in values.items()}
    return metrics


def spread(groups: Sequence[Sequence[Episode]], count: int) -> list[Episode]:
    """At most `count` episodes: the first of each group, then the second of each, and so on."""
    longest = max((len(group) for group in groups), default=0)
    ordered = [group[i] for i in range(longest) for group in groups if i < len(group)]
    return ordered[:count]


def table_row(step: int, episode: Episode, tokenizer: Any) -> list[str | float]:
    """`api.COLUMNS` of one episode; long texts lose their middle."""
    shown = transcript(episode, "", tokenizer)
    said = "\n\n".join(f"[{turn.who}]\n{turn.text}" for turn in shown.turns)
    return [
        step,
        episode.id,
        episode.task,
        episode.outcome,
        shown.reward,
        float(shown.solved),
        ", ".join(shown.exploits),
        _cut(episode.patch),
        _cut(said),
    ]


def _cut(text: str) -> str:
    if len(text) <= TEXT:
        return text
    return f"{text[: TEXT // 2]}\n[... {len(text) - TEXT:,} characters ...]\n{text[-TEXT // 2 :]}"


def tracked_config(config: Config) -> dict[str, Any]:
    """The settings without what may be secret: values of `agent.env`, contents of `agent.files`."""
    values: dict[str, Any] = deepcopy(asdict(config))
    agent = values["agent"]
    for key in ("env", "files"):
        agent[key] = dict.fromkeys(agent[key], HIDDEN)
    return values
