"""Forced calls and JSON schemas in serving: the real engine, the shipped policy, the official clients."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import anthropic
import openai
import pytest
from gateway_kit import TOOLS, Bench, make_tokenizer
from pydantic import BaseModel, ConfigDict, Field
from template_kit import every_family, tokenizer

from crrl import engines
from crrl.engines.constrained import Grammars
from crrl.engines.local import LocalEngine
from crrl.gateway import SamplingPolicy, SessionRecord, load_renderer
from crrl.gateway.api import Ask, BadRequest, Forced
from crrl.gateway.canonical import Call, Message
from crrl.gateway.forced import check, grammar
from crrl.gateway.open import OpenGateway
from crrl.gateway.renderer.families import FAMILIES
from crrl.gateway.stream import TextStream
from crrl.models import model_folder

USER = [{"role": "user", "content": "Repair gcd."}]
EDIT = {
    "type": "object",
    "properties": {
        "line": {"type": "integer", "minimum": 1, "maximum": 99},
        "how": {"enum": ["insert", "replace"]},
        "text": {"type": "string", "maxLength": 12},
    },
    "required": ["line", "how", "text"],
    "additionalProperties": False,
}
EDIT_TOOL = {"type": "function", "function": {"name": "edit", "parameters": EDIT}}
LOOK_TOOL = {"type": "function", "function": {"name": "look"}}


class Edit(BaseModel):
    model_config = ConfigDict(extra="forbid")
    line: int = Field(ge=1, le=99)
    how: Literal["insert", "replace"]
    text: str = Field(max_length=12)


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    engine = engines.make("local", model_folder("tiny"), context=None, max_batch=8)
    yield engine
    engine.close()


@pytest.fixture
async def served(engine: LocalEngine) -> AsyncIterator[tuple[OpenGateway, list[SessionRecord]]]:
    """The shipped policy, as `crrl serve` has it, with the conversations that ended."""
    ended: list[SessionRecord] = []
    renderer = load_renderer(model_folder("tiny"), "qwen3")
    policy = SamplingPolicy(as_asked=True, constrained=True)
    gateway = OpenGateway(engine, renderer, policy, model="m", keep=ended.append)
    await gateway.start()
    yield gateway, ended
    await gateway.stop()


@pytest.fixture
def client(served: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=served[0].base_url + "/v1", api_key="any", max_retries=0, timeout=60)


@pytest.fixture
def claude(served: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=served[0].base_url, api_key="any", max_retries=0, timeout=60)


def is_edit(arguments: dict[str, Any]) -> bool:
    return isinstance(Edit.model_validate(arguments), Edit)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "edit"}}])
async def test_a_forced_call_in_chat(client: openai.AsyncOpenAI, choice: Any, temperature: float) -> None:
    tools = [EDIT_TOOL] if choice == "required" else [LOOK_TOOL, EDIT_TOOL]
    answer = await client.chat.completions.create(
        model="m", messages=USER, tools=tools, tool_choice=choice, temperature=temperature
    )
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls" and not answer.choices[0].message.content
    assert call.function.name == "edit" and is_edit(json.loads(call.function.arguments))


async def test_a_schema_in_chat_streamed_or_not(client: openai.AsyncOpenAI) -> None:
    for _ in range(3):
        answer = await client.chat.completions.parse(model="m", messages=USER, response_format=Edit, temperature=1.0)
        assert answer.choices[0].message.parsed.how in ("insert", "replace")
    form: Any = {"type": "json_schema", "json_schema": {"name": "edit", "schema": EDIT}}
    parts = await client.chat.completions.create(model="m", messages=USER, response_format=form, stream=True)
    text = "".join([p.choices[0].delta.content or "" async for p in parts])
    assert is_edit(json.loads(text))
    answer = await client.chat.completions.create(
        model="m", messages=USER, response_format={"type": "json_object"}, max_tokens=300
    )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    else:
        assert answer.choices[0].message.content.startswith("{")


async def test_responses(client: openai.AsyncOpenAI) -> None:
    reply = await client.responses.parse(model="m", input="Repair gcd.", text_format=Edit)
    assert reply.output_parsed.how in ("insert", "replace")
    assert reply.text.format.type == "json_schema"
    tool: Any = {"type": "function", "name": "edit", "parameters": EDIT, "strict": True}
    for choice in ("required", {"type": "function", "name": "edit"}):
        made = await client.responses.create(model="m", input="x", tools=[tool], tool_choice=choice)
        (item,) = made.output
        assert item.type == "function_call" and is_edit(json.loads(item.arguments))


async def test_messages(claude: anthropic.AsyncAnthropic) -> None:
    tool: Any = {"name": "edit", "input_schema": EDIT}
    plain: Any = {"model": "m", "max_tokens": 400, "messages": USER}
    for choice in ({"type": "any"}, {"type": "tool", "name": "edit"}):
        made = await claude.messages.create(**plain, tools=[tool], tool_choice=choice)
        (block,) = made.content
        assert made.stop_reason == "tool_use" and is_edit(block.input)
    form = {"format": {"type": "json_schema", "schema": EDIT}}
    made = await claude.messages.create(**plain, extra_body={"output_config": form})
    assert is_edit(json.loads(made.content[0].text))


async def test_with_a_schema_and_tools_it_is_either(client: openai.AsyncOpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "edit", "schema": EDIT}}
    for _ in range(4):
        answer = await client.chat.completions.create(
            model="m", messages=USER, tools=[EDIT_TOOL], response_format=form, temperature=2.0
        )
        said = answer.choices[0].message
        calls = said.tool_calls or []
        assert is_edit(json.loads(calls[0].function.arguments if calls else said.content))


async def test_the_log_probs_are_those_of_the_whole_distribution(client: Any, served: Any, engine: LocalEngine) -> None:
    """A mask changes what is drawn, not how probable the model finds it; and the ledger says that it was forced."""
    gateway, ended = served
    ask = [{"role": "user", "content": "Score this."}]
    await client.chat.completions.create(model="m", messages=ask, tools=[EDIT_TOOL], tool_choice="required")
    await gateway.stop()
    (sample,) = ended[-1].samples
    scored = await engine.score([*sample.prompt_ids, *sample.ids])
    assert sample.params["forced"] == "tool_choice"
    assert sample.logprobs == pytest.approx(scored[-len(sample.ids) :], abs=2e-3)
    assert min(sample.logprobs) < -3  # the policy would not have said all of this


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [EDIT_TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "not among the tools"),
    ({"tool_choice": "required"}, "no tools"),
    ({"tools": [EDIT_TOOL], "tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name"),
    ({"tools": [EDIT_TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    ({"tools": [EDIT_TOOL], "tool_choice": 5}, "tool_choice"),
    ({"response_format": {"type": "json_schema"}}, "json_schema.schema"),
    ({"response_format": {"type": "grammar"}}, "response_format"),
    ({"messages": [*USER, {"role": "assistant", "content": "{"}], "response_format": {"type": "json_object"}}, "begun"),
]
SCHEMAS: list[tuple[Any, str]] = [
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({"type": "object", "properties": {"a": {"not": {"type": "string"}}}}, "not"),
    ({"type": "string", "pattern": "(?<=a)b"}, "'pattern': look-around"),
    ({"type": "object", "patternProperties": {"(": {}}}, "'pattern': unclosed group"),
    ({"$ref": "#/$defs/none"}, r"\$defs/none"),
    ({"type": "strin"}, "strin"),
    ({"type": "string", "minLength": "x"}, "minLength"),
    ({"$ref": "http://example.com/schema"}, "example.com"),
]


@pytest.mark.parametrize(("body", "says"), REFUSED)
async def test_what_cannot_be_forced_is_named(client: openai.AsyncOpenAI, body: dict[str, Any], says: str) -> None:
    with pytest.raises(openai.BadRequestError, match=says):
        await client.chat.completions.create(**{"model": "m", "messages": USER, **body})


@pytest.mark.parametrize(("schema", "says"), SCHEMAS)
async def test_a_schema_that_cannot_be_demanded_names_the_keyword(client: Any, schema: Any, says: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match=says) as refused:
        await client.chat.completions.create(model="m", messages=USER, response_format=form)
    assert refused.value.param == "response_format"
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    with pytest.raises(openai.BadRequestError, match=says) as refused:
        await client.chat.completions.create(model="m", messages=USER, tools=[LOOK_TOOL, tool], tool_choice="required")
    assert refused.value.param == "tools[1]"


async def test_training_goes_on_refusing_by_name(bench: Bench) -> None:
    await bench.start("never")
    chat = bench.client(bench.gateway.open("a")).chat.completions
    for body in ({"tools": TOOLS, "tool_choice": "required"}, {"response_format": {"type": "json_object"}}):
        with pytest.raises(openai.BadRequestError, match="is not supported") as refused:
            await chat.create(model="m", messages=USER, **body)  # type: ignore[call-overload]
        assert refused.value.param in body and refused.value.code == "unsupported_parameter"
    assert bench.engine.requests == []


RENDERERS = {key: load_renderer(every_family(), key) for key in {*FAMILIES} - {"gpt-oss"}}  # whose file is not here
RENDERERS["generic Qwen 2.5"] = load_renderer(tokenizer("qwen2_5"), "generic")
RENDERERS["generic Llama 3.1"] = load_renderer(tokenizer("llama3_1"), "generic")
JSON_CALLS = {
    *("qwen3", "qwen3-thinking", "qwen3-vl", "llama-3", "deepseek-v3", "deepseek-r1", "inkling"),
    *("kimi-k2", "kimi-k2.5", "kimi-k2.5-thinking", "generic Qwen 2.5", "generic Llama 3.1"),
}


@pytest.mark.parametrize("key", sorted(RENDERERS))
async def test_every_family_takes_what_it_writes_itself_and_nothing_else(key: str) -> None:
    """Its own answer and call pass the grammar whole, read back, and leave nothing to say; other text does not."""
    renderer = RENDERERS[key]
    grammars = Grammars(renderer.tokenizer.backend.to_str(), renderer.tokenizer.backend.get_vocab_size())
    ask = Ask([Message("user", "x")], [EDIT_TOOL])
    prompt = renderer.prompt(ask.messages, None)
    said = '{"line": 3, "how": "insert", "text": "a b"}'
    forms: list[tuple[Forced, Message]] = [(Forced("f", schema=EDIT), Message("assistant", said))]
    call = Forced("tool_choice", tool="edit")
    if key in JSON_CALLS:
        forms.append((call, Message("assistant", calls=[Call("edit", said)])))
    else:
        with pytest.raises(BadRequest, match="does not write its calls as JSON"):
            grammar(renderer, ask, call, prompt)
    for forced, message in forms:
        tools = ask.tools if forced.tool else None
        matcher = grammars.begin(grammar(renderer, Ask(ask.messages, tools), forced, prompt))
        text = renderer.tokenizer.decode(renderer.assistant(message))
        ids = renderer.tokenizer.encode(re.sub(r'\{"(?:line|how)".*?\}', said, text))  # inkling sorts the keys
        for token in ids:
            assert matcher.allowed()[token], renderer.tokenizer.decode(ids)
            assert token in renderer.stop_ids or not any(matcher.allowed()[stop] for stop in renderer.stop_ids)
            matcher.take(token)
        stream = TextStream(renderer, Ask(ask.messages, tools), prompt)
        stream.feed(ids)
        parsed, _ = stream.finish()
        arguments = parsed.calls[0].arguments if message.calls else parsed.content
        assert json.loads(arguments) == json.loads(said)


async def test_reasoning_comes_first_and_is_free() -> None:
    renderer = load_renderer(make_tokenizer(), "qwen3-thinking")
    grammars = Grammars(renderer.tokenizer.backend.to_str(), renderer.tokenizer.backend.get_vocab_size())
    ask = Ask([Message("user", "x")])
    prompt = renderer.prompt(ask.messages, None)
    matcher = grammars.begin(grammar(renderer, ask, Forced("f", schema=EDIT), prompt))
    assert renderer.think_open is not None and renderer.think_close is not None
    assert list(matcher.allowed().nonzero()[0]) == [renderer.think_open]
    for token in [renderer.think_open, *renderer.tokenizer.encode("Well, { it may be.\n")]:
        assert matcher.allowed()[token]
        matcher.take(token)
    allowed = matcher.allowed()
    assert allowed[renderer.think_close] and not allowed[renderer.stop_ids[0]]
    assert not allowed[renderer.think_open]  # a mark is never text


def test_reasoning_that_a_prompt_opens_is_closed_before_the_answer() -> None:
    """Gemma 4 reasons behind a tool's result, and not behind a user's message."""
    renderer = RENDERERS["gemma4-thinking"]
    prompt = renderer.prompt([Message("user", "x")], None)
    called = renderer.assistant(Message("assistant", calls=[Call("look", "{}")]))
    later = renderer.bridge(prompt, called, [Message("tool", "r")])
    rules = [grammar(renderer, Ask([Message("user", "x")]), Forced("f", schema=EDIT), ids) for ids in (prompt, later)]
    assert ["answer0: thought" in rule for rule in rules] == [False, True]


def test_nothing_can_be_forced_that_is_not_there() -> None:
    with pytest.raises(BadRequest, match="no tools"):
        check(Ask([Message("user", "x")], forced=Forced("tool_choice")))
