"""Puts search/replace blocks on the files of a box: what agents do with an answer, or a tool call, in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crrl.agents.search_replace import Block, Fault
from crrl.agents.search_replace.apply import apply
from crrl.sandbox.api import Box


@dataclass(frozen=True)
class Shown:
    """A file. What is no UTF-8 is read as Latin-1, which gives every byte back."""

    text: str
    encoding: str

    @classmethod
    def of(cls, data: bytes) -> Shown:
        try:
            return cls(data.decode(), "utf-8")
        except UnicodeDecodeError:
            return cls(data.decode("latin-1"), "latin-1")


async def put(box: Box, blocks: Sequence[Block], files: dict[str, Shown]) -> tuple[int, list[Fault]]:
    """Applies `blocks` to `files`, and writes those that change, here and in the box. Returns how many were applied,
    and what is wrong with the others."""
    applied = apply(blocks, {path: file.text for path, file in files.items()})
    faults = list(applied.faults)
    for path, text in applied.files.items():
        if path not in files and await _there(box, path):
            faults.append(Fault(1, f"{path} exists, but was not shown; only shown files can be changed."))
            continue
        encoding = files[path].encoding if path in files else "utf-8"
        try:
            await box.write(path, text.encode(encoding))
        except UnicodeEncodeError as error:
            faults.append(Fault(1, f"{path} is written in {encoding}, which has no {error.object[error.start]!r}."))
        except (OSError, ValueError) as error:
            faults.append(Fault(1, f"{path}: {getattr(error, 'strerror', None) or error}"))
        else:
            files[path] = Shown(text, encoding)
    return len(applied.steps), faults


async def read(box: Box, paths: Iterable[str], largest: int) -> tuple[dict[str, Shown], dict[str, Fault]]:
    """Those of `paths` that are there, and what is wrong with others: too large (bytes), no text, out of reach."""
    files: dict[str, Shown] = {}
    faults: dict[str, Fault] = {}
    for path in dict.fromkeys(paths):
        try:
            data = await box.read(path, limit=largest + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            faults[path] = Fault(1, f"{path}: {getattr(error, 'strerror', None) or error}")
            continue
        if len(data) > largest or b"\0" in data:
            faults[path] = Fault(1, f"{path} is too large, or no text, to be edited.")
        else:
            files[path] = Shown.of(data)
    return files, faults


async def _there(box: Box, path: str) -> bool:
    try:
        await box.read(path, limit=1)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
