"""Chat templates written out by hand (tests/gateway/templates), each with a small tokenizer of its special tokens; and
one tokenizer with the special tokens of every family of the `renderers` package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import trl
from gateway_kit import MARKS, SPECIAL, train_tokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from crrl.gateway.renderer import Renderer, load_renderer
from crrl.gateway.renderer.families import FAMILIES

TEMPLATES = Path(__file__).parents[1] / "gateway" / "templates"
_CHATML = " ".join([*SPECIAL, *MARKS])
_LLAMA = "<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|> <|python_tag|>"
_MISTRAL = "<s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS]"
_PHI_4_MINI = "<|endoftext|> <|system|> <|user|> <|assistant|> <|end|> <|tool|> <|/tool|> <|tool_call|> <|/tool_call|>"
_DEEPSEEK = (
    "<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁calls▁begin｜> "
    "<｜tool▁calls▁end｜> <｜tool▁call▁begin｜> <｜tool▁call▁end｜> <｜tool▁sep｜> <｜tool▁outputs▁begin｜> "
    "<｜tool▁outputs▁end｜> <｜tool▁output▁begin｜> <｜tool▁output▁end｜> <think> </think>"
)
# template -> its special tokens, and which of them begins a text (or "") and ends a turn
TOKENS = {
    "qwen2_5": (_CHATML.removesuffix("<think> </think>"), "", "<|im_end|>"),
    "qwen3": (_CHATML, "", "<|im_end|>"),
    "qwen3_training": (_CHATML, "", "<|im_end|>"),
    "llama3_1": (_LLAMA, "<|begin_of_text|>", "<|eot_id|>"),
    "ministral_3": (f"{_MISTRAL} [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [ARGS]", "<s>", "</s>"),
    "mistral_7b_v0_3": (_MISTRAL, "<s>", "</s>"),
    "phi_4_mini": (f"{_PHI_4_MINI} <|tool_response|>", "", "<|endoftext|>"),
    "phi_4": ("<|endoftext|> <|im_start|> <|im_sep|> <|im_end|>", "", "<|im_end|>"),
    "deepseek_r1": (_DEEPSEEK, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
}
_OTHERS = """
<|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|> <image> <|image> <image|> <|audio> <audio|> <|video>
<|image|> <|audio|> <|video|> <|turn> <turn|> <|tool> <tool|> <|tool_call> <tool_call|> <|tool_response>
<tool_response|> <|channel> <channel|> <|"|> <bos> <eos> <|think|> [gMASK] <sop> <|observation|> <arg_key> </arg_key>
<arg_value> </arg_value> <|im_user|> <|im_assistant|> <|im_system|> <|im_middle|> <|tool_calls_section_begin|>
<|tool_calls_section_end|> <|tool_call_begin|> <|tool_call_argument_begin|> <|tool_call_end|> <|media_begin|>
<|media_content|> <|media_pad|> <|media_end|> ]~!b[ ]~b] [e~[ <minimax:tool_call> </minimax:tool_call> 〈|EOS|〉
<assistant> </assistant> <|message_user|> <|message_model|> <|message_system|> <|message_tool|> <|content_text|>
<|content_thinking|> <|content_image|> <|content_audio_input|> <|content_xml|> <|content_invoke_tool_json|>
<|content_invoke_tool_text|> <|content_model_end_sampling|> <|end_message|> <|audio_end|> <|unused_200054|>
<|unused_200053|> <|start|> <|return|> <|call|> <|channel|> <|message|> <|constrain|> ｜DSML｜ <｜latest_reminder｜>
<｜action｜> <｜query｜> <｜authority｜> <｜domain｜> <｜title｜> <｜read_url｜> <｜hy_begin_of_sentence:opensource｜>
<｜hy_eos:opensource｜> <｜hy_User:opensource｜> <｜hy_Assistant:opensource｜> <｜reasoning_mode:opensource｜>
<think:opensource> </think:opensource> <tool_calls:opensource> </tool_calls:opensource> <tool_call:opensource>
</tool_call:opensource> <tool_sep:opensource> <arg_key:opensource> </arg_key:opensource> <arg_value:opensource>
</arg_value:opensource> <tool_responses:opensource> </tool_responses:opensource> <tool_response:opensource>
</tool_response:opensource>
"""
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
    special = " ".join([_CHATML, _LLAMA, _PHI_4_MINI, _DEEPSEEK, _OTHERS, _SHIPPED]).split()
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
