"""The answering agent asked about a function: its answer is the patch, and nothing tells it the label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crrl import sandbox
from crrl.agents.answer import AnsweringAgent
from crrl.agents.api import AgentExit, AgentLimits, Endpoint
from crrl.conf import schema
from crrl.engines.load import load_tokenizer
from crrl.engines.scripted import ScriptedEngine
from crrl.gateway import Budget, Gateway, load_renderer
from crrl.models import model_folder
from crrl.rewards.label_judge import answer_in, judge
from crrl.sandbox.api import Spec
from crrl.task import Task
from crrl.tasks.classification import pair_tasks

TOKENIZER = load_tokenizer(model_folder("tiny"))
END = "<|im_end|>"
SECRET = "CWE-78"
BEFORE = "import os\n\ndef run(name):\n    os.system('ls ' + name)\n"
AFTER = "import subprocess\n\ndef run(name):\n    subprocess.run(['ls', '--', name])\n"
BOTH = pair_tasks(
    "zqpair", "zqcorpus", "train", BEFORE, AFTER, "python", [SECRET], family="zqfamily", created_at="2019"
)

Classify = Callable[..., Any]


@pytest.fixture
async def classify(state_dir: Path) -> Classify:
    """Play answers; gives (exit, the patch, what the policy was asked, what else lies in the box)."""

    async def run(*answers: str, task: Task, turns: int = 1) -> tuple[AgentExit, str, list[str], str]:
        boxes = sandbox.make(state_dir=state_dir)
        box = await boxes.start(Spec(root=await boxes.prepare(task.source)))
        engine = ScriptedEngine([TOKENIZER(a, add_special_tokens=False)["input_ids"] for a in answers], step=50)
        gateway = Gateway(engine, load_renderer(TOKENIZER, "qwen3"))
        await gateway.start()
        agent = AnsweringAgent(schema.Agent(name="answer", prompts="classify"), Path("unused"))
        try:
            handle = gateway.open("s", Budget())
            endpoint = Endpoint(handle.base_url, handle.api_key, "policy", handle.context)
            found = await box.exec(["sh", "-c", "git log -p --format=%B%an; env; ls -R . .git; cat * /proc/*/cmdline"])
            exit = await agent.run(box, task, endpoint, AgentLimits(turns, 2000, 60.0, lambda: 0.0))
            patch = await box.patch()
        finally:
            record = await gateway.close("s")
            await agent.close()
            await gateway.stop()
            await box.close()
            await boxes.close()
        return exit, patch, [TOKENIZER.decode(sample.prompt_ids) for sample in record.samples], found.output

    return run


async def test_the_answer_is_the_patch(classify: Classify) -> None:
    said = "It joins a name to a command.\n\nlabel: vulnerable\ncwe: CWE-78\nprobability: 0.9\nlines: 4"
    verdicts = {}
    for task in BOTH:
        exit, patch, (asked,), _ = await classify(said + END, task=task)
        assert (exit.reason, exit.counts) == ("finished", {"turns": 1, "edits": 1, "malformed": 0})
        answer = answer_in(patch)
        assert answer is not None and (answer.cwe, answer.probability, answer.lines) == (("CWE-78",), 0.9, (4,))
        assert "+It joins a name" in patch, "the reasoning is kept"
        code = next(iter((task.source.files or {}).values()))
        assert all(f"{number}: {line}\n" in asked for number, line in enumerate(code.splitlines(), 1))
        assert task.test.label is not None
        verdicts[task.test.label.vulnerable] = judge(task, patch).tests["label"]
    assert verdicts == {True: "passed", False: "failed"}


@pytest.mark.parametrize("text", ["It is fine.", "label: vulnerable\nlabel: not vulnerable", "x\0y " * 50])
async def test_what_is_no_answer_is_told_and_asked_again(classify: Classify, text: str) -> None:
    exit, patch, asked, _ = await classify(text + END, "label: not vulnerable" + END, task=BOTH[0], turns=2)
    assert exit.counts == {"turns": 2, "edits": 1, "malformed": 1} and "cannot be read" in asked[1]
    answer = answer_in(patch)
    assert answer is not None and answer.label == "not vulnerable"
    exit, patch, _, _ = await classify(text + END, task=BOTH[0])
    assert patch and exit.counts["malformed"] == 1
    assert judge(BOTH[0], patch).tests == {"label": "missing"}


async def test_nothing_tells_the_label(classify: Classify) -> None:
    """What an agent is given of both versions of a pair differs in the function alone."""
    told = []
    for task in BOTH:
        _, _, (asked,), around = await classify("label: cannot tell" + END, task=task)
        seen = asked + around + task.issue
        (code,) = (task.source.files or {}).values()
        for secret in (SECRET, "zq", "2019", "solution", task.id):
            assert secret not in seen, secret
        plain = asked
        for number, line in enumerate(code.splitlines(), 1):
            plain = plain.replace(f"{number}: {line}\n", "")
        told.append((plain, task.issue, task.source.files.keys()))  # type: ignore[union-attr]
    assert told[0] == told[1]
    stripped = [msgspec.to_builtins(task) | {"source": None, "test": None, "id": ""} for task in BOTH]
    assert stripped[0] == stripped[1], "nothing but the function, the label and the id differs"


def test_ids_do_not_tell_the_label() -> None:
    """Which version is `a` is a matter of chance over the pairs."""
    first = [
        task.test.label.vulnerable  # type: ignore[union-attr]
        for n in range(400)
        for task in pair_tasks(f"c-{n}", "c", "train", BEFORE, AFTER, "python", [])
        if task.id.endswith("a")
    ]
    assert 160 < sum(first) < 240
