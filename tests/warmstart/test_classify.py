"""The warm start's answers about functions: what the answering agent would ask, and what the judge reads."""

from __future__ import annotations

from crrl.agents.answer import load_questions
from crrl.gateway import load_renderer
from crrl.gateway.canonical import Message
from crrl.label import read
from crrl.tasks.generator.generate import generate
from crrl.tasks.generator.weaknesses import warmstart_pairs
from crrl.warmstart.classify import PROMPTS, Classify
from crrl.warmstart.form import PoolSettings
from crrl.warmstart.tokenizer import train_tokenizer

SETTINGS = PoolSettings(seed=4, random_share=0.5)
SHOWN = list(zip(Classify().demonstrations(SETTINGS, 0, 400), warmstart_pairs(4, 0, 400, 0.5), strict=True))
TOKENIZER = train_tokenizer(("".join(s.text for s in shown) for shown, _ in SHOWN), Classify.whole, 1024)


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_the_question_is_that_of_a_live_episode() -> None:
    renderer, questions = load_renderer(TOKENIZER, "qwen3"), load_questions(PROMPTS)
    for (question, _), (pair, _, _) in SHOWN:
        asked = [
            [Message(**message) for message in questions.messages("of no matter", [("function.c", code)])]
            for code in (pair.before, pair.after)
        ]
        assert ids_of(question.text) in [renderer.prompt(messages, ()) for messages in asked]


def test_answers_are_right_where_they_are_to_be_and_a_coin_elsewhere() -> None:
    right = {True: 0, False: 0}
    for (question, said), (pair, _, shown) in SHOWN:
        answer = read(said.text.removesuffix("<|im_end|>"))
        vulnerable = pair.before.split("\n")[-2] in question.text and all(
            line in question.text for line in pair.before.splitlines()
        )
        right[shown] += (answer.label == "vulnerable") is vulnerable
        if shown and vulnerable:
            assert answer.cwe == (pair.family.cwe,) and answer.lines
    shown = sum(shown for _, (_, _, shown) in SHOWN)
    assert right[True] == shown and 0.35 < right[False] / (len(SHOWN) - shown) < 0.65


def test_prompts_are_short() -> None:
    """The tiny policy's context has room for every generated function and its answer."""
    questions, renderer = load_questions(PROMPTS), load_renderer(TOKENIZER, "qwen3")
    for split in ("train", "rl_instances", "unseen_families"):
        for index in range(60):
            task = generate(split, 0, index, ask="classify")
            asked = questions.messages(task.issue, list((task.source.files or {}).items()))
            assert len(renderer.prompt([Message(**message) for message in asked], ())) < 300
