"""Python `openai`, responses: every request brings the whole input, with the output items as they came."""

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
TOOLS: Any = [{"type": "function", "name": "shell", "strict": False, **ORDER["tool"]}]


def respond(**more: Any) -> Any:
    body: Any = {"model": ORDER["model"], "instructions": ORDER["system"], "input": ORDER["questions"][0], **more}
    if not ORDER["stream"]:
        return client.responses.create(**body)
    with client.responses.stream(**body) as stream:
        for event in stream:
            if event.type == "response.failed":  # the library itself only misses the end
                raise RuntimeError(event.response.error.message)
        return stream.get_final_response()


def converse() -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    sent: list[Any] = []
    for question in ORDER["questions"]:
        sent.append({"role": "user", "content": question})
        while True:
            response = respond(input=sent, tools=TOOLS)
            calls = [item for item in response.output if item.type == "function_call"]
            reasoning = [part.text for item in response.output if item.type == "reasoning" for part in item.content]
            cmds = [json.loads(call.arguments)["cmd"] for call in calls]
            turns.append(
                {
                    "text": response.output_text,
                    "reasoning": "".join(reasoning),
                    "calls": cmds,
                    "finish": response.status,
                    "tokens": response.usage.output_tokens,
                }
            )
            sent += response.output
            if not calls:
                break
            results = [(call.call_id, shell(cmd)[0]) for call, cmd in zip(calls, cmds, strict=True)]
            sent += [{"type": "function_call_output", "call_id": id, "output": text} for id, text in reversed(results)]
    return {"turns": turns}


def abandon() -> dict[str, Any]:
    text, bare = "", {"model": ORDER["model"], "instructions": ORDER["system"], "input": ORDER["questions"][0]}
    if ORDER["stream"]:
        with client.responses.create(**bare, stream=True) as stream:
            for event in stream:
                text += event.delta if event.type == "response.output_text.delta" else ""
                if text:
                    break  # which closes the connection
    else:
        try:
            client.with_options(timeout=ORDER["abort_s"]).responses.create(**bare)
        except Exception as error:
            text = type(error).__name__
    return {"abandoned": text, "text": respond().output_text}


main(
    {
        "converse": converse,
        "abandon": abandon,
        "ask": lambda: {"text": respond().output_text},
        "force": lambda: {"text": respond(tools=TOOLS, tool_choice="required").output_text},
    }
)
