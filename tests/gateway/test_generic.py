"""The generic renderer on chat templates written out by hand: which are sound, which are refused and why."""

from __future__ import annotations

from pathlib import Path

import pytest
import trl
from gateway_kit import TOOLS
from hypothesis import given, settings
from hypothesis import strategies as st
from template_kit import every_family, template, tokenizer
from transformers import PreTrainedTokenizerFast

from crrl.errors import UsageError
from crrl.gateway.api import Ask
from crrl.gateway.canonical import Call, Message
from crrl.gateway.ledger import template_hash
from crrl.gateway.renderer import RenderError, load_renderer
from crrl.gateway.renderer.family import FamilyRenderer
from crrl.gateway.renderer.generic import GenericRenderer
from crrl.gateway.stream import TextStream

SOUND = {
    "qwen2_5": ("Hermes (<tool_call>)", "several"),
    "llama3_1": ("Llama 3 (JSON or <|python_tag|>)", "one"),
    "ministral_3": ("Mistral ([TOOL_CALLS])", "several"),
    "phi_4_mini": ("Phi and Granite (<|tool_call|>)", "several"),
    "qwen3_training": ("Hermes (<tool_call>)", "several"),
}
THINKING = template("qwen3_training").replace(
    "'<|im_start|>assistant\\n' }}", "'<|im_start|>assistant\\n<think>\\n' }}"
)
RENDERERS = {name: load_renderer(tokenizer(name), "generic") for name in SOUND}
RENDERERS["opens in reasoning"] = load_renderer(tokenizer("qwen3", THINKING), "generic")
EVERY = every_family()
LOOK = Call("shell", '{"cmd":"ls"}')


def texts(renderer: GenericRenderer, messages: list[Message], tools: list | None, *, answer: bool) -> list[int]:
    return renderer.tokenizer.encode(renderer._template.render(messages, tools, answer=answer))


@pytest.mark.parametrize("name", SOUND)
def test_sound_templates_are_proved(name: str) -> None:
    renderer = RENDERERS[name]
    form, calls = SOUND[name]
    assert renderer.format.name == form
    assert renderer.several_calls == (calls == "several")
    assert renderer.tokenizer.decode(renderer.stop_ids[0]) in ("<|im_end|>", "<|eot_id|>", "</s>", "<|end|>")


@pytest.mark.parametrize("name", RENDERERS)
def test_a_whole_session_by_bridges_is_the_full_render(name: str) -> None:
    """User, two tool cycles, answer, user, answer, with a system message and tools: token for token."""
    renderer = RENDERERS[name]
    assert isinstance(renderer, GenericRenderer)
    reasoning = "Hm." if renderer.opens else ""
    messages = [Message("system", "You repair."), Message("user", "Go.")]
    ids = renderer.prompt(messages, TOOLS)
    assert ids == texts(renderer, messages, TOOLS, answer=True)
    for answer, appended in [
        (Message("assistant", "", [LOOK], reasoning), [Message("tool", "a.py")]),
        (Message("assistant", "", [LOOK], reasoning), [Message("tool", "b.py")]),
        (Message("assistant", "Done.", [], reasoning), [Message("user", "Thanks. Once more?")]),
        (Message("assistant", "Sure.", [], reasoning), [Message("user", "Good.")]),
    ]:
        sampled = renderer.assistant(answer)
        parsed = renderer.parse(sampled, TOOLS)
        assert (parsed.content, parsed.reasoning) == (answer.content, reasoning)
        assert [c.arguments for c in parsed.calls] == [c.arguments for c in answer.calls]
        before, ids = ids, renderer.bridge(ids, sampled, appended)
        assert ids[: len(before) + len(sampled)] == before + sampled
        messages += [answer, *appended]
        assert ids == texts(renderer, messages, TOOLS, answer=True)


PIECES = [" a b", "\n\n", "é你", "<think>", "</think>", '{"name": "shell", "parameters": {}}', "{", "shell[ARGS]{}"]
PIECES += ['<tool_call>{"name": "shell", "arguments": {}}</tool_call>', "<tool_call>", "</tool_call>", "<|end|>"]
PIECES += ["[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", 'shell.call(cmd="x")', "<|tool_call|>", "<|/tool_call|>"]
PIECES += ["<|im_end|>", "<|eot_id|>", "</s>", "<|endoftext|>"]


