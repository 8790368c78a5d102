"""Chat templates written out by hand (tests/gateway/templates), each with a small tokenizer of its special tokens; and
one tokenizer with the special tokens of every family of the `renderers` package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import trl
from gateway_kit import MARKS, SPECIAL, train_tokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from crrl.conformance.tokens import DEEPSEEK, LLAMA, OTHERS
from crrl.gateway.renderer import Renderer, load_renderer
from crrl.gateway.renderer.families import FAMILIES

TEMPLATES = Path(__file__).parents[1] / "gateway" / "templates"
_CHATML = " ".join([*SPECIAL, *MARKS])
_MISTRAL = "<s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS]"
_PHI_4_MINI = "<|endoftext|> <|system|> <|user|> <|assistant|> <|end|> <|tool|> <|/tool|> <|tool_call|> <|/tool_call|>"
_DEEPSEEK = f"{DEEPSEEK} <think> </think>"
# template -> its special tokens, and which of them begins a text (or "") and ends a turn
TOKENS = {
    "qwen2_5": (_CHATML.removesuffix("<think> </think>"), "", "<|im_end|>"),
    "qwen3": (_CHATML, "", "<|im_end|>"),
    "qwen3_training": (_CHATML, "", "<|im_end|>"),
    "llama3_1": (LLAMA, "<|begin_of_text|>", "<|eot_id|>"),
    "ministral_3": (f"{_MISTRAL} [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [ARGS]", "<s>", "</s>"),
    "mistral_7b_v0_3": (_MISTRAL, "<s>", "</s>"),
    "phi_4_mini": (f"{_PHI_4_MINI} <|tool_response|>", "", "<|endoftext|>"),
    "phi_4": ("<|endoftext|> <|im_start|> <|im_sep|> <|im_end|>", "", "<|im_end|>"),
    "deepseek_r1": (_DEEPSEEK, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
}
_SHIPPED = (  # of templates that come with TRL
    "<|tool_call_start|> <|tool_call_end|> <|tool_list_start|> <|tool_list_end|> <|tool_response_start|> "
    "<|tool_response_end|>"
)
SHIPPED = Path(trl.__file__).parent / "chat_templates"  # real templates, as models carry them
SOUND = ("qwen2_5", "qwen3_training", "llama3_1", "ministral_3", "phi_4_mini")
SOUND_SHIPPED = (
    *("lfm2_2_5", "lfm2_2_5_vl", "lfm2_v2", "llama3_2", "nemotron_3_5_lightning", "nemotron_3_nano"),
    *("nemotron_3_super", "nemotron_3_ultra", "qwen3_5_think_training", "qwen3_6", "qwen3_8", "qwen3_instruct_2507"),
    "qwen3_vl",
)
"""Templates that the generic renderer takes with tools."""


def template(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text()


def tokenizer(name: str, source: str | None = None) -> PreTrainedTokenizerFast:
    """With a template's special tokens; `source`: another template over the same."""
    special, bos, eos = TOKENS[name]
    return PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(special.split()),
        chat_template=source or template(name),
        bos_token=bos or None,
        eos_token=eos,
    )


def every_family() -> Tokenizer:
    special = " ".join([_CHATML, LLAMA, _PHI_4_MINI, _DEEPSEEK, OTHERS, _SHIPPED]).split()
    return train_tokenizer(list(dict.fromkeys(special)))


def shipped(name: str, every: Tokenizer) -> PreTrainedTokenizerFast:
    """A template that comes with TRL, over the tokenizer with every family's tokens."""
    source = (SHIPPED / f"{name}.jinja").read_text()
    bos = "<|begin_of_text|>" if name.startswith("llama") else "<bos>"
    return PreTrainedTokenizerFast(tokenizer_object=every, chat_template=source, bos_token=bos, eos_token="<eos>")


@cache
def every_key() -> dict[str, Renderer]:
    """Every key that has its vocabulary here, and `generic` and `generic-text` on every template that they take."""
    every = every_family()
    found = {key: load_renderer(every, key) for key in FAMILIES if key != "gpt-oss"}  # harmony's is a download
    found |= {f"generic {name}": load_renderer(tokenizer(name), "generic") for name in SOUND}
    found |= {f"generic {name}": load_renderer(shipped(name, every), "generic") for name in SOUND_SHIPPED}
    return found | {f"generic-text {name}": load_renderer(tokenizer(name), "generic-text") for name in ("phi_4",)}
