"""Settings that the chosen parts would ignore are refused where you wrote them (invariant 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crrl.conf import engine_keys, objective_checks
from crrl.conf.schema import Config
from crrl.errors import UsageError

Ignored = tuple[str, Callable[[Config], bool], str]


def _of_engine(key: str) -> str:
    return f"it is for engine.name={' and engine.name='.join(engine_keys.engines_with(key))}"


# setting, when it is ignored, why
IGNORED: tuple[Ignored, ...] = (
    *(
        (f"engine.{key}", lambda c, key=key: key not in engine_keys.OWN.get(c.engine.name, ()), _of_engine(key))
        for key in sorted({key for keys in engine_keys.OWN.values() for key in keys})
    ),
    *(
        (f"engine.{key}", lambda c: c.engine.name == "vllm" and c.engine.url != "", "the one at engine.url has its own")
        for key in engine_keys.OF_A_SERVER_OF_OURS
    ),
    *(
        (key, lambda c: c.engine.name == "remote", "the endpoint of engine=remote computes, and answers in text")
        for key in (
            "engine.max_batch",
            "engine.threads",
            "engine.device",
            "engine.dtype",
            "renderer.calls",
            "model.base",
        )
    ),
    *(
        (f"agent.{key}", lambda c: c.agent.name == "command", "agent.name=command has its own tools and prompts")
        for key in ("command_s", "output_chars")
    ),
    ("renderer.calls", lambda c: c.renderer.key == "generic-text", "renderer.key=generic-text has no calls"),
    *(
        (f"agent.{key}", lambda c: c.agent.name == "answer", "agent.name=answer runs no commands")
        for key in ("command_s", "output_chars")
    ),
    ("agent.prompts", lambda c: c.agent.name not in ("builtin", "answer"), "it is for agent.name=builtin and answer"),
    *(
        (f"agent.{key}", lambda c: c.agent.name != "command", "it is for agent.name=command")
        for key in ("command", "instruction", "env", "files", "mounts", "memory_mb", "install")
    ),
    *(
        (f"sandbox.{key}", lambda c: c.corpus.name == "generated", "generated tasks have no image")
        for key in ("images", "cpus")
    ),
    *(
        (key, lambda c: c.corpus.name == "generated" and c.corpus.ask != "classify", "it is for corpus.ask=classify")
        for key in ("objective.pair", "corpus.shuffle_labels")
    ),
    ("corpus.ask", lambda c: c.corpus.name != "generated", "a task file says what it asks for"),
    ("corpus.functions", lambda c: c.corpus.name != "generated", "a task file has the files that it has"),
    ("corpus.functions", lambda c: c.corpus.ask == "classify", "a function to classify stands alone"),
    (
        "corpus.rl_share",
        lambda c: c.corpus.name != "generated",
        "a task file has no families from the warm start",
    ),
    (
        "evaluation.splits",
        lambda c: c.corpus.name != "generated",
        "a task file has one, of corpus.held_out tasks",
    ),
    ("corpus.held_out", lambda c: c.corpus.name == "generated", "generated tasks have their own splits"),
    *(
        (f"corpus.{key}", lambda c: c.corpus.curriculum != "adaptive", "it is for corpus.curriculum=adaptive")
        for key in ("pass_rate_low", "pass_rate_high")
    ),
    *objective_checks.IGNORED,
    *(
        (f"tracker.{key}", lambda c: not set(c.tracker.name) - {"trackio", "tensorboard"}, "it is for tracker=wandb")
        for key in ("entity", "offline")
    ),
    (
        "tracker.project",
        lambda c: not set(c.tracker.name) - {"tensorboard"},
        "it is for tracker=wandb and tracker=trackio",
    ),
    (
        "tracker.checkpoints",
        lambda c: not set(c.tracker.name) - {"tensorboard"},
        "none of these trackers keeps files",
    ),
    ("tracker.episodes", lambda c: not c.tracker.name, "there is no tracker"),
    *(
        (f"evaluation.{key}", lambda c: "sampled" not in c.evaluation.decodings, "nothing is sampled")
        for key in ("samples", "temperature", "top_p", "top_k")
    ),
    ("evaluation.validation_tasks", lambda c: not c.evaluation.every, "evaluation.every is 0: there is no validation"),
    *(
        (f"adapter.{key}", lambda c: c.adapter.name == "none", "it is for an adapter")
        for key in ("r", "alpha", "targets")
    ),
    ("launch.processes", lambda c: c.launch.name == "local", "it is for launch=ddp and launch=zero3"),
    (
        "trainer.warmup_steps",
        lambda c: c.trainer.max_steps == 0 and c.trainer.warmup_steps > 0,
        "with trainer.max_steps=0 nothing is trained",
    ),
)


def check_ignored(config: Config, explicit: Iterable[str]) -> None:
    """Raises UsageError if a setting that the user wrote would change nothing."""
    written = set(explicit)
    for key, ignored, why in IGNORED:
        if key in written and ignored(config):
            raise UsageError(f"{key} would be ignored: {why}.", f"Leave {key} out.")
