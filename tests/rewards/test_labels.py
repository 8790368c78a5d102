"""Answers to "is this function vulnerable?": read, judged, paid; and a cheap attack on each reward, paid nothing."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crrl.admission.admission import admit
from crrl.errors import UsageError
from crrl.label import ANSWER, LARGEST, Answer, Label, Unreadable, read, right, write
from crrl.rewards import combine, make
from crrl.rewards.label_judge import TEST, answer_in, judge, patch_of
from crrl.rewards.task_judge import TaskJudge
from crrl.task import Task
from crrl.tasks.classification import pair_tasks
from crrl.tasks.diffs import between
from crrl.tasks.files import check

BEFORE = "def find(db, name):\n    query = 'select * from t where n = ' + name\n    return db.execute(query)\n"
AFTER = "def find(db, name):\n    query = 'select * from t where n = ?'\n    return db.execute(query, (name,))\n"
BOTH = pair_tasks("p1", "test", "train", BEFORE, AFTER, "python", ["CWE-89"])
VULNERABLE, FIXED = sorted(BOTH, key=lambda task: not task.test.label.vulnerable)  # type: ignore[union-attr]


def said(text: str) -> str:
    """The patch of an agent that wrote this."""
    return between(ANSWER, None, text)


# Reading --------------------------------------------------------------------------------------------------------------

READ = {
    "label: vulnerable\ncwe: CWE-089\nprobability: 90%\nlines: 3, 7 - 9 and 11": Answer(
        "vulnerable", ("CWE-89",), 0.9, (3, 7, 8, 9, 11)
    ),
    "I see.\n\n**Label:** Not vulnerable.\n- **Probability**: .75": Answer("not vulnerable", (), 0.75),
    '```json\n{"label": "vulnerable", "cwe": "CWE-79", "probability": 0.7, "lines": [1, 2]}\n```': Answer(
        "vulnerable", ("CWE-79",), 0.7, (1, 2)
    ),
    "<think>label: vulnerable</think>\nLabel: cannot tell\nprobability: 0.1": Answer("cannot tell"),
    "label: vulnerable\r\nlines: L2-L3\r\ncwe: 89\r\n": Answer("vulnerable", ("CWE-89",), None, (2, 3)),
    "<answer>label: non-vulnerable\nlines: none\ncwe: N/A</answer> label: vulnerable": Answer("not vulnerable"),
    "label: not_vulnerable\nlabel: not vulnerable": Answer("not vulnerable"),
    "> label: vulnerable\ncwe: CWE-79, CWE-89 (injection)": Answer("vulnerable", ("CWE-79", "CWE-89")),
    '{"label": "not vulnerable", "probability": null, "lines": []}': Answer("not vulnerable"),
    "1. Label: not vulnerable (it is bound)\n2. CWE: Not applicable\n3. Probability: ~0.9 (sure)\n4. Lines: -": Answer(
        "not vulnerable", (), 0.9
    ),
    "• **label**: vulnerable.\n• cwe: CWE-089: injection\n• probability: about 95 %\n• lines: line 3 to line 5": Answer(
        "vulnerable", ("CWE-89",), 0.95, (3, 4, 5)
    ),
    "label：vulnerable\ncwe: none known (not CWE-79)\nprobability: 0,8\nlines: lines 2–3 (the query)": Answer(
        "vulnerable", (), 0.8, (2, 3)
    ),
    "label: not vulnerable\ncwe: none, it is bound\nlines: none needed\nprobability: unknown": Answer("not vulnerable"),
}
NO_ANSWER = {
    "": "no line",
    "N/A": "no line",
    "It is vulnerable.": "no line",
    "label: N/A": "none of",
    "label: (vulnerable)": "none of",
    "label: vulnerable or not": "none of",
    "label: not vulnerable, or vulnerable": "none of",
    "label: vulnerable\nprobability: high": "is no number",
    "label: vulnerable\nprobability: 0.7 to 0.9": "is no number",
    "label: vulnerable\ncwe: nonesuch": "is not CWE-N",
    "label: vulnerable\nlines: 3 (or not)-5": "no number",
    "label:": "none of",
    "label: vulnerable, or not vulnerable, or cannot tell": "none of",  # the question, copied
    "label: vulnerable\nlabel: not vulnerable": "two different labels",
    '{"label": "vulnerable", "label": "not vulnerable"}': "two different labels",
    '{"label": "vulnerable"}\nlabel: not vulnerable': "two different labels",
    "<answer>label: vulnerable</answer><answer>label: not vulnerable</answer>": "two answers",
    "<think>label: vulnerable": "never ends",
    "label: vulnerable\nprobability: 0.2": "contradicts",
    "label: vulnerable\nprobability: 1.5": "contradicts",
    "label: vulnerable\nprobability: nan": "is no number",
    "label: vulnerable\nprobability: 0.6\nprobability: 0.9": "two different probabilities",
    "label: vulnerable\nlines: 1-99999": "no range",
    "label: vulnerable\nlines: 9-3": "no range",
    "label: vulnerable\nlines: all": "no number",
    "label: vulnerable\ncwe: injection": "is not CWE-N",
    "label: vulnerable\n" + "x" * (1 << 20): "longer",
}


@pytest.mark.parametrize("text", READ)
def test_what_models_write_is_read(text: str) -> None:
    assert read(text) == READ[text]


@pytest.mark.parametrize("text", NO_ANSWER)
def test_nothing_is_guessed(text: str) -> None:
    with pytest.raises(Unreadable, match=NO_ANSWER[text]):
        read(text)


ANSWERS = st.builds(
    Answer,
    st.sampled_from(["vulnerable", "not vulnerable"]),
    st.lists(st.integers(1, 1500).map(lambda n: f"CWE-{n}"), unique=True, max_size=3).map(tuple),
    st.none() | st.integers(50, 100).map(lambda n: n / 100),
    st.sets(st.integers(1, 300), max_size=9).map(lambda lines: tuple(sorted(lines))),
)


@given(ANSWERS)
def test_what_is_written_is_read_again(answer: Answer) -> None:
    assert read(write(answer)) == answer == answer_in(patch_of(answer))


@given(
    st.text(
        alphabet="label:cweprobability, vulnerable not{}\"'<>answerthink/\n0123456789-.%[]\0\r\x0c\u2028é", max_size=300
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    for made in (text, f"label: vulnerable\n{text}"):
        try:
            assert 0 <= read(made).vulnerable <= 1
        except Unreadable as error:
            assert str(error)


# Judging --------------------------------------------------------------------------------------------------------------


def test_the_label_alone_decides() -> None:
    for task, other in ((VULNERABLE, FIXED), (FIXED, VULNERABLE)):
        truth, wrong = task.test.label, other.test.label
        assert truth is not None and wrong is not None
        assert judge(task, patch_of(right(truth))).tests == {TEST: "passed"}
        assert judge(task, patch_of(right(wrong))).tests == {TEST: "failed"}
        assert judge(task, patch_of(Answer("cannot tell"))).tests == {TEST: "skipped"}
        for text in NO_ANSWER:
            assert judge(task, said(text) if text else "").tests == {TEST: "missing"}


def test_nothing_else_of_the_patch_counts() -> None:
    answer = patch_of(Answer("vulnerable"))
    path = next(iter(VULNERABLE.source.files or {}))
    repaired = between(path, BEFORE, AFTER) + between("answer.json", None, '{"label": "not vulnerable"}\n')
    elsewhere = between("sub/ANSWER", None, "label: not vulnerable\n") + between("ANSWER.md", None, "label: N/A\n")
    hook = between("conftest.py", None, "raise SystemExit\n")
    assert judge(VULNERABLE, answer + repaired + elsewhere + hook).tests == {TEST: "passed"}
    assert judge(VULNERABLE, repaired + elsewhere + hook).tests == {TEST: "missing"}
    link = "diff --git a/ANSWER b/ANSWER\nnew file mode 120000\n--- /dev/null\n+++ b/ANSWER\n"
    link += "@@ -0,0 +1 @@\n+/etc/passwd\n\\ No newline at end of file\n"
    assert judge(VULNERABLE, link).tests == {TEST: "missing"}
    outside = judge(VULNERABLE, answer.replace("b/ANSWER", "b/../ANSWER"))
    assert (outside.applied, outside.reason, outside.tests) == (False, "patch_refused", {TEST: "missing"})
    assert not judge(VULNERABLE, "label: vulnerable").applied, "a patch, not a text"


@pytest.mark.parametrize("key", ["label", "cwe", "probability", "lines"])
@pytest.mark.parametrize("filler", [" ", "\t", "-", "—", "(", "()", "1 ", "1-", "to ", "line ", "CWE-", "~ ", "none "])
def test_a_long_value_takes_no_time(key: str, filler: str) -> None:
    value = f"1{filler * (60_000 // len(filler))}2"
    for text in (
        f"label: vulnerable\n{key}: {value}",
        json.dumps({"label": "vulnerable", key: f"{value}\n{value[:9]}"}),
    ):
        began = time.process_time()
        with suppress(Unreadable):
            read(text)
        assert time.process_time() - began < 2


def test_an_answer_of_a_megabyte_is_refused_in_time() -> None:
    for line in (
        "label: vulnerable\n",
        "lines: 1, 2, 3\n",
        '{"label": "vulnerable"}',
        "{",
        "*" * 100,
        "\0\n",
        "CWE-1 ",
        "1.",
        "none (",
        "-",
        "lines ",
    ):
        text = "label: vulnerable\n" + line * ((1 << 20) // len(line))
        began = time.process_time()
        assert judge(VULNERABLE, said(text)).tests == {TEST: "missing"}
        assert time.process_time() - began < 5
        short = text[: LARGEST - 10]
        began = time.process_time()
        judge(VULNERABLE, said(short))
        assert time.process_time() - began < 5, line


async def test_the_judge_of_a_run_starts_nothing_for_it(task_judge: TaskJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a box, or a process")

    monkeypatch.setattr(task_judge, "_ask", refuse)
    monkeypatch.setattr(type(task_judge._boxes), "start", refuse)
    monkeypatch.setattr("subprocess.Popen", refuse)
    results = await task_judge.run(VULNERABLE, patch_of(Answer("vulnerable")))
    assert results.tests == {TEST: "passed"}
    for task in BOTH:
        admission = await admit(task, task_judge)
        assert (admission.status, admission.task) == ("admitted", task)
        check(task, measured=True)
    # a judge that takes any answer, or none, would be found out
    monkeypatch.setattr("crrl.rewards.label_judge.answer_of", lambda patch: Answer("vulnerable"))
    assert (await admit(VULNERABLE, task_judge)).status == "broken"


# Rewards --------------------------------------------------------------------------------------------------------------


def paid(name: str, task: Task, patch: str, **options: object) -> float | None:
    return make(name, options)(task, patch, judge(task, patch), [])


def mean_on_pair(name: str, text: str) -> float:
    """Of an answer that is the same for both versions."""
    values = [paid(name, task, said(text)) for task in BOTH]
    return sum(value or 0.0 for value in values) / len(values)


def test_label_pays_for_the_probability_of_what_is_true() -> None:
    for probability, score in ((1.0, 1.0), (0.9, 0.96), (0.75, 0.75), (0.5, 0.0)):
        assert paid("label", VULNERABLE, patch_of(Answer("vulnerable", (), probability))) == pytest.approx(score)
        assert paid("label", FIXED, patch_of(Answer("not vulnerable", (), probability))) == pytest.approx(score)
    assert paid("label", FIXED, patch_of(Answer("vulnerable", (), 0.9))) == pytest.approx(-2.24)
    assert paid("label", FIXED, patch_of(Answer("vulnerable"))) == -3.0 == paid("label", FIXED, "")
    assert paid("label", FIXED, patch_of(Answer("cannot tell"))) == 0.0


@given(st.integers(50, 100), st.integers(50, 100))
def test_label_is_proper(believed: int, stated: int) -> None:
    """Whoever believes q is paid best for saying q."""

    def expected(q: float, p: float) -> float:
        hit = paid("label", VULNERABLE, patch_of(Answer("vulnerable", (), p)))
        miss = paid("label", FIXED, patch_of(Answer("vulnerable", (), p)))
        assert hit is not None and miss is not None
        return q * hit + (1 - q) * miss

    q, p = believed / 100, stated / 100
    assert expected(q, q) >= expected(q, p) - 1e-9


def test_the_prior_makes_classes_equal() -> None:
    """On data of which one in ten is vulnerable, no constant answer gains."""
    for text in (
        "label: not vulnerable",
        "label: not vulnerable\nprobability: 0.9",
        "label: vulnerable\nprobability: 0.6",
    ):
        shares = {VULNERABLE.id: 0.1, FIXED.id: 0.9}
        values = {task.id: paid("label", task, said(text), prior=0.1) or 0.0 for task in BOTH}
        assert sum(shares[id] * value for id, value in values.items()) <= 0
    with pytest.raises(UsageError, match="prior"):
        make("label", {"prior": 1.0})


def test_cwe_pays_for_the_weakness() -> None:
    assert paid("cwe", VULNERABLE, said("label: vulnerable\ncwe: CWE-089")) == 1.0
    assert paid("cwe", VULNERABLE, said("label: vulnerable\ncwe: CWE-89, CWE-79")) == 0.5
    assert paid("cwe", VULNERABLE, said("label: vulnerable\ncwe: CWE-79")) == 0.0
    assert paid("cwe", VULNERABLE, said("label: not vulnerable\ncwe: CWE-89")) == 0.0
    assert paid("cwe", FIXED, said("label: not vulnerable")) == 0.0
    assert paid("cwe", FIXED, said("label: vulnerable\ncwe: CWE-89")) == -1.0


def test_cited_lines_pays_for_the_fixs_lines() -> None:
    truth = VULNERABLE.test.label
    assert truth is not None and truth.lines == [2, 3]
    assert paid("cited_lines", VULNERABLE, said("label: vulnerable\nlines: 2-3")) == 1.0
    assert paid("cited_lines", VULNERABLE, said("label: vulnerable\nlines: 3")) == 0.5
    assert paid("cited_lines", VULNERABLE, said("label: vulnerable\nlines: 1")) == -1.0
    assert paid("cited_lines", VULNERABLE, said("label: vulnerable\nlines: 2-3, 70")) == 0.5
    assert paid("cited_lines", VULNERABLE, said("label: not vulnerable\nlines: 2-3")) == 0.0
    assert paid("cited_lines", FIXED, said("label: not vulnerable\nlines: 1")) == 0.0
    assert paid("cited_lines", FIXED, said("label: vulnerable\nlines: 2")) == -1.0
    unknown = replace(VULNERABLE, test=replace(VULNERABLE.test, label=Label(True)))
    assert paid("cited_lines", unknown, said("label: vulnerable\nlines: 2")) is None is paid("cwe", unknown, "")


ATTACKS = (
    *("N/A", "label: N/A", "label: vulnerable\nlabel: not vulnerable", "vulnerable and not vulnerable"),
    *("label: vulnerable\ncwe: CWE-89\nlines: 2-3", "label: not vulnerable", "label: cannot tell"),
    "label: vulnerable\ncwe: CWE-89\nprobability: 0.5\nlines: 1-3",
    "label: not vulnerable\nprobability: 0.5\ncwe: CWE-89\nlines: 2-3",
    "label: vulnerable\ncwe: " + ", ".join(f"CWE-{n}" for n in range(1, 1400)) + "\nlines: 1-9999",
    "label: vulnerable\n" + "CWE-89 lines: 2\n" * 70_000,
)


@pytest.mark.parametrize("name", ["label", "cwe", "cited_lines"])
@pytest.mark.parametrize("number", range(len(ATTACKS)))
def test_attacks_are_paid_nothing(name: str, number: int) -> None:
    """One answer whatever the function: no reward of classification is above 0 on a pair."""
    assert mean_on_pair(name, ATTACKS[number]) <= 0.0


def test_all_lines_are_paid_nothing() -> None:
    assert paid("cited_lines", VULNERABLE, said("label: vulnerable\nlines: 1-3")) == 0.0


def test_other_rewards_have_nothing_to_say() -> None:
    weigh = combine({"label": 1.0, "cwe": 0.2, "cited_lines": 0.3})
    truth = VULNERABLE.test.label
    assert truth is not None
    patch = patch_of(right(truth))
    verdict = weigh(VULNERABLE, patch, judge(VULNERABLE, patch))
    assert verdict.solved and verdict.reward == pytest.approx(1.5)
    assert set(verdict.components) == {"label", "cwe", "cited_lines", "tests"}
