"""The warm start's answers in blocks: what the answering agent would ask, and what puts the bug right."""

from __future__ import annotations

from itertools import islice

import pytest

from crrl.agents.answer import load_questions
from crrl.agents.search_replace.apply import apply
from crrl.agents.search_replace.parse import parse
from crrl.cli.main import main
from crrl.conf.load import load_recipe
from crrl.engines.load import load_tokenizer
from crrl.errors import UsageError
from crrl.gateway import load_renderer
from crrl.gateway.canonical import Message
from crrl.models import model_folder
from crrl.tasks.generator.generate import warmstart_bugs
from crrl.warmstart.blocks import MARKERS, Blocks
from crrl.warmstart.form import FORMS, PoolSettings, find
from crrl.warmstart.tokenizer import grown

QUESTIONS = load_questions("tiny")
TOKENIZER = grown(load_tokenizer(model_folder("tiny")), Blocks.whole)
SETTINGS = PoolSettings(seed=4)
SHOWN = list(zip(Blocks().demonstrations(SETTINGS, 0, 80), warmstart_bugs(4, 0, 80, 0.15), strict=True))


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_the_question_is_that_of_a_live_episode() -> None:
    renderer = load_renderer(TOKENIZER, "qwen3")
    for (question, _), (bug, _, _) in SHOWN:
        asked = [Message(**message) for message in QUESTIONS.messages(bug.issue, [(bug.path, bug.buggy)])]
        assert ids_of(question.text) == renderer.prompt(asked, ())


def test_the_answer_puts_the_demonstrated_line_in_place() -> None:
    repaired = 0
    for (_, answer), (bug, old, new) in SHOWN:
        parsed = parse(answer.text.removesuffix("<|im_end|>"), [bug.path])
        applied = apply(parsed.blocks, {bug.path: bug.buggy})
        assert not parsed.faults and set(applied.steps) == {"exact"}
        assert applied.files == {bug.path: bug.buggy.replace(old, new)}
        repaired += applied.files == {bug.path: bug.fixed}
    assert 50 < repaired < 80, "the warm start's families are repaired, RL's edited at random"


def test_markers_are_single_tokens_and_copying_lines_is_copying_ids() -> None:
    assert [len(ids_of(marker)) for marker in MARKERS] == [1, 1, 1]
    for (question, answer), _ in SHOWN:
        ids, asked = ids_of(answer.text), ids_of(question.text)
        start, end = (ids.index(ids_of(marker)[0]) for marker in MARKERS[:2])
        copied = ids[start + 1 : end]
        assert any(asked[i : i + len(copied)] == copied for i in range(len(asked)))


def test_a_tokenizer_that_grows_keeps_its_ids() -> None:
    old = load_tokenizer(model_folder("tiny"))
    for text in ("if x <= 3:\n    y += 1\n", "caf\u00e9 \u2603 a<<b==c"):
        assert ids_of(text) == old(text, add_special_tokens=False)["input_ids"]
    assert len(TOKENIZER) == len(old) + len(MARKERS)


@pytest.mark.parametrize("name", FORMS)
def test_what_trains_a_form_is_a_recipe(name: str) -> None:
    """Which names the warm start that makes its policy."""
    if name == "tools":  # is shipped
        assert load_recipe(find(name).recipe, []).recipe == "quickstart"
        return
    with pytest.raises(UsageError) as error:
        load_recipe(find(name).recipe, [])
    assert f"crrl sft warmstart-{name}" in str(error.value.remedy)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_made_of_seeds(name: str) -> None:
    form = find(name)
    first, second = (form.demonstrations(SETTINGS, 1, 5) for _ in range(2))
    assert first == second != form.demonstrations(SETTINGS, 2, 5)
    for segments in first:
        assert segments[0].part == "context" and segments[-1].part == "policy"
        assert segments[-1].text.endswith("<|im_end|>")
    assert all(text in "".join(s.text for e in islice(first, 5) for s in e) for text in form.whole[:2])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["form=blok"], "Did you mean 'blocks'"),
        (["mistakes=0.2"], "mistakes would be ignored"),
        (["base=nowhere"], "there is no such folder"),
        (["pool_size=10"], "pool_size=2000 or more"),
    ],
)
def test_what_cannot_work_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sft", "warmstart-blocks", "--dry-run", *words]) == 2
    assert said in capsys.readouterr().err
