"""Trajectories of others: JSON Lines or parquet, one conversation a row, in the layouts that are published.

- `messages` (or `trajectory`): as a request to chat completions has them, a list or its JSON text; `tools` likewise.
  SWE-smith, SWE-Gym and R2E-Gym, CoderForge, SWE-rebench's OpenHands, and what `crrl curate` writes.
- `trajectory` with `role` system, user or ai, and `text`: nebius/SWE-agent-trajectories.

The verdict is `solved`, `resolved`, `target` or a `reward` of 1; where a row has none of them nobody judged it.
Invariant 11: a row that cannot be read is named by file and line, and the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from crrl.curation.api import Found, Tokens, Trajectory
from crrl.errors import CrrlError
from crrl.gateway.api import BadRequest
from crrl.gateway.dialects import chat

CHATS, VERDICTS = ("messages", "trajectory"), ("solved", "resolved", "target")
TASKS, IDS = ("task", "instance_id", "task_id"), ("id", "traj_id", "trajectory_id", "run_id")
PATCHES, MODELS = (
    ("patch", "model_patch", "generated_patch", "git_patch"),
    ("model", "model_name", "model_name_or_path"),
)
ABOUT = ("language", "repository", "corpus")
LARGEST = 64 << 20  # bytes of one row


def of_file(file: Path, found: Found) -> None:
    """Adds the conversations of a file. Raises CrrlError: the file cannot be read at all."""
    for number, row in _rows(file):
        where = f"{file}:{number}"
        if isinstance(row, str):
            found.fault(where, row)
            continue
        try:
            found.trajectories.append(_trajectory(row, f"{file.name}:{number}", f"{file.stem}/{number}"))
        except (BadRequest, ValueError) as error:
            found.fault(where, str(error).splitlines()[0])


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line or row from 1, the row or why it is none)."""
    try:
        yield from _parquet(file) if file.suffix == ".parquet" else _lines(file)
    except OSError as error:  # pyarrow's own are OSErrors, too
        raise CrrlError(f"{file} cannot be read: {error}", "Write a .jsonl or .parquet file of chats.") from error


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if len(line) > LARGEST:
                yield number, f"a row of {len(line) >> 20} MB"
                continue
            try:
                row = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield number, f"no JSON: {error}"
                continue
            yield number, row if isinstance(row, dict) else "no JSON object"


def _parquet(file: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    number = 0
    try:
        for batch in pq.ParquetFile(file).iter_batches(256):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pa.ArrowException as error:
        raise CrrlError(f"{file} is damaged, or no parquet file: {error}", "Fetch it again.") from error


def _trajectory(row: Mapping[str, Any], where: str, name: str) -> Trajectory:
    """Raises ValueError, BadRequest."""
    tokens = _tokens(row)
    messages = [_without_nulls(_message(m)) for m in _list(row, CHATS)]
    tools = _list(row, ("tools",))
    if messages or tokens is None:
        _check(messages, tools)
    solved = next((_verdict(row[key]) for key in VERDICTS if row.get(key) is not None), None)
    reward = row.get("reward")
    if solved is None and isinstance(reward, int | float):
        solved = reward >= 1
    about = {key: str(row[key]) for key in ABOUT if row.get(key)}
    if model := _first(row, MODELS):
        about["model"] = model
    return Trajectory(
        id=_first(row, IDS) or name,
        task=_first(row, TASKS),
        messages=messages,
        tools=tools,
        solved=solved,
        reward=float(reward) if isinstance(reward, int | float) else None,
        patch=_first(row, PATCHES),
        where=where,
        about=about,
        tokens=tokens,
    )


def _check(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> None:
    """That `crrl sft` can read it. Raises ValueError, BadRequest."""
    roles = [message.get("role") for message in messages]
    if "assistant" not in roles:
        raise ValueError("no message is the assistant's")
    if roles[0] == "assistant":
        raise ValueError("the first message is the assistant's: nothing asks for it")
    chat.read(msgspec.json.encode({"messages": messages, **({"tools": tools} if tools else {})}), {})


def _list(row: Mapping[str, Any], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Empty where the row has none."""
    found: Any = next((row[key] for key in keys if row.get(key) is not None), [])
    if isinstance(found, str):
        found = json.loads(found) if found else []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"{' or '.join(keys)}: not a list of objects")
    return found


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """nebius' form in that of chat completions; any other as it is."""
    if "content" in message or "tool_calls" in message:
        return dict(message)
    role, text = message.get("role"), message.get("text") or message.get("system_prompt")
    if not isinstance(role, str) or not isinstance(text, str):
        raise ValueError("a message without role or content")
    return {"role": {"ai": "assistant"}.get(role, role), "content": text}


def _without_nulls(message: dict[str, Any]) -> dict[str, Any]:
    """A table has every field in every row."""
    return {key: value for key, value in message.items() if value is not None}


def _verdict(value: Any) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise ValueError(f"a verdict of {value!r}: neither true nor false")


def _first(row: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return next((str(row[key]) for key in keys if row.get(key) is not None), "")


def _tokens(row: Mapping[str, Any]) -> Tokens | None:
    """Of a row that `crrl curate` wrote."""
    ids, trained, tokenizer = row.get("ids"), row.get("trained"), row.get("tokenizer")
    if not ids or not tokenizer:
        return None
    if not trained or len(ids) != len(trained):
        raise ValueError("ids and trained differ in length")
    return Tokens(list(ids), [int(bool(t)) for t in trained], str(tokenizer))
