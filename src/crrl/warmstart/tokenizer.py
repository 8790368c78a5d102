"""The tiny policy's tokenizer: byte-level BPE with Qwen3's special tokens.

Invariants: any text round-trips. Code tokenises alike in a file and inside a tool call's JSON (tokens never cross the
borders of `PIECES`, indentation belongs to its newline, digits stand alone), so copying a snippet is copying ids. Fixed
text of a form (the rendered tool preamble, JSON boilerplate, markers) is one token each, so the built-in agent's prompt
takes about ten tokens before the issue text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PIECES = r"\n *|\"{3}| ?[A-Za-z]+| ?[0-9]| ?(?:==|!=|<=|>=|\+=|-=|\*=|//)| ?[^\sA-Za-z0-9]| +|\s"
"""Pre-tokenisation: newline with its indentation, words, single digits, operators, other signs."""

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]
"""Qwen3's specials that `renderers` asks for; `<|endoftext|>` pads, `<|im_end|>` ends a turn."""


def grown(tokenizer: Any, whole: Sequence[str]) -> Any:
    """The tokenizer, with one more token for each text of `whole` that has none; all its other ids stay."""
    tokenizer.add_tokens([AddedToken(w, normalized=False, special=False) for w in whole])
    return tokenizer


def pieces(text: str) -> list[str]:
    """`text` cut at the pre-tokenizer's borders. A snippet cut at these borders tokenises as in its file."""
    return re.findall(PIECES, text)


def preamble_tokens(tools: Sequence[dict[str, Any]]) -> list[str]:
    """The fixed parts of Qwen3's rendered tool preamble for these tools; each becomes one token."""
    header = (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
    )
    footer = (
        "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
        "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )
    return [header, *("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools), footer]


def train_tokenizer(texts: Iterable[str], whole: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """BPE over `texts` (rendered episodes) with `vocab_size` entries in all, those of `whole` and specials included.
    Each text of `whole` becomes one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(whole),
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # all 256 bytes: nothing is unknown
        min_frequency=2,
        show_progress=False,
    )
    # Cut the fixed texts out first, so that it takes up no merges.
    cut = re.compile("|".join(re.escape(w) for w in sorted([*whole, *SPECIAL], key=len, reverse=True)))
    tokenizer.train_from_iterator((part for text in texts for part in cut.split(text)), trainer)
    tokenizer.add_tokens([AddedToken(w, normalized=False, special=False) for w in whole])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = files("crrl.warmstart").joinpath("chat_template.jinja").read_text()
    return fast
