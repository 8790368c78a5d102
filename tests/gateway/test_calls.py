"""Forms of tool calls, read back from what a policy may write."""

from __future__ import annotations

import pytest
from template_kit import tokenizer

from crrl.gateway.canonical import Call
from crrl.gateway.renderer import Parsed, load_renderer

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

CASES = [
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
