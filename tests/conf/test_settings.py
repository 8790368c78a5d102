"""No inert setting (invariant 9): every key is read by something other than the configuration itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import crrl
from crrl.agents.prompts import prompt_sets
from crrl.conf.checks import KINDS, PARTS, choices
from crrl.conf.schema import Config, WarmstartConfig, keys
from crrl.gateway.api import SampleKind
from crrl.gateway.renderer import load_renderer
from crrl.learning.rows import CREDIT
from crrl.models import model_folder
from crrl.registry import GROUPS, Part, parts
from crrl.tasks.corpora import find

PACKAGE = Path(crrl.__file__).parent
SOURCE = "\n".join(f.read_text() for f in PACKAGE.rglob("*.py") if f.parent.name not in ("conf", "cli"))


@pytest.mark.parametrize("key", [k.name for schema in (Config, WarmstartConfig) for k in keys(schema)])
def test_every_setting_is_read(key: str) -> None:
    word = key.rsplit(".", 1)[-1]
    if len(choices(key)) == 1:
        return  # a word with one choice: what it names is all there is yet
    assert re.search(rf"\.{word}\b", SOURCE), f"nothing reads {key}"


def test_words_that_are_kept_twice_are_the_same() -> None:
    assert set(KINDS) == set(get_args(SampleKind)) == set(CREDIT)
    assert Config().objective.credit == CREDIT
    load_renderer(model_folder("tiny"), Config().renderer.key)
    assert {"tiny", "full"} <= set(prompt_sets())


@pytest.mark.parametrize("part", [part for group in GROUPS for part in parts(group).values() if part.ours], ids=str)
def test_every_registered_part_is_there(part: Part) -> None:
    if part.group == "crrl.trackers":
        pytest.importorskip(part.name, reason="the extra [trackers] is not installed")
    assert callable(part.load()) or (part.group == "crrl.corpora" and find(part.name).name == part.name)


def test_a_misspelt_word_is_answered_without_the_parts() -> None:
    """Nobody waits for torch to be told of a typo."""
    heavy = ["torch", "transformers", "trl", "renderers", "openai", "datasets"]
    code = f"""
import sys
from crrl.conf.load import load_recipe
from crrl.errors import UsageError
load_recipe("quickstart")
for typo in ({", ".join(f'"{key}=x"' for key in PARTS)}, "rewards.weights.x=1", "rewards.options.x.y=1"):
    try:
        load_recipe("quickstart", [typo])
    except UsageError:
        pass
    else:
        sys.exit(f"{{typo}} is taken")
print(*sorted(set({heavy}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
