"""Python `anthropic`, with its helper for streams; a tool's failure is told as one (`is_error`)."""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic, DefaultHttpxClient
from common import ORDER, count, main, shell

client = Anthropic(
    base_url=ORDER["base_url"].removesuffix("/v1"),
    api_key=ORDER["api_key"],
    max_retries=ORDER["retries"],
    timeout=ORDER["timeout_s"],
    http_client=DefaultHttpxClient(event_hooks={"request": [count]}),
)
TOOL = ORDER["tool"]
TOOLS: Any = [{"name": "shell", "description": TOOL["description"], "input_schema": TOOL["parameters"]}]
FIRST: Any = [{"role": "user", "content": ORDER["questions"][0]}]
BARE: Any = {"model": ORDER["model"], "max_tokens": 1000, "system": ORDER["system"], "messages": FIRST}


def ask(**more: Any) -> Any:
    if not ORDER["stream"]:
        return client.messages.create(**{**BARE, **more})
    with client.messages.stream(**{**BARE, **more}) as stream:
        return stream.get_final_message()


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def converse() -> dict[str, Any]:
    turns, messages = [], []
    for question in ORDER["questions"]:
        messages.append({"role": "user", "content": question})
        while True:
            message = ask(messages=messages, tools=TOOLS)
            calls = [block for block in message.content if block.type == "tool_use"]
            turns.append(
                {
                    "text": text_of(message),
                    "reasoning": "".join(block.thinking for block in message.content if block.type == "thinking"),
                    "calls": [call.input["cmd"] for call in calls],
                    "finish": message.stop_reason,
                    "tokens": message.usage.output_tokens,
                }
            )
            messages.append({"role": "assistant", "content": message.content})
            if not calls:
                break
            results = []
            for call in reversed(calls):
                text, worked = shell(call.input["cmd"])
                results.append({"type": "tool_result", "tool_use_id": call.id, "content": text, "is_error": not worked})
            messages.append({"role": "user", "content": results})
    return {"turns": turns}


def abandon() -> dict[str, Any]:
    text = ""
    if ORDER["stream"]:
        with client.messages.stream(**BARE) as stream:
            text = next(iter(stream.text_stream))  # and closes the connection
    else:
        try:
            client.with_options(timeout=ORDER["abort_s"]).messages.create(**BARE)
        except Exception as error:
            text = type(error).__name__
    return {"abandoned": text, "text": text_of(ask())}


main(
    {
        "converse": converse,
        "abandon": abandon,
        "ask": lambda: {"text": text_of(ask())},
        "force": lambda: {"text": text_of(ask(tools=TOOLS, tool_choice={"type": "any"}))},
    }
)
