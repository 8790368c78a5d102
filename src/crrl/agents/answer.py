"""The answering agent: one question, one answer. The issue and the files in one prompt; the answer's search/replace
blocks are put on the files (`search_replace/`). Asked to classify a function, the answer itself is the patch: it is
written to the file `ANSWER` (`crrl.label`).

It runs on the host and acts only through `Box.read` and `write`. Which files it shows is a setting: those that the
known fix changes (as in SWE-RL, arXiv:2502.18449: where to repair is given), or those that the issue names. With more
than one turn, the policy is told what could not be read or applied, and answers again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from crrl import label, unified_diff
from crrl.agents.api import AgentExit, AgentLimits, Endpoint, WhatNow, nothing_more
from crrl.agents.chat import FAILURES, Chat, connections, ended_by
from crrl.agents.excerpts import changed_lines, excerpt, lines_of, pieces
from crrl.agents.search_replace import Fault, in_box
from crrl.agents.search_replace.in_box import Shown
from crrl.agents.search_replace.parse import parse
from crrl.conf import schema
from crrl.conf.recipes import FOLDER
from crrl.errors import CrrlError, LostError, UsageError, nearest
from crrl.sandbox.api import Box, Mount
from crrl.task import Task

LARGEST_FILE = 1 << 20  # bytes of a file that is shown
SHOWN = ("fixed", "named")
_PATH = re.compile(r"[\w./+-]*\w\.\w{1,5}\b")


@dataclass(frozen=True)
class Questions:
    """A set of prompts, from conf/prompts/answer/. Templates over `issue`, `files` (each a `path` and a `text`) and
    `faults`.

    Args:
        context: unchanged lines that search/replace blocks of this form hold around each change, where we write them.
        lines: of a longer file, about so many are shown, around what the known fix changes (`excerpts.py`); 0: all.
    """

    system: str
    task: str
    again: str
    context: int = 0
    lines: int = 0

    def messages(
        self, issue: str, files: Iterable[tuple[str, str]], solution: str | None = None
    ) -> list[dict[str, Any]]:
        """`solution`: the known fix, where the files are those that it changes."""
        shown = [
            SimpleNamespace(path=path, text=excerpt(text, self._changed(path, solution), self.lines))
            for path, text in files
        ]
        user = {"role": "user", "content": _filled(self.task, issue=issue, files=shown)}
        return [{"role": "system", "content": self.system}, user] if self.system else [user]

    def pieces(self, path: str, text: str, solution: str | None) -> list[tuple[int, int]]:
        """Of a file, which lines are shown: [first, last)."""
        return pieces(lines_of(text), self._changed(path, solution), self.lines)

    def _changed(self, path: str, solution: str | None) -> list[int]:
        return changed_lines(solution).get(path, []) if self.lines and solution else []

    def told(self, faults: Sequence[Fault]) -> str:
        return _filled(self.again, faults=faults)


class AnsweringAgent:
    """One object serves any number of episodes at once.

    Args:
        config: the agent's settings, of which this reads `prompts`. state_dir: for agents that have files.
        show: `fixed`: the files that the known fix changes; `named`: those that the issue names.
    """

    inside = False
    mounts: Sequence[Mount] = ()

    def __init__(self, config: schema.Agent, state_dir: Path, show: str = "fixed") -> None:
        if show not in SHOWN:
            raise UsageError(f"agent.options.show={show} does not exist.", nearest(show, SHOWN))
        self.questions, self._show = load_questions(config.prompts), show
        self._http = connections()

    async def close(self) -> None:
        await self._http.aclose()

    async def run(
        self, box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits, what_now: WhatNow = nothing_more
    ) -> AgentExit:
        """Raises LostError: the box or the endpoint is gone; CrrlError: the task cannot be asked about."""
        counts = dict.fromkeys(("turns", "edits", "malformed"), 0)
        said, tokens, chat = "", 0, Chat(self._http, endpoint)
        files = await self._files(box, task)
        solution = task.solution if self._show == "fixed" else None
        messages = self.questions.messages(task.issue, [(path, file.text) for path, file in files.items()], solution)
        try:
            while True:
                if counts["turns"] >= limits.turns:
                    return AgentExit("turn_limit" if counts["turns"] else "error", counts=counts, output=said)
                answer = await chat.ask(messages, limits.tokens - tokens)
                said, tokens = answer.content, tokens + answer.tokens
                counts["turns"] += 1
                messages.append(answer.message())
                if answer.finish == "length":
                    return AgentExit("token_limit", counts=counts, output=said)
                if task.test.label is None:
                    faults = await self._edit(box, said, files, counts)
                else:
                    faults = await _answer(box, said, counts)
                if faults and counts["turns"] < limits.turns and tokens < limits.tokens:
                    messages.append({"role": "user", "content": self.questions.told(faults)})
                elif (again := await what_now()) is not None:
                    box = again.box
                    messages.append({"role": "user", "content": again.message})
                else:
                    return AgentExit("finished", counts=counts, output=said)
        except FAILURES as error:
            reason, detail = ended_by(error)
            return AgentExit(reason, detail=detail, counts=counts, output=said)  # type: ignore[arg-type]

    async def _edit(self, box: Box, answer: str, files: dict[str, Shown], counts: dict[str, int]) -> list[Fault]:
        """Puts the blocks of an answer on the files, in the box and in `files`. What fails is told."""
        parsed = parse(answer, list(files))
        applied, refused = await in_box.put(box, parsed.blocks, files)
        faults = [*parsed.faults, *refused]
        if not parsed.blocks and not faults:
            faults = [Fault(1, "The answer has no search/replace block.")]
        counts["edits"] += applied
        counts["malformed"] += len(faults)
        return faults

    # Which files ------------------------------------------------------------------------------------------------

    async def _files(self, box: Box, task: Task) -> dict[str, Shown]:
        """By path."""
        if task.test.label is not None:
            paths = sorted(task.source.files or {})
        else:
            paths = _fixed(task) if self._show == "fixed" else await _named(box, task.issue)
        files = {}
        for path in paths:
            try:
                data = await box.read(path, limit=LARGEST_FILE + 1)
            except OSError:
                continue  # the fix makes it, or it is a folder
            if len(data) > LARGEST_FILE or b"\0" in data:
                raise CrrlError(
                    f"Task {task.id}: {path} is too large, or no text, to be shown.", "Leave this task out."
                )
            files[path] = Shown.of(data)
        return files


async def _answer(box: Box, said: str, counts: dict[str, int]) -> list[Fault]:
    """Writes what was said to `ANSWER`, as it is: the judge reads it anew. Why it cannot be read is told."""
    faults = []
    try:
        label.read(said)
    except label.Unreadable as error:
        faults = [Fault(1, f"{error}.")]
    kept = said[: label.LARGEST + 1]  # enough to be refused
    await box.write(label.ANSWER, f"{kept.rstrip()}\n".encode("utf-8", "replace"))
    counts["edits"] += not faults
    counts["malformed"] += len(faults)
    return faults


def _fixed(task: Task) -> list[str]:
    if task.solution is None:
        raise CrrlError(
            f"Task {task.id} has no known fix, so which files to show is not known.", "Write agent.options.show=named."
        )
    return list(dict.fromkeys(part.old for part in unified_diff.parse(task.solution) if part.old))


async def _named(box: Box, issue: str) -> list[str]:
    listed = await box.exec(["git", "ls-files", "-z"], timeout_s=60.0, output_limit=8 << 20)
    if listed.reason == "lost":
        raise LostError("sandbox_died", listed.output[-500:])
    paths = listed.output.split("\0")
    named = dict.fromkeys(name.removeprefix("./").lstrip("/") for name in _PATH.findall(issue))
    return [path for name in named for path in paths if path == name or path.endswith(f"/{name}")]


# Prompts ------------------------------------------------------------------------------------------------------


def load_questions(name: str) -> Questions:
    """A packaged set by name, or the path of a .yaml file. Raises UsageError, CrrlError."""
    folder = FOLDER / "prompts" / "answer"
    path = Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        raise UsageError(f"agent.prompts={name} does not exist for agent=answer.", nearest(name, known))
    try:
        raw = yaml.safe_load(path.read_text())
        numbers = {key: raw.pop(key, 0) for key in ("context", "lines")}
        for key, number in numbers.items():
            if type(number) is not int or number < 0:
                raise TypeError(f"{key}: {number!r} is no number of lines")
        return Questions(**{key: text.strip() for key, text in raw.items()}, **numbers)
    except (TypeError, AttributeError, yaml.YAMLError) as error:
        remedy = "It needs system, task and again, and may have context and lines, numbers of lines."
        raise CrrlError(f"{path}: not a set of prompts ({error}).", remedy) from None


def _filled(template: str, **values: Any) -> str:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    return environment.from_string(template).render(values)
