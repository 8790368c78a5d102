"""The built-in agent's prompts: templates under `conf/prompts/`, filled in per task.

The same agent serves a 1 M-parameter policy with a short prompt (`tiny`) and a 32B one with a full one (`full`);
only the words differ. A prompt set is a YAML file: `system` and `task` are Jinja templates over `task` (and
`limits`), `tools` describes the two tools (`edit` and `blocks`: the two forms of the second), `warnings` has the text
of a warning about a budget that is nearly used up.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, Template

from crrl.conf.recipes import FOLDER
from crrl.conf.schema import Agent
from crrl.errors import CrrlError, UsageError, nearest

EDITS = {"strings": ("path", "old", "new"), "blocks": ("blocks",)}
"""The forms of the tool `edit`, and its parameters."""
FOLDERS = {"builtin": FOLDER / "prompts", "answer": FOLDER / "prompts" / "answer"}
"""Agent -> where its sets of prompts are."""


def parameters(edit: str) -> dict[str, tuple[str, ...]]:
    """The tools and their parameters (all strings, all required), in the order that the policy sees."""
    return {"shell": ("cmd",), "edit": EDITS[edit]}


@dataclass(frozen=True)
class Warnings:
    """The agent gets one warning when no more than this is left of a budget."""

    turns_left: int
    tokens_left: int
    seconds_left: float


@dataclass(frozen=True)
class Prompts:
    """One prompt set. Plain values only, so that it crosses process borders."""

    name: str
    system: str
    task: str
    shell: str
    edit: str
    blocks: str
    warnings: Warnings

    def tools(self, edit: str = "strings") -> list[dict[str, Any]]:
        """The tools in the API's own schema. `edit`: one of `EDITS`. Raises CrrlError: that form is not described."""
        described = {"shell": self.shell, "edit": self.blocks if edit == "blocks" else self.edit}
        if not described["edit"]:
            raise CrrlError(
                f"The prompt set {self.name} does not describe the tool edit with search/replace blocks.",
                "Write tools.blocks, as conf/prompts/full.yaml has it.",
            )
        return [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": described[name],
                    "parameters": {
                        "type": "object",
                        "properties": {p: {"type": "string"} for p in names},
                        "required": list(names),
                    },
                },
            }
            for name, names in parameters(edit).items()
        ]

    def user(self, issue: str) -> str:
        """The opening user message of a task with this issue."""
        return _template(self.task).render(task=SimpleNamespace(issue=issue))

    def messages(self, issue: str) -> list[dict[str, Any]]:
        """The conversation an agent starts with; a prompt set without a system prompt sends none."""
        user = {"role": "user", "content": self.user(issue)}
        return [{"role": "system", "content": self.system}, user] if self.system else [user]


@lru_cache(maxsize=16)
def _template(text: str) -> Template:
    return Environment(undefined=StrictUndefined, keep_trailing_newline=False).from_string(text)


def prompt_sets() -> list[str]:
    """The packaged prompt sets, by name."""
    return sorted(path.stem for path in (FOLDER / "prompts").glob("*.yaml"))


def load_prompts(name: str) -> Prompts:
    """A packaged prompt set by name, or the path of a .yaml file. Raises UsageError, CrrlError."""
    path = Path(name) if name.endswith(".yaml") else FOLDER / "prompts" / f"{name}.yaml"
    if not path.is_file():
        raise UsageError(f"agent.prompts={name} does not exist.", nearest(name, prompt_sets()))
    raw = yaml.safe_load(path.read_text())
    try:
        return Prompts(
            name=path.stem,
            system=raw["system"].strip(),
            task=raw["task"].strip(),
            shell=raw["tools"]["shell"].strip(),
            edit=raw["tools"]["edit"].strip(),
            blocks=raw["tools"].get("blocks", "").strip(),
            warnings=Warnings(**raw["warnings"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CrrlError(
            f"{path}: not a prompt set ({type(error).__name__}: {error}).",
            "It needs system, task, tools.shell, tools.edit and warnings, as conf/prompts/tiny.yaml has them.",
        ) from None


def digest(config: Agent) -> str:
    """Of the text of the agent's prompts, wherever the file lies: a name may mean another text tomorrow. "": it has no
    prompts of ours."""
    folder = FOLDERS.get(config.name)
    if folder is None:
        return ""
    path = Path(config.prompts) if config.prompts.endswith(".yaml") else folder / f"{config.prompts}.yaml"
    said = json.dumps(yaml.safe_load(path.read_text()), sort_keys=True, default=str)
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
