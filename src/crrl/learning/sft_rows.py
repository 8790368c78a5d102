"""Rows for supervised fine-tuning, of the episodes of a run, of a data set of `crrl curate`, or of chats in JSON Lines.

Invariant 1 holds for all: a run's rows are exactly the tokens that were sampled, and a chat is rendered turn by turn
as the gateway would serve it, so that what is learnt is what will be asked. Only the policy's own tokens are trained.
Invariant 11: a line that cannot be read is named with its file and number, and the rest goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from crrl.errors import CrrlError
from crrl.gateway.api import BadRequest
from crrl.gateway.canonical import Message
from crrl.gateway.dialects import chat
from crrl.gateway.renderer import Renderer
from crrl.gateway.renderer.api import RenderError, Tools
from crrl.learning.rows import CREDIT, rows_of
from crrl.rollout.journal import TRAIN, Journal

SHOWN = 5  # bad lines that are named one by one


@dataclass(frozen=True)
class SftRow:
    """`ids` and, as long, `trained`: 1 where the loss is taken."""

    ids: list[int]
    trained: list[int]


@dataclass
class Found:
    """What was read. `left_out`: rows by reason; `faults`: the first bad lines, `FILE:LINE: why`."""

    rows: list[SftRow] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, row: SftRow, longest: int) -> None:
        """A row that is too long would be cut in the middle of a turn: it is left out."""
        if len(row.ids) > longest:
            self.left_out[f"longer than {longest} tokens"] += 1
        elif not any(row.trained[1:]):
            self.left_out["nothing to train"] += 1
        else:
            self.rows.append(row)

    def fault(self, file: Path, number: int, why: str) -> None:
        self.left_out["unreadable lines"] += 1
        if len(self.faults) < SHOWN:
            self.faults.append(f"{file}:{number}: {why}")


def of_run(folder: Path, episodes: str, longest: int, found: Found) -> None:
    """Adds the rows of a run's training episodes (evaluations are never trained on).

    Args:
        episodes: `solved`, or `scored`: all that were not lost.

    Raises:
        CrrlError: there is no journal, or it is damaged.
    """
    with Journal.open(folder, read_only=True) as journal:
        credit: Mapping[str, float] = journal.meta.get("credit", CREDIT)
        for episode in journal.episodes(TRAIN):
            if episode.outcome == "lost":
                found.left_out["lost episodes"] += 1
            elif episodes == "solved" and not (episode.verdict and episode.verdict.solved):
                found.left_out["unsolved episodes"] += 1
            else:
                for row in rows_of(episode, 1.0, credit)[0]:
                    found.add(SftRow(row.ids, row.loss_mask), longest)


def of_chats(file: Path, renderer: Renderer, longest: int, found: Found) -> None:
    """Adds the conversations of a file: each line a JSON object with `messages` and, if the model had some, `tools`, as
    in a request to chat completions.

    Raises:
        CrrlError: the file cannot be read.
    """
    try:
        lines = file.open("rb")
    except OSError as error:
        raise CrrlError(f"{file} cannot be read: {error.strerror}.", "Write the path of a JSON Lines file.") from error
    with lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found.add(of_conversation(*_read(line), renderer), longest)
            except (BadRequest, RenderError, ValueError) as error:
                found.fault(file, number, str(error).splitlines()[0])


def of_parquet(file: Path, renderer: Renderer, tokenizer: str, longest: int, found: Found) -> None:
    """Adds the trajectories of a data set of `crrl curate`: the tokens as they were sampled where they are this
    tokenizer's (its hash), else the chat, rendered for this model.

    Raises:
        CrrlError: the file cannot be read.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise CrrlError(f"{file} cannot be read: {error}", "Write the path of train.parquet.") from error
    if "messages" not in table.column_names:
        raise CrrlError(f"{file} has no column messages.", f"Import it: crrl curate {file} out=FOLDER keep=all")
    for number, row in enumerate(table.to_pylist(), 1):
        try:
            if row.get("ids") and row.get("tokenizer") == tokenizer:
                found.add(SftRow(list(row["ids"]), [int(t) for t in row["trained"]]), longest)
            elif row["messages"]:
                body = {key: msgspec.json.decode(row[key]) for key in ("messages", "tools") if row.get(key)}
                found.add(of_conversation(*_read(msgspec.json.encode(body)), renderer), longest)
            else:
                found.left_out["another tokenizer's tokens, without a chat"] += 1
        except (BadRequest, RenderError, ValueError, TypeError) as error:
            found.fault(file, number, str(error).splitlines()[0])


