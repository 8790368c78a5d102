"""Kinds of calls, by what real agents were seen to send."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateway_kit import TOOLS

from crrl.gateway.api import Ask
from crrl.gateway.canonical import Call, Message
from crrl.gateway.kinds import HEAD, SENTENCES, Signs, kinds_of

SYSTEM, USER = Message("system", "You are an agent."), Message("user", "fix it")
OTHER = [{"type": "function", "function": {"name": "grep"}}]


def signs(*messages: Message, tools: list | None = TOOLS, **hints: str) -> Signs:
    return Signs.of(Ask(list(messages) or [SYSTEM, USER], tools, hints=hints))


def kinds(*calls: Signs | tuple[Signs, int]) -> list[str]:
    return list(kinds_of([(*call, "") if isinstance(call, tuple) else (call, None, "") for call in calls]))


def test_a_call_without_tools_is_on_the_side_of_an_agent_that_has_them() -> None:
    title = signs(Message("system", "Name this."), USER, tools=None)
    assert kinds(title, signs(), (signs(), 1)) == ["side", "main", "main"]  # also one that came first


def test_of_agents_without_tools_the_one_that_asks_most_is_the_agent() -> None:
    name, ask = signs(Message("system", "Name this."), USER, tools=None), signs(tools=None)
    assert kinds(name, ask, (ask, 1)) == ["subagent", "main", "main"]
    assert kinds(ask, name) == ["main", "subagent"]


@pytest.mark.parametrize(("kind", "sentence"), SENTENCES)
def test_the_sentences_of_real_agents(kind: str, sentence: str) -> None:
    plain = sentence.replace("(the|our)", "the").replace("(agent|assistant)", "agent").replace(r"\*?", "*")
    answer = Message("assistant", "done")
    for tools in (None, TOOLS):
        told = signs(Message("system", f"You are it. {plain}."), USER, answer, USER, tools=tools)
        asked = signs(SYSTEM, USER, answer, Message("user", f"{plain}\nInclude all."), tools=tools)
        assert kinds(signs(), told, (asked, 0)) == ["main", kind, kind]
    assert kinds(signs(), signs(Message("system", plain), USER, tools=None)) == ["main", kind]
    # Where the agent's task or a tool's output speaks of such a thing, it is no sign.
    task = signs(SYSTEM, Message("user", f"Fix this: {plain}"))
    output = signs(SYSTEM, USER, answer, Message("tool", plain))
    late = signs(SYSTEM, USER, answer, Message("user", "x" * HEAD + plain))
    assert kinds(task, output, late) == ["main", "main", "main"]


def test_what_the_client_says_itself() -> None:
    assert kinds(signs(), signs(request_kind="compaction"), signs(request_kind="turn")) == [
        "main",
        "compaction",
        "main",
    ]


def test_another_agent_is_a_subagent_and_stays_one() -> None:
    other = signs(Message("system", "You search."), Message("user", "where is f?"), tools=OTHER)
    assert kinds(signs(), (signs(), 0), other, (other, 2), (signs(), 1)) == [
        "main",
        "main",
        "subagent",
        "subagent",
        "main",
    ]
    assert kinds(signs(thread="1"), signs(thread="2"), signs(thread="1")) == ["main", "subagent", "main"]


def test_the_same_agent_may_change_its_prompt_or_its_tools() -> None:
    later = signs(Message("system", "You are an agent. It is Tuesday."), USER)
    assert kinds(signs(), later) == ["main", "main"]
    assert kinds(signs(), signs(tools=[*TOOLS, *OTHER])) == ["main", "main"]  # with the same prompt
    summed_up = signs(SYSTEM, Message("user", "Summary: ..."))
    assert kinds(signs(), summed_up) == ["main", "main"]


def summed_up(asked: Message, resumed: Message, *, system: Message = SYSTEM, tools: list | None = TOOLS) -> list[str]:
    """An agent works, asks for a summary, and goes on from that."""
    history = [SYSTEM, USER, Message("assistant", "done"), Message("tool", "r")]
    later = signs(system, resumed)
    return list(
        kinds_of(
            [
                (signs(), None, ""),
                (signs(*history, asked, tools=tools), 0, "All that was done, in short."),
                (later, None, ""),
                (signs(system, resumed, Message("assistant", "x")), 2, "Done."),
            ]
        )
    )


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize(
    "words", ["Wrap up.", "CRITICAL. ".ljust(395, ".") + "create a detailed summary", "要約してください", ""]
)
def test_a_summary_is_known_by_what_becomes_of_it(words: str, tools: list | None) -> None:
    resumed = Message("user", "This session goes on. Summary:\nAll that was done, in short.\nContinue.")
    other = Message("system", "You are quite another prompt now.")
    for system in (SYSTEM, other):
        found = summed_up(Message("user", words), resumed, system=system, tools=tools)
        assert found == ["main", "compaction", "main", "main"]


@pytest.mark.parametrize("kept", [True, False], ids=["the last turns are kept", "alone"])
@pytest.mark.parametrize("long", [False, True], ids=["short prompt", "long prompt"])
def test_a_summary_whose_tags_the_agent_takes_off(kept: bool, long: bool) -> None:
    """As Claude Code does: only what was in `<summary>` goes on, with other white space; behind it the last turns."""
    system = Message("system", "You are an agent. " * (4000 if long else 1))
    turns = [Message("assistant", "", [Call("shell", "{}")]), Message("tool", "r")]
    answer = (
        "<analysis>\nIt was long.\n</analysis>\n\n<summary>\nRepair gcd.\n\n\nNext: swap its arguments.\n</summary>"
    )
    resumed = Message("user", "This goes on. Summary:\nRepair gcd.\n\nNext: swap its arguments.\n\nGo on.")
    later = [system, resumed, *(turns if kept else [])]
    found = kinds_of(
        [
            (signs(system, USER), None, ""),
            (signs(system, USER, *turns), 0, ""),
            (signs(system, USER, *turns, *turns, Message("user", "Wrap up.")), 1, answer),
            (signs(*later), 1 if kept else None, ""),
            (signs(*later, *turns), 3, "Done."),
        ]
    )
    assert found == ["main", "main", "compaction", "main", "main"]


def test_an_answer_that_nothing_begins_with_is_no_summary() -> None:
    assert summed_up(Message("user", "Go on."), Message("user", "Another task."))[1] == "main"


LONG = "The task is gcd; it recurses for ever when b is 0, and nothing is edited yet."
SUMMED_UP = [  # what the model answers, and what the agent makes of it
    (
        f"<analysis>\nLet me think.\n</analysis>\n<summary>\n{LONG}\n</summary>",
        f"Continued. Summary:\n{LONG}\n\nGo on.",
    ),
    (f"Sure.\n\n{LONG}", f"<state>{LONG}</state>"),
    (LONG, "So far: " + LONG.replace("; ", ";\n    ")),
    (f"<state_snapshot><goal>{LONG}</goal></state_snapshot>", f"<goal>{LONG}</goal>"),
]


@pytest.mark.parametrize(("answer", "begins"), SUMMED_UP)
def test_a_summary_is_known_in_the_form_that_the_agent_gives_it(answer: str, begins: str) -> None:
    asked = signs(SYSTEM, USER, Message("assistant", "x"), Message("user", "Write all down."), tools=None)
    later = signs(SYSTEM, Message("user", begins))
    assert kinds_of([(signs(), None, ""), (asked, 0, answer), (later, None, "")]) == ["main", "compaction", "main"]


def test_an_answer_that_a_side_call_quotes_is_no_summary() -> None:
    """It has no tools, and the agent has: nothing goes on from there."""
    title = signs(Message("user", f"Name this: {LONG}"), tools=None)
    assert kinds_of([(signs(), None, LONG), (title, None, "gcd"), (signs(), 0, "")]) == ["main", "side", "main"]


def test_a_quoted_task_is_no_summary() -> None:
    """The answer repeats the task, and the agent begins again with that."""
    task = Message("user", LONG)
    asked = signs(SYSTEM, task, Message("assistant", "x"), Message("tool", "r"))
    turns = [(signs(SYSTEM, task), None, ""), (asked, 0, f"So:\n\n{LONG}\n\nThat was it.")]
    assert kinds_of([*turns, (signs(SYSTEM, task), None, "")]) == ["main", "main", "main"]


@pytest.mark.parametrize(
    "one,two",
    [
        ("x-billing: v=2.1.332.394; You are an agent.", "x-billing: v=2.1.332.cf6; You are an agent."),
        ("You are an agent. Today is Friday, 27 Nov 2026.", "You are an agent. Today is Saturday, 28 Nov 2026."),
        ("Session 0b6e4c1e-aaaa-4bbb-8ccc-0123456789ab.", "Session ffffffff-1234-4bbb-8ccc-ba9876543210."),
        ("You are an agent. commit deadbeefcafe", "You are an agent. commit abcdefabcdef"),
    ],
)
def test_what_changes_from_request_to_request_makes_no_other_agent(one: str, two: str) -> None:
    first, later = (signs(Message("system", text), Message("user", f"task {i}")) for i, text in enumerate((one, two)))
    assert kinds(first, later) == ["main", "main"]


def test_the_table_in_the_docs_is_this_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "agents.md").read_text()
    missing = [sentence for _, sentence in SENTENCES if f"`{sentence.replace('|', chr(92) + '|')}`" not in text]
    assert not missing
