"""Trajectories of runs and evaluations of ours: token by token as they were sampled, and as chats where that is proved.

Only the policy's own main line counts: what branched off it (a resample, a rewritten history) is left aside. Of answers
of a remote endpoint nobody knows the tokens: of them the chat alone is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from crrl.conf.load import load_saved
from crrl.curation.api import Found, Tokens, Trajectory
from crrl.curation.chats import chat_of
from crrl.engines.load import load_tokenizer, tokenizer_hash
from crrl.evaluation.attempts import about
from crrl.gateway.renderer import Renderer, load_renderer
from crrl.learning.rows import CREDIT, rows_of
from crrl.models import model_folder
from crrl.rollout.api import Episode
from crrl.rollout.journal import Journal
from crrl.task import Task


def of_folder(folder: Path, phase: str, tasks: Mapping[str, Task], found: Found) -> None:
    """Adds the episodes of one phase that were judged. `tasks`: those that are known.

    Raises:
        CrrlError: the journal is damaged, or the policy's tokenizer is gone.
    """
    config = load_saved(folder / "config.yaml")
    with Journal.open(folder, read_only=True) as journal:
        tokenizer = load_tokenizer(model_folder(config.model.path), config.model.base)
        renderer = load_renderer(tokenizer, config.renderer.key, config.renderer.calls)
        meta = journal.meta
        credit: Mapping[str, float] = meta.get("credit", CREDIT)
        model = str(meta.get("evaluation", {}).get("policy") or config.model.path)
        hash = tokenizer_hash(tokenizer)
        for episode in journal.episodes(phase):
            if episode.outcome == "lost" or episode.verdict is None:
                found.left_out["lost"] += 1
            elif rows := [row for row in rows_of(episode, 1.0, credit)[0] if any(row.loss_mask)]:
                row = max(rows, key=lambda row: sum(row.loss_mask))  # the main line, without what branched off it
                told = {"model": model, **about(episode.task, tasks.get(episode.task))}
                made = _trajectory(folder, episode, Tokens(row.ids, row.loss_mask, hash), renderer, told)
                spoken = any(m and version < 0 for m, version in zip(row.loss_mask, row.versions, strict=True))
                made = replace(made, tokens=None) if spoken else made
                if made.messages or made.tokens:
                    found.trajectories.append(made)
                else:
                    found.left_out["no chat that could be read"] += 1
            else:
                found.left_out["nothing was sampled"] += 1


def _trajectory(folder: Path, episode: Episode, tokens: Tokens, renderer: Renderer, told: dict[str, str]) -> Trajectory:
    verdict = episode.verdict
    assert verdict is not None, "it was judged"
    messages, tools = chat_of(tokens.ids, tokens.trained, renderer) or ([], [])
    return Trajectory(
        id=f"{folder.name}/{episode.id}",
        task=episode.task,
        messages=messages,
        tools=tools,
        solved=verdict.solved,
        truncated=episode.outcome == "truncated",
        reward=verdict.reward,
        scores=dict(verdict.components),
        patch=episode.patch,
        exploits=tuple(verdict.exploits),
        faults=sum(episode.counts.get(name, 0) for name in ("malformed", "tool_errors")),
        where=f"{folder.name}: {episode.id}",
        about=told,
        tokens=tokens,
    )
