"""A tokenizer with the special tokens of every family, so that one recording can be checked against all of them.

The vocabulary is the shipped policy's: byte-complete, and small. A family is its marks and its forms; what else a real
tokenizer does to text, no check of a conversation depends on.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from crrl import models

TINY = Path(models.__file__).parent / "tiny" / "tokenizer.json"

QWEN = "<|endoftext|> <|im_start|> <|im_end|> <tool_call> </tool_call> <tool_response> </tool_response>"
THINK = "<think> </think>"
GLM = "<|system|> <|user|> <|assistant|>"
LLAMA = "<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|> <|python_tag|>"
DEEPSEEK = (
    "<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁calls▁begin｜> "
    "<｜tool▁calls▁end｜> <｜tool▁call▁begin｜> <｜tool▁call▁end｜> <｜tool▁sep｜> <｜tool▁outputs▁begin｜> "
    "<｜tool▁outputs▁end｜> <｜tool▁output▁begin｜> <｜tool▁output▁end｜>"
)
OTHERS = """
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


def tokenizer() -> Tokenizer:
    made = Tokenizer.from_file(str(TINY))
    tokens = [t for t in f"{QWEN} {THINK} {GLM} {LLAMA} {DEEPSEEK} {OTHERS}".split() if made.token_to_id(t) is None]
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in tokens])
    return made