def of_conversation(messages: Sequence[Message], tools: Tools, renderer: Renderer) -> SftRow:
    """One row, in which every assistant turn is trained. What follows the last one is left out.

    Raises:
        ValueError: it has no assistant turn, or begins with one.
        RenderError: the template has no form for it.
    """
    at = [i for i, message in enumerate(messages) if message.role == "assistant"]
    if not at:
        raise ValueError("no message is the assistant's")
    if at[0] == 0:
        raise ValueError("the first message is the assistant's: nothing asks for it")
    prompt = renderer.prompt(list(messages[: at[0]]), tools)
    trained: list[int] = []
    for turn, behind in zip(at, [*at[1:], None], strict=True):
        sampled = renderer.assistant(messages[turn])
        trained += [0] * (len(prompt) - len(trained)) + [1] * len(sampled)
        if behind is None:
            return SftRow(prompt + sampled, trained)
        prompt = renderer.bridge(prompt, sampled, list(messages[turn + 1 : behind]))
    raise AssertionError("the last turn returns")


def _read(line: bytes) -> tuple[list[Message], Tools]:
    """Raises ValueError, BadRequest."""
    body = msgspec.json.decode(line)
    if not isinstance(body, dict) or "messages" not in body:
        raise ValueError('not an object with "messages"')
    wanted = {key: body[key] for key in ("messages", "tools") if body.get(key) is not None}
    ask = chat.read(msgspec.json.encode(wanted), {}).ask
    return ask.messages, ask.tools


def read(
    data: Sequence[Path],
    renderer: Renderer,
    episodes: str,
    longest: int,
    same_tokens: Mapping[Path, bool],
    tokenizer: str = "",
) -> Found:
    """All rows of run folders, data sets and chat files, in the order in which they are named.

    Args:
        tokenizer: the hash of the model's: tokens of data sets that have another are rendered anew from their chats.
        same_tokens: for each run folder, whether its policy's tokenizer is the model's.

    Raises:
        CrrlError: there is nothing to train on, a file cannot be read, or a run's tokens are another tokenizer's.
    """
    found = Found()
    for path in data:
        if path.is_dir():
            if not same_tokens[path]:
                raise CrrlError(
                    f"The policy of run {path} has another tokenizer than the model: its tokens mean something else.",
                    "Write model.path= of the run's own policy, or export its chats and train on those.",
                )
            of_run(path, episodes, longest, found)
        elif path.suffix == ".parquet":
            of_parquet(path, renderer, tokenizer, longest, found)
        else:
            of_chats(path, renderer, longest, found)
    if not found.rows:
        why = ", ".join(_reasons(found)) or "it is empty"
        raise CrrlError(f"There is nothing to train on: {why}.", found.faults[0] if found.faults else "")
    return found


def _reasons(found: Found) -> Iterator[str]:
    for reason, count in found.left_out.most_common():
        yield f"{count} {reason}"


def summary(found: Found) -> list[str]:
    """Lines for people: what is trained, and what was left out."""
    tokens, trained = sum(len(r.ids) for r in found.rows), sum(sum(r.trained[1:]) for r in found.rows)
    lines = [f"{len(found.rows)} rows, {tokens:,} tokens, {trained:,} of them trained"]
    if found.left_out:
        lines.append("left out: " + ", ".join(_reasons(found)))
    return [*lines, *found.faults]
