"""A byte-complete tokenizer with Qwen3's special tokens, small enough to train in a test; a gateway over a script."""

from __future__ import annotations

from typing import Any

from anthropic import AsyncAnthropic
from anthropic import DefaultAsyncHttpxClient as AnthropicHttp
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from crrl.engines.scripted import ScriptedEngine
from crrl.gateway import Gateway, Renderer, SessionHandle

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
SPLIT = r"""[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def make_tokenizer() -> Tokenizer:
    tokenizer = train_tokenizer(SPECIAL)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKS])
    return tokenizer


def train_tokenizer(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["user\nassistant\nsystem\n the tool function name arguments"] * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer


STOP = "<|im_end|>"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "shell",
            "description": "Run a command.",
            "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]},
        },
    }
]


def call_text(cmd: str, before: str = "") -> str:
    """A tool call with odd white space, as a policy may write it."""
    return f'{before}<tool_call>\n{{"name": "shell",  "arguments": {{ "cmd":"{cmd}" }}}}\n</tool_call>{STOP}'


class Bench:
    """A gateway over a scripted engine, with official clients that do not retry unless asked to."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self._http = DefaultAsyncHttpxClient(verify=False)  # shared: a TLS context of each own takes 0.2 s
        self._anthropic_http = AnthropicHttp(verify=False)
        self.gateway: Gateway

    def ids(self, text: str) -> list[int]:
        return self.renderer.tokenizer.encode(text)

    async def start(self, *answers: str, grace_s: float = 10.0, silence_s: float = 15.0, **engine: Any) -> None:
        self.engine = ScriptedEngine([self.ids(a) for a in answers], **engine)
        await self.start_with(self.engine, grace_s, silence_s)

    async def start_with(self, engine: Any, grace_s: float = 10.0, silence_s: float = 15.0) -> None:
        self.gateway = Gateway(engine, self.renderer, grace_s=grace_s, silence_s=silence_s)
        await self.gateway.start()

    def client(self, handle: SessionHandle, retries: int = 0) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=handle.base_url,
            api_key=handle.api_key,
            max_retries=retries,
            timeout=20,
            http_client=self._http,
        )

    def anthropic(self, handle: SessionHandle, retries: int = 0) -> AsyncAnthropic:
        return AsyncAnthropic(
            base_url=handle.base_url.removesuffix("/v1"),
            api_key=handle.api_key,
            max_retries=retries,
            timeout=20,
            http_client=self._anthropic_http,
        )

    async def stop(self) -> None:
        await self.gateway.stop()

    async def close(self) -> None:
        await self._http.aclose()
        await self._anthropic_http.aclose()
