"""`crrl serve` as a process, met by the official clients."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from crrl.gateway.ledger import damaged
from crrl.gateway.ledger_file import read_ledger

SERVE = [sys.executable, "-m", "crrl.cli.main", "serve", "tiny"]
SYSTEM = {"role": "system", "content": "You repair."}


@contextmanager
def serving(*settings: str) -> Iterator[tuple[dict[str, str], subprocess.Popen[str]]]:
    server = subprocess.Popen(
        [*SERVE, "port=0", "engine.threads=1", *settings, "--json"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline()), server
    finally:
        server.kill()
        server.wait()


def test_it_answers_the_official_clients_and_keeps_what_was_sampled(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with serving(f"ledger={ledger}", "sampling=agent", "api_key=secret", "model=mine") as (ways, server):
        client = openai.OpenAI(base_url=ways["openai"], api_key="secret", max_retries=0)
        assert [m.id for m in client.models.list()] == ["mine"]
        ask = {"model": "mine", "max_tokens": 8, "temperature": 0}
        messages = [SYSTEM, {"role": "user", "content": "Hello"}]
        first = client.chat.completions.create(messages=messages, **ask)
        said = first.choices[0].message.model_dump(exclude_none=True)
        assert first.usage.completion_tokens <= 8
        again = [*messages, said, {"role": "user", "content": "More"}]
        with client.chat.completions.create(messages=again, stream=True, **ask) as stream:
            assert [c.choices[0].finish_reason for c in stream][-1] in ("stop", "length", "tool_calls")
        claude = anthropic.Anthropic(base_url=ways["anthropic"], api_key="secret", max_retries=0)
        other = claude.messages.create(model="mine", max_tokens=4, messages=[{"role": "user", "content": "Hi"}])
        assert other.usage.output_tokens <= 4
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["yes", "no"]}}}
        forced = client.chat.completions.create(messages=[SYSTEM], response_format=form, **ask)
        assert forced.choices[0].message.content in ('"yes"', '"no"')
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=ways["openai"], api_key="guess", max_retries=0).models.list()
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
    conversations = sorted((read_ledger(file) for file in ledger.iterdir()), key=len)
    assert [len(samples) for samples in conversations] == [1, 1, 2]
    first_turn, second_turn = conversations[2]
    assert second_turn.prompt_ids[: len(first_turn.prompt_ids) + len(first_turn.ids)] == (
        first_turn.prompt_ids + first_turn.ids
    )
    assert first_turn.params["temperature"] == 0 and 1.0 in [turns[0].params["temperature"] for turns in conversations]
    assert [turns[0].params.get("forced") for turns in conversations].count("response_format") == 1
    assert all(damaged(samples) == [] for samples in conversations)


def test_people_are_told_what_to_type_and_a_port_in_use_is_said() -> None:
    server = subprocess.Popen([*SERVE, "port=0", "engine.threads=1"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        shown = "".join(server.stdout.readline() for _ in range(4))
        base_url = re.search(r"OPENAI_BASE_URL=(http://127.0.0.1:(\d+)/v1)", shown)
        assert base_url and f"ANTHROPIC_BASE_URL=http://127.0.0.1:{base_url[2]} " in shown
        assert "renderer qwen3, temperature 1" in shown
        hello = {"model": "any", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        assert httpx.post(f"{base_url[1]}/chat/completions", json=hello, timeout=30).status_code == 200  # without a key
        taken = subprocess.run([*SERVE, f"port={base_url[2]}"], capture_output=True, text=True, timeout=60)
        assert taken.returncode == 1 and "Address already in use" in taken.stderr and "port 0" in taken.stderr
        assert "Traceback" not in taken.stderr
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["prot=1"], "'port'"),
        (["port=x"], "port=8000"),
        (["sampling=agents"], "'agent'"),
        (["host=0.0.0.0"], "api_key=SECRET"),
        (["trainer.max_steps=3"], "does not read trainer.max_steps"),
        (["renderer.key=qwen33"], "'qwen3'"),
        (["ledger=/proc/nothing"], "Name a folder"),
    ],
)
def test_wrong_settings_are_refused(settings: list[str], says: str) -> None:
    refused = subprocess.run([*SERVE, "port=0", *settings], capture_output=True, text=True, timeout=60)
    assert refused.returncode in (1, 2) and says in refused.stderr and "Traceback" not in refused.stderr
    assert refused.stdout == ""
