"""Which tokens are trained, under any interleaving of appends, retries, drops and rewrites."""

from __future__ import annotations

import asyncio

import pytest
from gateway_kit import STOP, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from crrl.engines.scripted import ScriptedEngine
from crrl.gateway.api import Budget, Sample
from crrl.gateway.canonical import Message
from crrl.gateway.renderer import load_renderer
from crrl.gateway.session import SamplingPolicy, Session
from crrl.learning.replay import replay
from crrl.learning.rows import row_hash, rows_of
from crrl.rollout.api import Episode, TrainedRow

RENDERER = load_renderer(make_tokenizer(), "qwen3")


def episode(samples: list[Sample], **fields) -> Episode:
    return Episode("e", "g", "t", 0, 0, **{"outcome": "scored", "samples": samples, **fields})


class Agent:
    """A scripted agent on a real session. It knows which answers it used, by the rule as documented."""

    def __init__(self) -> None:
        def script(_: list[int]) -> list[int]:
            self.engine.version += 1  # one version per sample: a trained token names the sample it came from
            text = f"answer {self.engine.version}"
            return RENDERER.tokenizer.encode(text + ("" if self.engine.version % 5 == 0 else STOP))

        self.engine = ScriptedEngine(script, context=1 << 20, step=4)
        self.history: list[Message] = [Message("system", "s"), Message("user", "start")]
        self.answers: dict[str, list[tuple[int, list[int]]]] = {}  # request -> delivered (version, ids)
        self.continued: set[int] = set()
        self.dropped: set[int] = set()
        self.last: tuple[int, Message] | None = None
        self.edits = 0

    async def open(self) -> None:
        info = await self.engine.info()
        budget = Budget(tokens=1 << 20, turns=1 << 20)
        self.session = Session("e", budget, 7, 1.0, self.engine, info, RENDERER, SamplingPolicy())

    async def ask(self, deliver: bool) -> None:
        key = repr(self.history)
        turn = self.session.ask(self.history, None, {})
        if turn.task is not None:
            await turn.task
        assert turn.parsed is not None
        version = turn.versions[0]
        if deliver:
            turn.delivered = True
            self.dropped.discard(version)
            self.answers.setdefault(key, []).append((version, turn.ids))
            self.last = version, Message("assistant", turn.parsed.content)
        else:
            self.dropped.add(version)

    async def do(self, op: str) -> None:
        if op == "drop":
            await self.ask(deliver=False)
        elif op == "again" or self.last is None:  # resample, or the retry of an undelivered answer
            await self.ask(deliver=True)
        elif op == "append":
            self.continued.add(self.last[0])
            self.history = [*self.history, self.last[1], Message("user", f"next {self.edits}")]
            await self.ask(deliver=True)
        elif op == "rewrite":  # the agent goes on from its own version of the answer
            self.edits += 1
            mine = Message("assistant", f"edited {self.edits}")
            self.history = [*self.history, mine, Message("user", "next")]
            await self.ask(deliver=True)
        elif op == "edit":  # it changes what it said before
            self.edits += 1
            self.history = [*self.history[:-1], Message("user", f"other {self.edits}")]
            await self.ask(deliver=True)
        elif op == "back":  # it forgets its last two messages
            self.history = self.history[:-2] if len(self.history) > 3 else self.history
            self.last = None
            await self.ask(deliver=True)

    def used(self) -> dict[int, list[int]]:
        used: dict[int, list[int]] = {}
        for answers in self.answers.values():
            went_on = [a for a in answers if a[0] in self.continued]
            used.update(went_on or answers[-1:])
        return used


async def play(ops: list[str]) -> Agent:
    agent = Agent()
    await agent.open()
    for op in ops:
        await agent.do(op)
    return agent


OPS = st.lists(st.sampled_from(["append", "append", "again", "drop", "rewrite", "edit", "back"]), max_size=14)


