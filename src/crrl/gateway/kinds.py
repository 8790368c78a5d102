"""The kind of a call: the agent's main work, or something on the side (`docs/agents.md` has the table).

No API declares it. `Signs.of` reads signs from each request; `kinds_of` interprets them when the session is over,
because a call without tools is a side call only if the agent's main calls have tools, and an agent may ask for a title
before the first of those.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from crrl.gateway.api import Ask, SampleKind
from crrl.gateway.canonical import Message

HEAD = 1000  # characters of a text within which it must state its purpose

# Sentences at the beginning of such calls by real agents, in the system prompt or the last message.
SENTENCES: list[tuple[SampleKind, str]] = [
    ("compaction", "performing a CONTEXT CHECKPOINT COMPACTION"),  # Codex
    ("compaction", "create a detailed summary of (the|our) conversation"),  # Claude Code
    ("compaction", "tasked with summarizing conversations"),  # Claude Code, opencode
    ("compaction", "context summarization (agent|assistant)"),  # opencode, pi
    ("compaction", "summarizes internal chat history"),  # qwen-code
    ("compaction", "the component that summarizes"),  # qwen-code 0.24
    ("compaction", "maintaining a context-aware state summary"),  # OpenHands
    ("compaction", "context limit was reached when a user was in a working session"),  # goose
    ("compaction", r"\*?Briefly\*? summarize this partial conversation"),  # aider
    ("side", "You are a title generator"),  # opencode
    ("side", "one-line Git commit messages"),  # aider
    ("side", "indicates a new conversation topic"),  # Claude Code
    ("side", "who should logically speak next"),  # qwen-code
]
# What a client says itself (`Ask.hints["request_kind"]`; Codex), by a part of the word.
WORDS: list[tuple[SampleKind, str]] = [("compaction", "compact"), ("side", "title"), ("side", "memor")]

SEARCHED = 1 << 15  # characters of a beginning that are searched for a summary
RECENT = 64  # answers that may be one
# Characters of an answer that is known again in the text that a conversation begins with; of a part of it.
SUMMARY, PART = 8, 32
_TAG, _EMPTY_LINE = re.compile(r"</?[\w-]+>"), re.compile(r"\n\s*\n")  # which set parts off
# Words that change from request to request and name no agent: numbers, hashes, ids, days, months.
_NONCE = re.compile(
    r"(?<![\w.:+-])[\w.:+-]*\d[\w.:+-]*|\b[0-9a-f]{6,}\b|\b(?:mon|tues?|wed(?:nes)?|thur?s?|fri|sat(?:ur)?|sun)(?:day)?\b"
    r"|\b(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]*\b",
    re.IGNORECASE,
)
_SENTENCES = [(kind, re.compile(sentence)) for kind, sentence in SENTENCES]


@dataclass(frozen=True)
class Signs:
    """The signs in a request. `says`: the kind that it declares; None: none."""

    says: SampleKind | None
    tools: frozenset[str]
    system: str  # without what changes from request to request
    opening: str  # the first message of the user
    thread: str
    head: str = ""  # what its history begins with, before the first answer

    @classmethod
    def of(cls, ask: Ask) -> Signs:
        if len(ask.messages) > 1 and ask.messages[-1].role == "assistant":  # the beginning of the answer
            ask = replace(ask, messages=ask.messages[:-1])
        first = len(ask.messages)
        for i, message in enumerate(ask.messages):
            if message.role != "system":
                first = i
                break
        said = "\n".join(m.content for m in ask.messages[:first])
        system = _NONCE.sub("", said)
        opening = next((m.content for m in ask.messages if m.role == "user"), "")
        names = frozenset(str(t.get("function", t).get("name", "")) for t in ask.tools or [])
        return cls(_says(ask, said), names, system, opening, ask.hints.get("thread", ""), _head(ask))

    def same_agent(self, other: Signs) -> bool:
        """Another system prompt is another agent, unless it has the same tools and task (prompts hold dates)."""
        if self.thread and other.thread:
            return not self.other_thread(other)
        same_task = bool(self.tools) and (self.tools, self.opening) == (other.tools, other.opening)
        return self.system == other.system or same_task

    def other_thread(self, other: Signs) -> bool:
        """The client itself tells its agents apart (Codex)."""
        return bool(self.thread and other.thread) and self.thread != other.thread


def _head(ask: Ask) -> str:
    """The text before the first answer, without white space; one object for all turns that begin so."""
    before = takewhile(lambda m: m.role != "assistant", ask.messages)
    texts = [m.content for m in sorted(before, key=lambda m: m.role == "system")]  # which are long, and seldom say it
    return sys.intern(_squeezed("\n".join(texts)[:SEARCHED]))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _says(ask: Ask, system: str) -> SampleKind | None:
    word = ask.hints.get("request_kind", "").lower()
    for kind, part in WORDS:
        if part in word:
            return kind
    if ask.tools and not any(m.role == "assistant" for m in ask.messages):
        return None  # an agent that begins its work, whatever its task mentions
    last = ask.messages[-1] if ask.messages else Message("user")
    texts = [system[:HEAD], last.content[:HEAD] if last.role == "user" else ""]
    for kind, sentence in _SENTENCES:
        if any(sentence.search(text) for text in texts):
            return kind
    return None


def kinds_of(turns: Sequence[tuple[Signs, int | None, str]]) -> list[SampleKind]:
    """The kind of each turn of a session, in the order in which they were asked. With its signs come the number of the
    turn that its history ends with, if that was sampled here, and its answer ("" where that has tool calls)."""
    summaries = _summaries(turns)
    by_sign = [
        (replace(signs, says="compaction") if i in summaries else signs, before)
        for i, (signs, before, _) in enumerate(turns)
    ]
    return _by_sign(by_sign, set(summaries.values()))


def _summaries(turns: Sequence[tuple[Signs, int | None, str]]) -> dict[int, int]:
    """Answers that replaced the history before them -> the turn that begins with them. Whatever words asked for it: the
    answer calls no tool, and later a conversation that can work (a title's has no tools) begins with its text, or with
    a part of it. That may go on with the last turns before the summary (Claude Code)."""
    tooled = any(signs.tools for signs, _, _ in turns)
    texts = [_texts(answer) for _, _, answer in turns]
    found: dict[int, int] = {}
    for later, (signs, before, _) in enumerate(turns):
        if (tooled and not signs.tools) or (before is not None and turns[before][0].head == signs.head):
            continue
        for i in range(later - 1, max(-1, later - 1 - RECENT), -1):
            asked = turns[i][0]
            if signs.other_thread(asked):
                continue
            if any(text in signs.head and text not in asked.head for text in texts[i]):
                found.setdefault(i, later)
                break
    return found


def _texts(answer: str) -> list[str]:
    """An answer, and the parts of it that are long enough to be known again."""
    if len(answer) > SEARCHED:
        return []
    whole, *parts = (_squeezed(text) for text in (answer, *_TAG.split(answer), *_EMPTY_LINE.split(answer)))
    return [text for text, least in ((whole, SUMMARY), *((part, PART) for part in parts)) if len(text) >= least]


def _by_sign(turns: Sequence[tuple[Signs, int | None]], resumed: set[int]) -> list[SampleKind]:
    """`resumed`: turns that go on from a summary, which are their agent's own work whatever else they show."""
    own = [signs for signs, _ in turns if signs.says is None]
    with_tools = [signs for signs in own if signs.tools]
    usual = Counter(signs.system for signs in own).most_common(1)  # without tools, the agent is whoever asks most often
    without = [signs for signs in own if [signs.system] == [system for system, _ in usual]]
    main = set((with_tools or without)[:1])  # what we know of the agent so far
    kinds: list[SampleKind] = []
    for i, (signs, before) in enumerate(turns):
        inherited = kinds[before] if before is not None else None
        if signs.says is not None:
            kind = signs.says
        elif with_tools and not signs.tools:
            kind = "side"
        elif i in resumed:
            kind = "main"
        elif inherited in ("main", "subagent") and not any(signs.other_thread(known) for known in main):
            kind = inherited
        else:
            kind = "main" if any(signs.same_agent(known) for known in main) else "subagent"
        if kind == "main":
            main.add(signs)
        kinds.append(kind)
    return kinds
