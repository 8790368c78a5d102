"""agent=whole-file: the file that the issue names is shown, and the answered block written back, in two languages."""

from __future__ import annotations

import dataclasses
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from agents_kit import FILE, NEW, OLD, gcd_task
from rollout_kit import attempt, rollout_config

from crrl.engines.load import load_tokenizer
from crrl.engines.scripted import ScriptedEngine
from crrl.models import model_folder
from crrl.rollout.api import Episode
from crrl.rollout.episode import run_episode
from crrl.rollout.worker import build


async def answered(
    state_dir: Path, test_data: Path, answer: str, path: str = FILE, text: str = "", issue: str = ""
) -> Episode:
    task = gcd_task(test_data)
    files = {**(task.source.files or {}), **({path: text} if text else {})}
    source = dataclasses.replace(task.source, files=files)
    task = dataclasses.replace(task, source=source, issue=issue or f"`gcd` in {path} is wrong (see no/such.py, 1.5).")
    tokenizer = load_tokenizer(model_folder("tiny"))
    ids = tokenizer(f"{answer}<|im_end|>", add_special_tokens=False)["input_ids"]
    async with AsyncExitStack() as closing:
        config = rollout_config(state_dir, "unix:unused", "agent=whole-file", "agent.tokens=4096")
        parts = await build(config, ScriptedEngine([ids], step=64, context=1 << 16), closing)
        return await run_episode(attempt(task=task), parts)


@pytest.mark.parametrize("before", ["Here:\n", "<think>\n```python\na draft\n```\n</think>\n"])
async def test_the_answered_file_is_the_repair(state_dir: Path, test_data: Path, before: str) -> None:
    whole = (test_data / "quixbugs" / FILE).read_text().replace(OLD, NEW)
    episode = await answered(state_dir, test_data, f"{before}```python\n{whole}```\nDone.")
    assert episode.verdict and episode.verdict.solved and episode.well_formed
    (sample,) = episode.samples
    asked = load_tokenizer(model_folder("tiny")).decode(sample.prompt_ids)
    assert f"This is {FILE}:\n```python\n" in asked and OLD in asked


@pytest.mark.parametrize("answer", ["no block", "```python\nnever closed"])
async def test_what_is_no_file_changes_nothing_and_is_scored(state_dir: Path, test_data: Path, answer: str) -> None:
    episode = await answered(state_dir, test_data, answer)
    assert (episode.outcome, episode.exit_reason, episode.patch) == ("scored", "error", "")
    assert "no whole code block" in episode.agent_output and not episode.well_formed


async def test_other_languages_are_asked_for_by_their_own_name(state_dir: Path, test_data: Path) -> None:
    path = "java_programs/GCD.java"
    answer = "```java\nclass GCD { int two; }\n```"
    episode = await answered(state_dir, test_data, answer, path, "class GCD { int one; }\n")
    asked = load_tokenizer(model_folder("tiny")).decode(episode.samples[0].prompt_ids)
    assert f"This is {path}:\n```java\n" in asked and "+class GCD { int two; }" in episode.patch


async def test_where_no_file_is_named_the_one_that_defines_the_function_is_shown(
    state_dir: Path, test_data: Path
) -> None:
    """As issues of `crrl tasks make` are: the only file that they name is a test's."""
    issue = "`gcd` gives 0\n\nSeen in `test_gcd` (tests/test_gcd.py)."
    episode = await answered(state_dir, test_data, "?", "tests/test_gcd.py", "def gcd():\n    pass\n", issue)
    asked = load_tokenizer(model_folder("tiny")).decode(episode.samples[0].prompt_ids)
    assert f"This is {FILE}:\n```python\n" in asked


async def test_fences_within_the_file_and_its_line_ends_stay(state_dir: Path, test_data: Path) -> None:
    text = '"""Example:\r\n\r\n```\r\none()\r\n```\r\n"""\r\n\r\none = 1\r\n'
    answer = "````python\n" + text.replace("\r\n", "\n").replace("1", "2") + "````"
    episode = await answered(state_dir, test_data, answer, "src/one.py", text)
    asked = load_tokenizer(model_folder("tiny")).decode(episode.samples[0].prompt_ids)
    assert "This is src/one.py:\n````python\n" in asked and "one ````python block" in asked
    changed = [line for line in episode.patch.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert [line.strip() for line in changed] == ["-one = 1", "+one = 2"]


async def test_the_file_is_one_of_the_repository_and_no_test(state_dir: Path, test_data: Path) -> None:
    """Whatever words the issue has: a traceback's paths, ways out of the repository, names longer than a file's."""
    issue = f"/usr/lib/python3/abc.py, ../up.py, {'x' * 5000}.py, lib/one.test.ts, OneTest.java and {FILE}"
    episode = await answered(state_dir, test_data, "?", "lib/one.test.ts", "test()\n", issue)
    asked = load_tokenizer(model_folder("tiny")).decode(episode.samples[0].prompt_ids)
    assert f"This is {FILE}:\n" in asked
