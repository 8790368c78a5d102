"""Python `openai`, chat completions, with its helper for streams."""

from __future__ import annotations

import json
from typing import Any

from common import ORDER, count, main, shell
from openai import DefaultHttpxClient, OpenAI

client = OpenAI(
    base_url=ORDER["base_url"],
    api_key=ORDER["api_key"],
    max_retries=ORDER["retries"],
    timeout=ORDER["timeout_s"],
    http_client=DefaultHttpxClient(event_hooks={"request": [count]}),
)
TOOLS: Any = [{"type": "function", "function": {"name": "shell", **ORDER["tool"]}}]
FIRST: Any = [{"role": "system", "content": ORDER["system"]}, {"role": "user", "content": ORDER["questions"][0]}]


def ask(messages: Any = FIRST, **more: Any) -> Any:
    body = {"model": ORDER["model"], "messages": messages, **more}
    if not ORDER["stream"]:
        return client.chat.completions.create(**body)
    with client.chat.completions.stream(stream_options={"include_usage": True}, **body) as stream:
        return stream.get_final_completion()


def converse() -> dict[str, Any]:
    turns, messages = [], FIRST[:1]
    for question in ORDER["questions"]:
        messages = [*messages, {"role": "user", "content": question}]
        while True:
            completion = ask(messages, tools=TOOLS)
            message = completion.choices[0].message
            calls = message.tool_calls or []
            cmds = [json.loads(call.function.arguments)["cmd"] for call in calls]
            turns.append(
                {
                    "text": message.content or "",
                    "reasoning": getattr(message, "reasoning_content", None) or "",
                    "calls": cmds,
                    "finish": completion.choices[0].finish_reason,
                    "tokens": completion.usage.completion_tokens,
                }
            )
            messages.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
            if not calls:
                break
            results = [(call.id, shell(cmd)[0]) for call, cmd in zip(calls, cmds, strict=True)]
            messages += [{"role": "tool", "tool_call_id": id, "content": text} for id, text in reversed(results)]
    return {"turns": turns}


def abandon() -> dict[str, Any]:
    text = ""
    if ORDER["stream"]:
        with client.chat.completions.create(model=ORDER["model"], messages=FIRST, stream=True) as stream:
            for chunk in stream:
                text += chunk.choices[0].delta.content or ""
                if text:
                    break  # which closes the connection
    else:
        try:
            client.with_options(timeout=ORDER["abort_s"]).chat.completions.create(model=ORDER["model"], messages=FIRST)
        except Exception as error:
            text = type(error).__name__
    return {"abandoned": text, "text": ask().choices[0].message.content}


main(
    {
        "converse": converse,
        "abandon": abandon,
        "ask": lambda: {"text": ask().choices[0].message.content},
        "force": lambda: {"text": ask(tools=TOOLS, tool_choice="required").choices[0].message.content},
    }
)