@given(st.sampled_from(sorted(RENDERERS)), st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join))
@settings(max_examples=400, deadline=None)
def test_whatever_is_sampled_stays_streams_and_bridges(name: str, text: str) -> None:
    renderer = RENDERERS[name]
    ids = renderer.tokenizer.encode(text)
    stop = next((i for i, t in enumerate(ids) if t in renderer.stop_ids), len(ids))
    ids = ids[: stop + 1]
    prompt = renderer.prompt([Message("user", "Go.")], TOOLS)
    stream = TextStream(renderer, Ask([Message("user", "x")], TOOLS), prompt)
    deltas = [d for t in ids for d in stream.feed([t])]
    parsed, rest = stream.finish()
    deltas += rest
    assert "".join(d.text for d in deltas if d.kind == "content") == parsed.content
    assert "".join(d.text for d in deltas if d.kind == "reasoning") == parsed.reasoning
    assert [d.call for d in deltas if d.kind == "call"] == parsed.calls
    if name == "llama3_1" and len(parsed.calls) > 1:  # its template refuses two calls in a turn
        return
    tail = renderer.bridge(prompt, renderer.assistant(Message("assistant", "Done.")), [Message("user", "next")])
    bridged = renderer.bridge(prompt, ids, [Message("user", "next")])
    assert bridged[: len(prompt) + len(ids)] == prompt + ids
    close = [] if ids[-1] in renderer.stop_ids else renderer.stop_ids[:1]
    if not parsed.calls or renderer.places.user_behind_call:  # elsewhere it is the calls' result
        at = len(prompt) + len(ids)
        assert bridged[at:] == [*close, *tail[-len(bridged) + at + len(close) :]]
    results = [Message("tool", "out")] * max(1, len(parsed.calls))
    assert renderer.bridge(prompt, ids, results)[: len(prompt) + len(ids)] == prompt + ids


REFUSED = {
    "qwen3": "At a user message after an answer: .*changes what was sampled",
    "deepseek_r1": "At an answer to a user message: .*does not keep the generation prompt",
    "mistral_7b_v0_3": "At a user message after an answer that ends tool calls, with tools: .*AVAILABLE_TOOLS",
    "phi_4": "At a tool call: it writes '<.im_end.>', which is no form of call",
}


@pytest.mark.parametrize("name", REFUSED)
def test_templates_that_break_are_refused_naming_the_turn(name: str) -> None:
    with pytest.raises(UsageError, match=REFUSED[name]) as refused:
        load_renderer(tokenizer(name), "generic")
    assert ("generic-text" in refused.value.remedy) == (name in ("mistral_7b_v0_3", "phi_4"))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            "{{- '<|im_start|>assistant\\n' }}",
            "{{- messages | length }}{{- '<|im_start|>assistant\\n' }}",
            "changes|keep",
        ),
        (
            "message.role + '\\n' + message.content",
            "message.role + '\\n' + loop.revindex0 | string",
            "leaves out|changes|keep",
        ),
        ("+ '<|im_end|>' + '\\n' }}", "+ '\\n' }}", "no token of the tokenizer"),
        ("{{- message.content }}", "{{- message.content[:3] }}", "leaves out the tool message"),
        ("{{- tool_call.arguments | tojson }}", "", "no form of call"),
        ('(message.role == "user")', '(message.role == "user" and (loop.last or loop.first))', "changes what|leaves"),
    ],
)
def test_edits_that_break_a_sound_template_are_found(old: str, new: str, why: str) -> None:
    source = template("qwen2_5")
    assert old in source
    with pytest.raises(UsageError, match=why):
        load_renderer(tokenizer("qwen2_5", source.replace(old, new)), "generic")


HUGE = [
    "{{ 'x' * 10**10 }}",
    "{{ messages[0].content * 10**10 }}",
    "{{ 'x' | center(10**10) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '{:>10000000000}'.format('x') }}",
    "{{ ([0] * 10**10) | length }}",
    "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ (10 ** (10 ** 8)) | string | length }}",
]


