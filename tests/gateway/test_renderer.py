"""Canonical form, and the renderer against the package it wraps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gateway_kit import STOP, TOOLS, call_text, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from crrl.errors import CrrlError, UsageError
from crrl.gateway.canonical import Call, Message, canonical
from crrl.gateway.renderer import Renderer, load_renderer
from crrl.models import model_folder

RENDERER = load_renderer(make_tokenizer(), "qwen3")
PROMPT = [Message("system", "You repair."), Message("user", "Go.")]
PIECES = [
    "a b",
    "\n\n",
    " ",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    '{"name": "f", ',
    "é你",
    STOP,
]
PIECES += ['"arguments": {}}', "<|endoftext|>", "<|im_start|>assistant\n"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


def upto_stop(ids: list[int]) -> list[int]:
    stop = next((i for i, t in enumerate(ids) if t in RENDERER.stop_ids), len(ids))
    return ids[: stop + 1]


@pytest.mark.parametrize("ids_text", [f"Done.{STOP}", "cut sho", call_text("ls"), "<think>cut", "x<|endoftext|>"])
@pytest.mark.parametrize("roles", [["tool"], ["tool", "tool"], ["user"], ["tool", "user"], ["system", "user"]])
def test_the_bridge_is_the_packages_own(ids_text: str, roles: list[str]) -> None:
    prompt, ids = RENDERER.prompt(PROMPT, TOOLS), RENDERER.tokenizer.encode(ids_text)
    appended = [Message(role, f" output {i}\n") for i, role in enumerate(roles)]
    theirs = RENDERER._inner.bridge_to_next_turn(
        prompt, ids, [{"role": m.role, "content": m.content} for m in appended], tools=TOOLS
    )
    assert RENDERER.bridge(prompt, ids, appended) == theirs.token_ids


@given(TEXTS)
@settings(max_examples=150, deadline=None)
def test_whatever_was_sampled_bridges_and_stays(text: str) -> None:
    prompt, ids = RENDERER.prompt(PROMPT, None), upto_stop(RENDERER.tokenizer.encode(text))
    bridged = RENDERER.bridge(prompt, ids, [Message("user", "next")])
    assert bridged[: len(prompt) + len(ids)] == prompt + ids
    assert RENDERER.tokenizer.decode(bridged).endswith("<|im_start|>user\nnext<|im_end|>\n" + generation_prompt())


def generation_prompt() -> str:
    return "<|im_start|>assistant\n<think>\n\n</think>\n\n"


def test_a_turn_the_policy_did_not_sample_is_rendered_as_if_it_had(renderer: Renderer) -> None:
    ids = renderer.assistant(Message("assistant", "Hm.", [Call("shell", '{"cmd":"ls"}')], "secret"))
    text = 'Hm.\n<tool_call>\n{"name": "shell", "arguments": {"cmd":"ls"}}\n</tool_call><|im_end|>'
    assert renderer.tokenizer.decode(ids) == text


def test_unknown_renderers_and_foreign_tokenizers_are_refused() -> None:
    with pytest.raises(UsageError, match="qwen3"):
        load_renderer(make_tokenizer(), "qwen")
    from tokenizers import Tokenizer, models

    with pytest.raises(UsageError, match="im_start"):
        load_renderer(Tokenizer(models.BPE()), "qwen3")


def test_canonical_form() -> None:
    call = Call("shell", '{"a": 1,  "b": "x"}', id="1")
    same = [
        Message("assistant", "Hi", [call]),
        Message("assistant", " Hi\n", [Call("shell", '{"b":"x","a":1}', id="2")]),
        Message("assistant", "<think>\nhm\n</think>\nHi", [call]),
        Message("assistant", "Hi", [call], reasoning="hm"),
    ]
    other = [
        Message("user", "Hi", [call]),
        Message("assistant", "Hi"),
        Message("assistant", "Hi", [Call("shell", '{"a": 2, "b": "x"}')]),
        Message("assistant", "Hi", [Call("shell", '{"a": 1, "b": "x"')]),
        Message("assistant", "Hi", [call, call]),
    ]
    assert len({canonical(m) for m in same}) == 1
    assert len({canonical(m) for m in [same[0], *other]}) == 1 + len(other)


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b"[" * 5000])
def test_a_damaged_file_of_a_model_folder_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    """Or does no harm: a family has its own way to render."""
    shutil.copytree(model_folder("tiny"), tmp_path / "m")
    if name == "tokenizer_config.json":
        (tmp_path / "m/chat_template.jinja").unlink()
    (tmp_path / "m" / name).write_bytes(content)
    try:
        load_renderer(tmp_path / "m", "qwen3")
    except CrrlError as error:
        assert str(tmp_path / "m" / name) in error.message and error.remedy
    else:
        assert name != "tokenizer.json" and content != b"\xff\xfe"
