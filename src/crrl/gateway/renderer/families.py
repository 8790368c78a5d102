"""The hand-coded families of the `renderers` package, each by a recipe key.

Earlier reasoning stays in the prompt in all of them (`thinking_retention="all"`, and the template's own switch where
it has one): with a family's default, its bridge gives up at each new user message. Deploy with the same. The keys are
read where settings are checked, so this file imports no renderer (`family.py` does).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

_DATE = "2025-08-05"  # gpt-oss writes today's into the prompt: the same seed would not give the same run


@dataclass(frozen=True)
class Family:
    """A renderer of the package with its settings.

    Args:
        tool_names: results show which call they answer.
        think: the tokens around reasoning.
        varies: reasoning is open in some generation prompts alone (behind a user's message, or a tool's result).
        call_mark: text in front of a call's mark, and the mark, where that does not look like one.
        declares: it shows tools as TypeScript declarations, which say less than JSON Schema.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    tool_names: bool = False
    think: tuple[str, str] = ("<think>", "</think>")
    call_start: str = ""
    call_mark: tuple[str, str] = ("", "")
    varies: bool = False
    declares: bool = False


def _switched(key: str, switch: str = "enable_thinking", **settings: Any) -> dict[str, Family]:
    """KEY does not reason, KEY-thinking does."""
    return {
        key: Family(key, {switch: False, **settings}),
        f"{key}-thinking": Family(key, {switch: True, **settings}),
    }


FAMILIES: dict[str, Family] = {
    **_switched("qwen3"),
    "prime-qwen3": Family("prime-qwen3"),
    **_switched("qwen3.5"),
    **_switched("qwen3.6", preserve_thinking=True),
    **_switched("qwen3.8", preserve_thinking=True),
    "qwen3-vl": Family("qwen3-vl"),
    "gemma4": Family("gemma4", {"enable_thinking": False, "preserve_thinking": True}, think=("", "")),
    "gemma4-thinking": Family(
        "gemma4", {"enable_thinking": True, "preserve_thinking": True}, think=("", ""), varies=True
    ),
    **_switched("glm-4.5"),
    **_switched("glm-5", clear_thinking=False),
    **_switched("glm-5.1", clear_thinking=False),
    "glm-5.3": Family("glm-5.3", {"clear_thinking": False}),
    "gpt-oss": Family(
        "gpt-oss", {"auto_drop_analysis": False, "conversation_start_date": _DATE}, tool_names=True, think=("", "")
    ),
    "hy3": Family(
        "hy3",
        {"reasoning_effort": "no_think", "preserved_thinking": True},
        think=("<think:opensource>", "</think:opensource>"),
    ),
    "hy3-thinking": Family(
        "hy3",
        {"reasoning_effort": "high", "preserved_thinking": True},
        think=("<think:opensource>", "</think:opensource>"),
    ),
    "inkling": Family("inkling", tool_names=True, think=("", "")),
    "kimi-k2": Family("kimi-k2", {"enable_thinking": False}, tool_names=True),
    "kimi-k2.5": Family("kimi-k2.5", {"thinking": False}, tool_names=True, declares=True),
    "kimi-k2.5-thinking": Family("kimi-k2.5", {"thinking": True}, tool_names=True, declares=True),
    **_switched("laguna-xs.2"),
    **_switched("laguna-m.1"),
    **_switched("laguna-xs-2.1"),
    **_switched("laguna-s-2.1", preserve_thinking=True),
    "llama-3": Family("llama-3", call_start="{"),
    "minimax-m2": Family("minimax-m2"),
    **_switched("nemotron-3", truncate_history_thinking=False),
    **_switched("nemotron-3-ultra", truncate_history_thinking=False),
    **_switched("nemotron-3.5", truncate_history_thinking=False),
    "deepseek-v3": Family("deepseek-v3"),
    "deepseek-r1": Family("deepseek-r1"),
    **{
        key: replace(family, call_mark=("<", "｜DSML｜"))
        for key, family in _switched("deepseek-v4", drop_thinking=False).items()
    },
}
