"""Prompt sets: what the policy is told, in the API's own schema."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from crrl.agents.prompts import load_prompts, prompt_sets
from crrl.errors import CrrlError, UsageError


@pytest.mark.parametrize("name", prompt_sets())
def test_every_packaged_set_is_whole(name: str) -> None:
    prompts = load_prompts(name)
    *_, user = prompts.messages("f(1) returns 2 { {{ but should return 3.")
    assert user["role"] == "user" and "f(1) returns 2 { {{ but" in user["content"]  # text is never a template
    shell, edit = (tool["function"] for tool in prompts.tools())
    assert shell["parameters"]["required"] == ["cmd"] and edit["parameters"]["required"] == ["path", "old", "new"]
    assert pickle.loads(pickle.dumps(prompts)) == prompts


def test_the_tiny_prompt_is_short_and_the_full_one_explains() -> None:
    assert [m["role"] for m in load_prompts("tiny").messages("x")] == ["user"]
    assert [m["role"] for m in load_prompts("full").messages("x")] == ["system", "user"]


def test_unknown_and_broken_sets_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tiny"):
        load_prompts("tinny")
    file = tmp_path / "mine.yaml"
    file.write_text("system: hello\ntask: '{{ task.issue }}'\n")
    with pytest.raises(CrrlError, match=r"needs system, task, tools\.shell"):
        load_prompts(str(file))
