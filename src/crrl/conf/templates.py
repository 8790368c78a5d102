"""The templates in a command agent's settings: their placeholders, and filling them in.

In the command, `{{ instruction }}`, `{{ model }}`... become quoted shell variables, never the text itself, so no issue
can break out of its word. In `files` and `env` they become the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from crrl import limited
from crrl.conf import schema
from crrl.errors import UsageError

# What a placeholder in the command becomes; the shell expands it to one word.
QUOTED = {
    "instruction": '"$INSTRUCTION"',
    "task": SimpleNamespace(issue='"$ISSUE"'),
    "model": '"$MODEL"',
    "base_url": '"$OPENAI_BASE_URL"',
    "api_key": '"$OPENAI_API_KEY"',
    "context": '"$CONTEXT"',
}
PLACEHOLDERS = "instruction, task.issue, model, context, base_url, api_key"


def render(setting: str, text: str, values: Mapping[str, Any]) -> str:
    """Fills in a template. Raises UsageError, which names the setting."""
    try:
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        return environment.from_string(text).render(values)
    except MemoryError:
        raise
    except Exception as error:  # a template is a program, and may fail in any way
        hint = f"Placeholders are {PLACEHOLDERS}, each in {{{{ two braces }}}}."
        raise UsageError(f"{setting}: {error}", hint) from None


def check_templates(config: schema.Agent) -> None:
    """Raises UsageError if a template has an unknown placeholder, or takes too much to fill in."""
    _check("agent.instruction", config.instruction, {"task": SimpleNamespace(issue="")})
    values = placeholders(config.instruction)
    _check("agent.command", config.command, QUOTED)
    for name, text in config.env.items():
        _check(f"agent.env.{name}", text, values)
    for path, text in config.files.items():
        _check(f"agent.files {path}", text, values)


def _check(setting: str, text: str, values: Mapping[str, Any]) -> None:
    if not limited.ends(lambda: render(setting, text, values)):
        raise UsageError(f"{setting}: takes {limited.MEANT} to fill in.", "Write a template that repeats less.")
    render(setting, text, values)


def placeholders(
    instruction: str, issue: str = "", model: str = "", base_url: str = "", api_key: str = "", context: int = 1
) -> dict[str, Any]:
    """The values of placeholders: of the task only its issue, nothing that could reveal its repair. `context` is the
    policy's, in tokens."""
    task = SimpleNamespace(issue=issue)
    return {
        "task": task,
        "instruction": render("agent.instruction", instruction, {"task": task}),
        "model": model,
        "base_url": base_url,
        "api_key": api_key,
        "context": context,
    }