@given(OPS)
@settings(max_examples=120, deadline=None)
def test_trained_are_exactly_the_sampled_and_used_tokens_each_once(ops: list[str]) -> None:
    async def run() -> None:
        agent = await play(ops)
        samples = (await agent.session.close()).samples
        rows, counts = rows_of(episode(samples), advantage=0.5)
        trained: dict[int, list[int]] = {}
        for row in rows:
            assert len(row.ids) == len(row.loss_mask) == len(row.logprobs) == len(row.versions)
            assert any(row.ids == s.prompt_ids + s.ids for s in samples)
            assert row.weight == 1 / len(rows)
            here: dict[int, list[int]] = {}
            for token, mask, logprob, version in zip(row.ids, row.loss_mask, row.logprobs, row.versions, strict=True):
                assert (mask, logprob) == ((1, -1.0) if version >= 0 else (0, 0.0))
                if mask:
                    here.setdefault(version, []).append(token)
            assert not here.keys() & trained.keys(), "a token is trained twice"
            trained |= here
        assert trained == agent.used()
        assert counts.trained == sum(map(len, trained.values()))
        assert counts.trained + sum(counts.left_out.values()) == sum(len(s.ids) for s in samples)
        assert counts.masked == sum(len(r.ids) for r in rows) - counts.trained

    asyncio.run(run())


def chain(*ids: list[int], **last) -> list[Sample]:
    """Samples that extend each other; `last` changes the last."""
    samples: list[Sample] = []
    prompt = [1, 2]
    for i, sampled in enumerate(ids):
        fields = last if i == len(ids) - 1 else {}
        parent = samples[-1].id if samples else None
        values = {"parent": parent, "prompt_ids": prompt, "ids": sampled, **fields}
        samples.append(Sample(f"s{i}", "e", logprobs=[-0.5] * len(sampled), versions=[3] * len(sampled), **values))
        prompt = [*prompt, *sampled, 9]
    return samples


def test_one_conversation_is_one_row() -> None:
    rows, counts = rows_of(episode(chain([5, 6], [7])), 1.0)
    assert [r.ids for r in rows] == [[1, 2, 5, 6, 9, 7]]
    assert rows[0].loss_mask == [0, 0, 1, 1, 0, 1] and rows[0].versions == [-1, -1, 3, 3, -1, 3]
    assert (counts.rows, counts.trained, counts.masked, counts.left_out) == (1, 3, 3, {})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"delivery": "superseded"}, "superseded"),
        ({"delivery": "dropped"}, "dropped"),
        ({"kind": "side"}, "side"),
    ],
)
def test_what_was_not_used_is_left_out_and_counted(change: dict, reason: str) -> None:
    rows, counts = rows_of(episode(chain([5, 6], [7], **change)), 1.0)
    assert [r.ids for r in rows] == [[1, 2, 5, 6]]
    assert counts.left_out == {reason: 1}


def test_a_lost_episode_gives_no_rows() -> None:
    rows, counts = rows_of(episode(chain([5, 6]), outcome="lost"), 1.0)
    assert rows == [] and counts.left_out == {"lost": 2}


def test_a_ledger_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="token for token"):
        rows_of(episode(chain([5, 6], [7], prompt_ids=[1, 2, 5, 8, 9])), 1.0)
    with pytest.raises(ValueError, match="not in the ledger"):
        rows_of(episode(chain([5, 6], [7], parent="nobody")), 1.0)


def test_the_hash_covers_every_field() -> None:
    (row,), _ = rows_of(episode(chain([5, 6], [7])), 1.0)
    changes = {"ids": [1, 2, 5, 6, 9, 8], "loss_mask": [0] * 6, "logprobs": [0.0] * 6, "versions": [4] * 6}
    changes |= {"advantage": 0.9, "weight": 0.5, "episode": "x", "group": "x"}
    hashes = {row_hash(row)} | {row_hash(type(row)(**{**row.__dict__, k: v})) for k, v in changes.items()}
    assert len(hashes) == 1 + len(changes)


def test_replay_is_exact_over_any_branching() -> None:
    agent = asyncio.run(play(["append", "again", "append", "rewrite", "edit", "append", "drop"]))
    one = episode(asyncio.run(agent.session.close()).samples)
    rows, counts = rows_of(one, 0.25)
    assert len(rows) > 1
    report = replay([one], [TrainedRow("e", i, row_hash(r), 0.25) for i, r in enumerate(rows)])
    assert report.exact and report.rebuilt == len(rows) and report.counts == counts
