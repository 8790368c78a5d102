"""Forms of tool calls, read back from what a policy may write."""

from __future__ import annotations

import pytest
from template_kit import every_family, shipped, tokenizer

from crrl.gateway.canonical import Call
from crrl.gateway.renderer import Parsed, load_renderer
from crrl.gateway.renderer.api import arguments_text

LOOK = Call("look", '{"at":"here"}')
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "parameters": {"properties": {"at": {"type": "string"}, "n": {"type": "integer"}}},
        },
    }
]
HERMES, LLAMA, MISTRAL = "qwen2_5", "llama3_1", "ministral_3"
RENDERERS = {name: load_renderer(tokenizer(name), "generic") for name in (HERMES, LLAMA, MISTRAL, "phi_4_mini")}
RAW, ESCAPED = "lfm2_2_5", "lfm2_v2"  # how they write text between quotes
RENDERERS |= {name: load_renderer(shipped(name, every_family()), "generic") for name in (RAW, ESCAPED)}


def lfm(inside: str) -> str:
    return f"<|tool_call_start|>{inside}<|tool_call_end|><|im_end|>"


def at(value: str) -> list[Call]:
    return [Call("look", arguments_text({"at": value}))]


CASES = [
    (RAW, lfm("[look(at='it's\n\"x\", \\n')]"), Parsed("", "", at('it\'s\n"x", \\n'))),
    (RAW, lfm("[look(at='a', n=1), f()]"), Parsed("", "", [Call("look", '{"at":"a","n":1}'), Call("f", "{}")])),
    (RAW, lfm("[look(at='print(x)'), look(at=')')]"), Parsed("", "", [*at("print(x)"), *at(")")])),
    (RAW, lfm("[look(at='', n=None, m=True)]"), Parsed("", "", [Call("look", '{"at":"","n":null,"m":true}')])),
    (RAW, lfm("[a-b.c(file-path='x')]"), Parsed("", "", [Call("a-b.c", '{"file-path":"x"}')])),
    (
        RAW,
        lfm('[look(at=[\'a\', "b"], o={"c": null})]'),
        Parsed("", "", [Call("look", '{"at":["a","b"],"o":{"c":null}}')]),
    ),
    (RAW, lfm("[look(at='x'"), Parsed("<|tool_call_start|>[look(at='x'<|tool_call_end|>", malformed=1)),
    (RAW, lfm("[look('x')]"), Parsed("<|tool_call_start|>[look('x')]<|tool_call_end|>", malformed=1)),
    (RAW, lfm("[look(at=x)]"), Parsed("<|tool_call_start|>[look(at=x)]<|tool_call_end|>", malformed=1)),
    (RAW, lfm("[]"), Parsed("<|tool_call_start|>[]<|tool_call_end|>", malformed=1)),
    (ESCAPED, lfm("[look(at='it\\'s\\n')]"), Parsed("", "", at("it's\n"))),
    (
        ESCAPED,
        lfm("[look(at='two\nlines', n=[null, true])]"),
        Parsed("", "", [Call("look", '{"at":"two\\nlines","n":[null,true]}')]),
    ),
    (
        HERMES,
        '<tool_call>\n{"name": "look", "arguments": {"at":  "here"}}\n</tool_call><|im_end|>',
        Parsed("", "", [LOOK]),
    ),
    (HERMES, 'Hm. <tool_call>{"name": "look", "arguments": {"at": "here"}}</tool_call>', Parsed("Hm.", "", [LOOK])),
    (
        HERMES,
        '<tool_call>{"name": "look", "arguments": {"at": "here"}}</tool_call><tool_call>{"name": "f"}</tool_call> end',
        Parsed("end", "", [LOOK, Call("f", "{}")]),
    ),
    (HERMES, '<tool_call>{"name": "look"', Parsed('<tool_call>{"name": "look"', malformed=1)),
    (
        HERMES,
        '<tool_call>not json</tool_call><tool_call>{"name": "look", "arguments": {"at": "here"}}</tool_call>',
        Parsed("<tool_call>not json</tool_call>", "", [LOOK], 1),
    ),
    (
        HERMES,
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        Parsed('<tool_call>{"name": 3, "arguments": {}}</tool_call>', malformed=1),
    ),
    (HERMES, '{"name": "look", "arguments": {}}', Parsed('{"name": "look", "arguments": {}}')),
    (
        HERMES,
        "<tool_call>\n<function=look>\n<parameter=at>\n12\n</parameter>\n<parameter=n>\n12\n</parameter>\n</function>\n</tool_call>",
        Parsed("", "", [Call("look", '{"at":"12","n":12}')]),
    ),
    (HERMES, f"<tool_call>{'[' * 5000}</tool_call>", Parsed(f"<tool_call>{'[' * 5000}</tool_call>", malformed=1)),
    (LLAMA, '{"name": "look", "parameters": {"at": "here"}}<|eot_id|>', Parsed("", "", [LOOK])),
    (LLAMA, ' {"name": "look", "arguments": {"at": "here"}}\n', Parsed("", "", [LOOK])),
    (LLAMA, 'I call {"name": "look", "parameters": {}}', Parsed('I call {"name": "look", "parameters": {}}')),
    (LLAMA, '{"name": "look", "parameters": ', Parsed('{"name": "look", "parameters":')),
    (LLAMA, '{"at": "here"}', Parsed('{"at": "here"}')),
    (LLAMA, 'Hm.<|python_tag|>look.call(at="here")<|eot_id|>', Parsed("Hm.", "", [LOOK])),
    (LLAMA, '<|python_tag|>{"name": "look", "parameters": {"at": "here"}}', Parsed("", "", [LOOK])),
    (LLAMA, "<|python_tag|>look.call(at=open('x'))", Parsed("<|python_tag|>look.call(at=open('x'))", malformed=1)),
    (LLAMA, "<|python_tag|>print(1)", Parsed("<|python_tag|>print(1)", malformed=1)),
    (MISTRAL, '[TOOL_CALLS]look[ARGS]{"at": "here"}</s>', Parsed("", "", [LOOK])),
    (
        MISTRAL,
        'Hm.[TOOL_CALLS]look[ARGS]{"at": "here"}[TOOL_CALLS]f[ARGS]{}',
        Parsed("Hm.", "", [LOOK, Call("f", "{}")]),
    ),
    (
        MISTRAL,
        '[TOOL_CALLS][{"name": "look", "arguments": {"at": "here"}, "id": "a1"}]',
        Parsed("", "", [Call("look", LOOK.arguments, "a1")]),
    ),
    (MISTRAL, "[TOOL_CALLS]look[ARGS]{", Parsed("[TOOL_CALLS]look[ARGS]{", malformed=1)),
    (MISTRAL, "[TOOL_CALLS]look[ARGS]3", Parsed("[TOOL_CALLS]look[ARGS]3", malformed=1)),
    (
        "phi_4_mini",
        '<|tool_call|>[{"name": "look", "arguments": {"at": "here"}}]<|/tool_call|><|end|>',
        Parsed("", "", [LOOK]),
    ),
    ("phi_4_mini", '<|tool_call|>[look(at="here"), f()]<|/tool_call|>', Parsed("", "", [LOOK, Call("f", "{}")])),
]


@pytest.mark.parametrize(("name", "text", "parsed"), CASES, ids=range(len(CASES)))
def test_calls_are_read_back(name: str, text: str, parsed: Parsed) -> None:
    renderer = RENDERERS[name]
    assert renderer.parse(renderer.tokenizer.encode(text), TOOLS) == parsed


def test_text_that_looks_like_a_mark_is_no_call() -> None:
    """A mark is one token; the same characters sampled one by one are text."""
    renderer = RENDERERS[HERMES]
    text = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
    spelled = [t for character in text for t in renderer.tokenizer.encode(character)]
    assert renderer.parse(spelled) == Parsed(text)
