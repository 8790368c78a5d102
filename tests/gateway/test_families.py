"""Every hand-coded family by its recipe key, on one tokenizer that has all their special tokens."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gateway_kit import TOOLS
from hypothesis import given, settings
from hypothesis import strategies as st
from template_kit import every_family, template, tokenizer

from crrl.errors import CrrlError, UsageError
from crrl.gateway.api import Ask
from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import RenderError, load_renderer
from crrl.gateway.renderer.families import FAMILIES
from crrl.gateway.renderer.family import FamilyRenderer
from crrl.gateway.stream import TextStream

TOKENIZER = every_family()
NEEDS_A_FILE = {"gpt-oss"}  # harmony's vocabulary, which it downloads
RENDERERS = {key: FamilyRenderer(load_renderer(TOKENIZER, key).tokenizer, key) for key in {*FAMILIES} - NEEDS_A_FILE}
KEYS_HERE = sorted(RENDERERS)
PROMPT = [Message("system", "You repair."), Message("user", "Go.")]
LS, PWD = Call("shell", '{"cmd":"ls"}'), Call("shell", '{"cmd":"pwd"}')
ONE_CALL = {"llama-3"}  # its template has room for one


@pytest.mark.parametrize("key", KEYS_HERE)
def test_what_is_rendered_parses_back(key: str) -> None:
    renderer = RENDERERS[key]
    for calls in [[], [LS]] if key in ONE_CALL else [[], [LS], [LS, PWD]]:
        ids = renderer.assistant(Message("assistant", "" if calls else "Done.", calls))
        parsed = renderer.parse(ids, TOOLS)
        assert ids[-1] in renderer.stop_ids
        assert parsed.content == ("" if calls else "Done.") and not parsed.malformed
        assert [(c.name, c.arguments) for c in parsed.calls] == [(c.name, c.arguments) for c in calls]


@pytest.mark.parametrize("key", KEYS_HERE)
def test_the_bridge_is_the_packages_own_over_the_whole_history(key: str) -> None:
    renderer = RENDERERS[key]
    prompt = renderer.prompt([*PROMPT, Message("assistant", "First."), Message("user", "More.")], TOOLS)
    said, called = renderer.assistant(Message("assistant", "Done.")), renderer.assistant(Message("assistant", "", [LS]))
    compared = 0
    for ids, roles in [
        (said, "user"),
        (said[:-1], "user"),
        (called, "tool"),
        (called, "tool user"),
        (said, "system user"),
    ]:
        appended = [Message(role, f"text {i}") for i, role in enumerate(roles.split())]
        calls = renderer.parse(ids).calls
        placed = renderer._places.behind(appended, len(calls))
        theirs = renderer._inner.bridge_to_next_turn(
            prompt, ids, renderer._linked([Message("assistant", "", calls), *placed], True)[1:]
        )
        if theirs is not None:
            assert renderer.bridge(prompt, ids, appended) == theirs.token_ids
            compared += 1
    assert compared >= 3  # no family refuses plain turns


@pytest.mark.parametrize("key", KEYS_HERE)
def test_what_the_package_refuses_is_bridged_all_the_same(key: str) -> None:
    """Two results after two calls (DeepSeek V4), nothing appended, a turn that ended while reasoning."""
    renderer = RENDERERS[key]
    prompt = renderer.prompt(PROMPT, TOOLS)
    answer = prompt[-1]
    called = renderer.assistant(Message("assistant", "", [LS] if key in ONE_CALL else [LS, PWD]))
    results = [Message("tool", "first"), Message("tool", "second")][: 1 if key in ONE_CALL else 2]
    bridged = renderer.bridge(prompt, called, results)
    assert bridged[: len(prompt) + len(called)] == prompt + called
    tail = renderer.tokenizer.decode(bridged[len(prompt) + len(called) :])
    assert all(m.content in tail for m in results) and "first" not in tail.partition(results[-1].content)[2]
    for ids in (renderer.assistant(Message("assistant", "Done.")), renderer.stop_ids[:1]):
        bridged = renderer.bridge(prompt, ids, [])
        assert bridged[: len(prompt) + len(ids)] == prompt + ids
        assert bridged[-1] == answer
    bridged = renderer.bridge(prompt, renderer.stop_ids[:1], [Message("user", "again")])
    assert "again" in renderer.tokenizer.decode(bridged[len(prompt) + 1 :])


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_whatever_is_sampled_streams_parses_and_bridges(data: st.DataObject) -> None:
    renderer = RENDERERS[data.draw(st.sampled_from(KEYS_HERE))]
    marks = sorted(renderer.marks | {t for t in (renderer.think_open, renderer.think_close) if t is not None})
    words = [" a", "{", '{"name": "f"}', "\n\n", "é你", "<think>", "</think>"]
    token = st.one_of(st.sampled_from(marks).map(lambda t: [t]), st.sampled_from(words).map(renderer.tokenizer.encode))
    ids = [t for part in data.draw(st.lists(token, min_size=1, max_size=8)) for t in part]
    stop = next((i for i, t in enumerate(ids) if t in renderer.stop_ids), len(ids))
    ids = ids[: stop + 1]
    prompt = renderer.prompt(PROMPT, TOOLS)
    if data.draw(st.booleans()):
        prompt = renderer.bridge(prompt, renderer.assistant(Message("assistant", "", [LS])), [Message("tool", "out")])
    stream = TextStream(renderer, Ask([Message("user", "x")], TOOLS), prompt)
    deltas = [d for t in ids for d in stream.feed([t])]
    parsed, rest = stream.finish()  # ValueError: what was streamed is not how it begins
    deltas += rest
    assert "".join(d.text for d in deltas if d.kind == "content") == parsed.content
    assert "".join(d.text for d in deltas if d.kind == "reasoning") == parsed.reasoning
    assert [d.call for d in deltas if d.kind == "call"] == parsed.calls
    try:
        bridged = renderer.bridge(prompt, ids, [Message("user", "next")])
    except RenderError:
        return
    assert bridged[: len(prompt) + len(ids)] == prompt + ids
    assert "next" in renderer.tokenizer.decode(bridged[len(prompt) + len(ids) :])


def test_what_was_said_before_reasoning_opened_again_stays() -> None:
    renderer = RENDERERS["deepseek-v4"]
    for text, reasoning, content in [
        ("<think></think> a<think>", "", "a"),
        ("<think> x</think> a<think> y", "x y", "a"),
        (" a<think> y", "y", "a"),
        ("<think> x", "x", ""),
    ]:
        parsed = renderer.parse(renderer.tokenizer.encode(text), TOOLS)
        assert (parsed.reasoning, parsed.content) == (reasoning, content)


def test_reasoning_opens_where_the_family_says() -> None:
    opened = {key for key, r in RENDERERS.items() if r.opens_in_reasoning(r.prompt(PROMPT, None))}
    assert {"qwen3.5-thinking", "deepseek-r1", "minimax-m2", "kimi-k2.5-thinking", "glm-5.3"} <= opened
    assert not opened & {"qwen3", "qwen3-thinking", "qwen3.5", "llama-3", "glm-5", "deepseek-v3", "gemma4-thinking"}
    behind_a_tool = {
        key: r.bridge(r.prompt(PROMPT, TOOLS), r.assistant(Message("assistant", "", [LS])), [Message("tool", "out")])
        for key, r in RENDERERS.items()
    }
    opened_there = {key for key, prompt in behind_a_tool.items() if RENDERERS[key].opens_in_reasoning(prompt)}
    assert opened ^ opened_there == {"gemma4-thinking"}
    words = RENDERERS["gemma4-thinking"].tokenizer.encode("so<channel|>Done.<turn|>")
    parsed = RENDERERS["gemma4-thinking"].parse(words, TOOLS, behind_a_tool["gemma4-thinking"])
    assert (parsed.reasoning, parsed.content) == ("so", "Done.")


def test_xml_arguments_have_the_types_of_the_tools() -> None:
    renderer = RENDERERS["qwen3.5"]
    text = "<tool_call>\n<function=shell>\n<parameter=cmd>\ntrue\n</parameter>\n</function>\n</tool_call>"
    ids = renderer.tokenizer.encode(text)
    assert renderer.parse(ids, TOOLS).calls == [Call("shell", '{"cmd":"true"}')]
    assert renderer.parse(ids).calls == [Call("shell", '{"cmd":true}')]


def test_earlier_reasoning_stays_in_all_families_that_reason() -> None:
    for key, renderer in RENDERERS.items():
        prompt = renderer.prompt(PROMPT, None)
        thought = renderer.tokenizer.encode("Hm. ")
        if renderer.think_close is not None:
            thought = [*thought, renderer.think_close]
            thought = (
                thought
                if renderer.opens_in_reasoning(prompt) or renderer.think_open is None
                else [renderer.think_open, *thought]
            )
        ids = [*thought, *renderer.tokenizer.encode("Done."), renderer.stop_ids[0]]
        assert renderer.bridge(prompt, ids, [Message("user", "More.")])[: len(prompt) + len(ids)] == prompt + ids, key


@pytest.mark.parametrize(("key", "near"), [("qwen-3", "qwen3"), ("llama3", "llama-3"), ("genric", "generic")])
def test_unknown_keys_name_the_nearest(key: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"'{near}'"):
        load_renderer(TOKENIZER, key)


def test_a_vocabulary_that_is_not_here_is_said() -> None:
    try:
        load_renderer(TOKENIZER, "gpt-oss")
    except CrrlError as error:
        assert "o200k_base.tiktoken" in error.remedy or "does not fit" in error.message


def model(folder: Path, name: str, source: str | None = None) -> Path:
    tokenizer(name, source).save_pretrained(folder)
    return folder


def test_auto_goes_by_exact_name_and_proves_it_on_the_models_template(tmp_path: Path) -> None:
    cached = tmp_path / "models--Qwen--Qwen3-8B" / "snapshots" / "abc"
    assert load_renderer(model(cached, "qwen3"), "auto").key == "qwen3-thinking"  # that template's default
    named = tmp_path / "Qwen" / "Qwen3-4B"
    assert load_renderer(model(named, "qwen3"), "auto").key == "qwen3-thinking"
    fine_tune = tmp_path / "mine" / "Qwen3-4B"
    shutil.copytree(named, fine_tune)
    with pytest.raises(UsageError, match="mine/Qwen3-4B is not a model"):
        load_renderer(fine_tune, "auto")
    with pytest.raises(UsageError, match="does not render as"):
        load_renderer(model(tmp_path / "Qwen" / "Qwen3-14B", "qwen3", template("qwen2_5")), "auto")
    assert load_renderer(named, "qwen3").key == "qwen3"


def test_keys_that_need_a_template_say_so() -> None:
    for key in ("auto", "generic"):
        with pytest.raises(UsageError, match="chat template"):
            load_renderer(TOKENIZER, key)