@pytest.mark.parametrize("huge", HUGE)
def test_a_template_that_takes_too_much_is_refused(huge: str) -> None:
    """Wherever it does: at once, in a later turn, or where there are tools."""
    for at in ("", "{% if tools %}", "{% if messages | length > 3 %}") if huge == HUGE[0] else ("",):
        source = f"{at}{huge}{'{% endif %}' if at else ''}{template('qwen2_5')}"
        with pytest.raises(UsageError, match="takes more than 1 GiB of memory or 3 s to render"):
            load_renderer(tokenizer("qwen2_5", source), "generic-text")


@pytest.mark.parametrize(
    "fault",
    ["{{ 1 / 0 }}", "{{ range(10**6) }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ a.b.c }}", "{%"],
)
def test_a_template_that_fails_is_refused_in_its_own_words(fault: str) -> None:
    with pytest.raises(UsageError, match="does not render this conversation"):
        load_renderer(tokenizer("qwen2_5", fault + template("qwen2_5")), "generic")


def test_a_switch_that_keeps_earlier_reasoning_is_set() -> None:
    """Qwen3's template strips reasoning; with such a switch, as later ones have, it is sound."""
    source = template("qwen3")
    strip = "{%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}"
    assert strip in source
    switched = source.replace(strip, "{%- if preserve_thinking or loop.index0 > ns.last_query_index %}")
    assert load_renderer(tokenizer("qwen3", switched), "generic").format.name.startswith("Hermes")


def test_text_alone_refuses_tools_in_a_request() -> None:
    renderer = load_renderer(tokenizer("phi_4"), "generic-text")
    assert renderer.parse(renderer.tokenizer.encode("<tool_call>{}")).content == "<tool_call>{}"
    prompt = renderer.prompt([Message("user", "Go.")], None)
    for ask in (
        lambda: renderer.prompt([Message("user", "Go.")], TOOLS),
        lambda: renderer.bridge(prompt, renderer.stop_ids[:1], [Message("tool", "x")]),
    ):
        with pytest.raises(RenderError, match="only text"):
            ask()
    assert template_hash(renderer) != template_hash(RENDERERS["qwen2_5"])  # runs over it can be replayed


def test_a_template_of_strict_turns_takes_what_agents_send() -> None:
    """It has a place for one system message, and refuses turns that do not alternate."""
    renderer = RENDERERS["ministral_3"]
    prompt = renderer.prompt([Message("system", "a"), Message("system", "b"), Message("user", "Go.")], None)
    assert "[SYSTEM_PROMPT]a\n\nb[/SYSTEM_PROMPT]" in renderer.tokenizer.decode(prompt)
    said = renderer.assistant(Message("assistant", "Done."))
    bridged = renderer.bridge(prompt, said, [Message("system", "c"), Message("user", "d")])
    joined = "[INST]<system-reminder>\nc\n</system-reminder>\n\nd[/INST]"
    assert renderer.tokenizer.decode(bridged[len(prompt) + len(said) :]) == joined
    called = renderer.assistant(Message("assistant", "", [LOOK]))
    bridged = renderer.bridge(prompt, called, [Message("user", "Stop.")])
    assert "[TOOL_RESULTS]Stop.[/TOOL_RESULTS]" in renderer.tokenizer.decode(bridged)
    both = renderer.prompt([Message("user", "a"), Message("user", "b")], None)
    assert renderer.tokenizer.decode(both).endswith("[INST]a\n\nb[/INST]")


