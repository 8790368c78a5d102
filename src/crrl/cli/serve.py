"""`crrl serve`: serves a trained policy through the gateway to your own agent."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import dataclass, fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from crrl.cli.call import SCHEMA, Call, print_json
from crrl.cli.eval import resolve
from crrl.conf.schema import Config, keys
from crrl.errors import UsageError, nearest

USAGE = "crrl serve CHECKPOINT_OR_RUN [key=value...] [--json] [--dry-run]"
HELP = """
CHECKPOINT_OR_RUN is `tiny` (the shipped policy), a Hugging Face model folder, a run's name, or one of its
checkpoints (runs/NAME/checkpoints/step-20). The gateway prompts and samples it as in training, token for token.

  host=127.0.0.1    where to listen; host=0.0.0.0 api_key=... lets other machines in
  port=8000         0: any free port
  api_key=          the key that clients must send; empty: any
  model=            the name shown to agents; empty: the checkpoint's own
  sampling=recipe   the recipe's temperature; `agent`: the agent's own, if it asks for one
  ledger=           a folder for the samples of every conversation; empty: do not keep them

  rollout.temperature=0.7   engine.context=4096   renderer.key=auto

It speaks /v1/chat/completions, /v1/responses, /v1/completions and /v1/messages, forced tool calls and JSON schemas
included. Ctrl-C ends it.
"""
OF_THE_RECIPE = ("model.base", "engine.", "renderer.", "rollout.temperature")  # the settings that serving reads


@dataclass(frozen=True)
class Serving:
    """The verb's own settings."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str = ""
    model: str = ""
    sampling: str = "recipe"
    ledger: str = ""

    @classmethod
    def take(cls, call: Call) -> Serving:
        """Takes them out of the call's settings; the rest are the recipe's. Raises UsageError."""
        taken: dict[str, Any] = {f.name: v for f in fields(cls) if (v := call.take(f.name)) is not None}
        if "port" in taken:
            port = taken["port"]
            if not port.isdigit() or int(port) > 65535:
                raise UsageError(f"port={port} is not a port.", "Write port=8000, or port=0 for any free one.")
            taken["port"] = int(port)
        serving = cls(**taken)
        if serving.sampling not in ("recipe", "agent"):
            raise UsageError(
                f"sampling={serving.sampling} does not exist.", nearest(serving.sampling, ("recipe", "agent"))
            )
        if not serving.api_key and not _is_loopback(serving.host):
            raise UsageError(f"host={serving.host} lets other machines in, with any API key.", "Add api_key=SECRET.")
        for setting in call.settings:
            key = setting.partition("=")[0]
            if key == "engine.share" or setting == "engine.transport=stream":
                raise UsageError(f"{key} would be ignored: crrl serve does not train.", f"Leave {key} out.")
            if not f"{key}.".startswith(OF_THE_RECIPE):  # `engine=vllm` names a group, too
                own = [f.name for f in fields(cls)]
                raise UsageError(
                    f"crrl serve does not read {key}.", nearest(key, [*own, "renderer.key", "engine.context"])
                )
        return serving


def candidates() -> list[str]:
    """Settings for shell completion."""
    recipe = [key.name for key in keys(Config) if key.name.startswith(OF_THE_RECIPE)]
    return [f"{name}=" for name in (*(f.name for f in fields(Serving)), *recipe)]


def run(call: Call) -> int:
    serving = Serving.take(call)
    (target,) = call.only("CHECKPOINT_OR_RUN")
    config, checkpoint, _ = resolve(target, call.settings)
    if not serving.model:
        serving = replace(serving, model=Path(checkpoint).name)
    if call.dry_run:
        if call.json:
            print_json({"checkpoint": checkpoint, "serving": vars(serving)})
        else:
            print(f"serve {checkpoint}: " + " ".join(f"{k}={v}" for k, v in vars(serving).items()))
        return 0
    return asyncio.run(serve(config, checkpoint, serving, as_json=call.json))


async def serve(config: Config, checkpoint: str, serving: Serving, *, as_json: bool) -> int:
    """Serves until SIGINT or SIGTERM. Raises CrrlError: the port is taken, the model or its template is unusable."""
    from crrl.gateway.ledger_file import LedgerFolder
    from crrl.gateway.listening import bound
    from crrl.gateway.open import OpenGateway
    from crrl.gateway.renderer import load_renderer
    from crrl.gateway.session import SamplingPolicy
    from crrl.models import model_folder

    if config.engine.name == "remote":
        raise UsageError("engine=remote is served already.", "Leave engine=remote out.")
    bound(serving.host, serving.port).close()  # report a port in use before loading the model
    folder = model_folder(checkpoint)
    keep = LedgerFolder(Path(serving.ledger)) if serving.ledger else None

    import torch

    from crrl.run.engine import engine_of

    torch.set_num_threads(config.engine.threads or torch.get_num_threads())
    renderer = load_renderer(folder, config.renderer.key, config.renderer.calls)
    engine = engine_of(config, folder, note=lambda said: print(said, file=sys.stderr, flush=True))
    sampling = SamplingPolicy(config.rollout.temperature, as_asked=serving.sampling == "agent", constrained=True)
    gateway = OpenGateway(engine, renderer, sampling, model=serving.model, key=serving.api_key, keep=keep)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        address = await gateway.start(serving.host, serving.port)
        context = (await engine.info()).context
        ways = {"base_url": address, "openai": f"{address}/v1", "anthropic": address, "model": serving.model}
        if as_json:
            print(json.dumps({"schema": SCHEMA, **ways, "renderer": renderer.key, "context": context}), flush=True)
        else:
            print(_words(config, checkpoint, serving, ways, renderer.key, context), flush=True)
        await ended.wait()
    finally:
        await gateway.stop()
        engine.close()
    return 0


def _words(config: Config, checkpoint: str, serving: Serving, ways: dict[str, str], renderer: str, context: int) -> str:
    key = serving.api_key or "any"
    temperature = f"temperature {config.rollout.temperature:g}"
    if serving.sampling == "agent":
        temperature = f"the agent's temperature, or {config.rollout.temperature:g}"
    question = json.dumps({"model": serving.model, "messages": [{"role": "user", "content": "Hello"}]})
    auth = f" -H 'authorization: Bearer {key}'" if serving.api_key else ""
    return f"""\
{checkpoint} answers on {ways["base_url"]} ({context} tokens of context, renderer {renderer}, {temperature}).

  OpenAI clients      export OPENAI_BASE_URL={ways["openai"]} OPENAI_API_KEY={key}
  Anthropic clients   export ANTHROPIC_BASE_URL={ways["anthropic"]} ANTHROPIC_API_KEY={key}
  to try it           curl {ways["openai"]}/chat/completions{auth} -d '{question}'

{f"Each conversation's samples go to {serving.ledger} when it ends. " if serving.ledger else ""}Ctrl-C ends."""


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
