"""What the agent gets as an argument is what was sampled, byte for byte, in every family."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_kit import every_family

from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import load_renderer
from crrl.gateway.renderer.arguments import Schemas, written
from crrl.gateway.renderer.families import FAMILIES

KEYS = sorted({*FAMILIES} - {"gpt-oss"})  # harmony's vocabulary is a download
TOKENIZER = every_family()
RENDERERS = {key: load_renderer(TOKENIZER, key) for key in KEYS}
TEXTS = st.text(alphabet=" \t\n\r'\"\\{}[]<>/=:,.-0123456789abcdenltrufs#é漢", max_size=30)
TEXTS_LIKE_VALUES = st.sampled_from(
    ["0", "-1", "1e5", "true", "false", "[1]", "{}", '"a"', "", " ", "\n", "NaN", "  1 "]
)
STRING = {"type": "string"}
TO_BE_TEXT: list[dict[str, Any]] = [
    STRING,
    {"type": ["string", "null"]},
    {"anyOf": [STRING, {"type": "null"}]},
    {"oneOf": [{"type": "null"}, STRING]},
    {"allOf": [{"anyOf": [STRING, {"type": "null"}]}, {"description": "d"}]},
    {"enum": ["1", "2", "123"]},
    {"const": "123"},
    {"$ref": "#/$defs/S"},
    {"$ref": "#/definitions/A~1B"},
    {"$ref": "#/$defs/Missing"},
    {"anyOf": [{"$ref": "#/$defs/S"}, {"type": "null"}]},
    {"$ref": "#/$defs/Loop"},
]
NOT_TEXT: list[tuple[dict[str, Any], str, Any]] = [
    ({"type": "integer"}, "123", 123),
    ({"type": "number"}, "123", 123),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", None),
    ({"type": ["string", "null"]}, "null", None),
    ({"type": ["string", "integer"]}, "123", 123),
    ({"enum": [1, 2]}, "1", 1),
    ({"type": "array", "items": STRING}, '["1"]', ["1"]),
    ({"anyOf": [{"type": "object"}, STRING]}, '{"a": 1}', {"a": 1}),
    ({}, "123", 123),
]
WITHOUT_TYPE: list[Any] = [{}, {"description": "d"}, True, {"items": {}}, {"properties": {"a": {}}}]
DEFS: dict[str, Any] = {
    "$defs": {"S": STRING, "Loop": {"$ref": "#/$defs/Loop"}},
    "definitions": {"A/B": STRING},
}


def tools(**properties: Any) -> list[dict[str, Any]]:
    parameters = {"type": "object", "properties": properties, **DEFS}
    return [{"type": "function", "function": {"name": "edit", "description": "d", "parameters": parameters}}]


def read_back(key: str, arguments: dict[str, Any], schemas: dict[str, Any]) -> Any:
    renderer, given_tools = RENDERERS[key], tools(**schemas)
    ids = renderer.assistant(Message("assistant", "", [Call("edit", json.dumps(arguments))]))
    (call,) = renderer.parse(ids, given_tools, renderer.prompt([Message("user", "x")], given_tools)).calls
    return json.loads(call.arguments)


@pytest.mark.parametrize("key", KEYS)
@given(old=TEXTS | TEXTS_LIKE_VALUES, new=TEXTS | TEXTS_LIKE_VALUES)
@settings(max_examples=25, deadline=None)
def test_text_reads_back_to_its_last_white_space(key: str, old: str, new: str) -> None:
    arguments = {"old": old, "new": new}
    assert read_back(key, arguments, {"old": STRING, "new": STRING}) == arguments


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("schema", TO_BE_TEXT, ids=json.dumps)
def test_text_that_looks_like_a_number_stays_text(key: str, schema: dict[str, Any]) -> None:
    assert read_back(key, {"old": "123"}, {"old": schema}) == {"old": "123"}


@pytest.mark.parametrize("schema,text,value", NOT_TEXT)
def test_what_the_schema_takes_for_a_value_is_no_text(schema: dict[str, Any], text: str, value: Any) -> None:
    assert not Schemas(tools(old=schema)).is_text("edit", "old", text)
    if value is None:
        return  # families write None in as many ways as there are
    for key in ("qwen3.6", "glm-5.1", "nemotron-3", "hy3", "laguna-m.1", "qwen3"):
        assert read_back(key, {"old": value}, {"old": schema}) == {"old": value}


@pytest.mark.parametrize("key", [k for k in KEYS if not k.startswith("deepseek")])
def test_a_value_may_hold_the_tag_that_ends_it(key: str) -> None:
    arguments = {"old": "<a>\n</parameter> </arg_value> b\n", "new": "x"}
    assert read_back(key, arguments, {"old": STRING, "new": STRING}) == arguments


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "schema", [{}, {"description": "d"}, True, {"items": {}}, {"properties": {"a": {}}}], ids=json.dumps
)
def test_a_parameter_without_a_type_is_rendered(key: str, schema: Any) -> None:
    assert read_back(key, {"old": "plain"}, {"old": schema}) == {"old": "plain"}
    if key.startswith("kimi-k2.5") and isinstance(schema, dict) and "description" in schema:
        shown = RENDERERS[key].prompt([Message("user", "x")], tools(old=schema))
        assert "// d\n" in RENDERERS[key].tokenizer.decode(shown)


def test_a_call_of_another_form_has_no_values_between_tags() -> None:
    assert written('{"name": "edit", "arguments": {"old": "<parameter=x>"}}') == {}
    assert written("<parameter=old>\n\n  x\n\n</parameter>") == {"old": "\n  x\n"}
    assert written("<parameter=old>x</parameter>") == {"old": "x"}