def test_an_agents_call_ids_never_reach_the_prompt_and_sampled_ones_stay() -> None:
    renderer = load_renderer(tokenizer("mistral_7b_v0_3", sound_mistral()), "generic")
    conversation = [
        Message("user", "Go."),
        Message("assistant", "", [Call("shell", "{}", "call_f00")]),
        Message("tool", "x"),
    ]
    shown = renderer.tokenizer.decode(renderer.prompt(conversation, None))
    assert '"id": "call00000"' in shown and '"call_id": "call00000"' in shown
    sampled = renderer.tokenizer.encode('[TOOL_CALLS] [{"name": "shell", "arguments": {}, "id": "9zG4xQ1aB"}]</s>')
    assert renderer.parse(sampled).calls == [Call("shell", "{}", "9zG4xQ1aB")]
    bridged = renderer.bridge(renderer.prompt([Message("user", "Go.")], None), sampled, [Message("tool", "x")])
    assert '"call_id": "9zG4xQ1aB"' in renderer.tokenizer.decode(bridged)


def test_what_a_call_says_does_not_move_the_end_of_its_turn() -> None:
    renderer = RENDERERS["qwen2_5"]
    prompt = renderer.prompt([Message("user", "Go.")], TOOLS)
    spelled = [t for character in "<|im_end|>" for t in renderer.tokenizer.encode(character)]
    opened, closed = '<tool_call>{"name": "shell", "arguments": {"cmd": "', '"}}</tool_call><|im_end|>'
    sampled = [*renderer.tokenizer.encode(opened), *spelled, *renderer.tokenizer.encode(closed)]
    assert "<|im_end|>" in renderer.parse(sampled).calls[0].arguments
    plain = renderer.assistant(Message("assistant", "", [LOOK]))
    result = [Message("tool", "x")]
    tails = [renderer.bridge(prompt, ids, result)[len(prompt) + len(ids) :] for ids in (sampled, plain)]
    assert tails[0] == tails[1]


def sound_mistral() -> str:
    """Its tools before the first user message instead of before the last."""
    return template("mistral_7b_v0_3").replace("user_messages[-1]", "user_messages[0]")


def test_it_agrees_with_a_hand_coded_family() -> None:
    """Llama 3.1's template written out here, through the generic renderer, and the `renderers` package's own."""
    generic = RENDERERS["llama3_1"]
    family = FamilyRenderer(generic.tokenizer, "llama-3")
    messages = [Message("system", "You repair."), Message("user", "Go.")]
    for tools in (None, TOOLS):
        assert generic.prompt(messages, tools) == family.prompt(messages, tools)
    called = generic.assistant(Message("assistant", "", [LOOK]))
    prompt = family.prompt(messages, TOOLS)
    for appended in ([Message("tool", "a\n")], [Message("user", " b ")], [Message("tool", "a"), Message("user", "b")]):
        assert generic.bridge(prompt, called, appended) == family.bridge(prompt, called, appended)


SHIPPED = Path(trl.__file__).parent / "chat_templates"  # real templates, as models carry them, in the trainer's package
FAMILY = {
    "qwen3_instruct_2507": "qwen3-thinking",
    "qwen3_6": "qwen3.6-thinking",
    "qwen3_8": "qwen3.8-thinking",
    "nemotron_3_nano": "nemotron-3-thinking",
    "llama3_2": "llama-3",
}


@pytest.mark.parametrize("name", FAMILY)
def test_on_a_models_real_template_it_agrees_with_the_hand_coded_family(name: str) -> None:
    """Two that know nothing of each other: Jinja through the proof, and the `renderers` package."""
    source = (SHIPPED / f"{name}.jinja").read_text()
    bos = "<|begin_of_text|>" if name.startswith("llama") else None
    own = PreTrainedTokenizerFast(tokenizer_object=EVERY, chat_template=source, bos_token=bos, eos_token="<eos>")
    generic = load_renderer(own, "generic")
    family = load_renderer(EVERY, FAMILY[name])
    messages = [Message("system", "You repair."), Message("user", "Go.")]
    for tools in (None, TOOLS):
        assert generic.prompt(messages, tools) == family.prompt(messages, tools)
    reasoning = "Hm." if generic.opens else ""
    prompt, called = family.prompt(messages, TOOLS), generic.assistant(Message("assistant", "", [LOOK], reasoning))
    assert generic.parse(called, TOOLS) == family.parse(called, TOOLS)
    for appended in ([Message("tool", "a\n")], [Message("user", "b")]):
        assert generic.bridge(prompt, called, appended) == family.bridge(prompt, called, appended)
