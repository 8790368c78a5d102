"""Settings that cannot work are refused before anything starts (invariant 9), and the message says what to write.

`check(config)` refuses impossible values and combinations (`ignored.py`: what the chosen parts would ignore). The names
of parts come from their rooms and from the distributions that plug parts in (`crrl.registry`); nothing here imports a
part of crrl's own.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from crrl import registry
from crrl.conf import objective_checks
from crrl.conf.evaluation_checks import check_evaluation
from crrl.conf.launch_checks import check_launch
from crrl.conf.question_checks import check_questions
from crrl.conf.recipes import warmstarts
from crrl.conf.schema import Config, RowsConfig
from crrl.conf.templates import check_templates
from crrl.errors import UsageError, nearest
from crrl.models import SHIPPED, model_folder

# Settings that name a part -> the group it is registered in.
PARTS = {
    "engine.name": "crrl.engines",
    "renderer.key": "crrl.renderers",
    "agent.name": "crrl.agents",
    "sandbox.name": "crrl.sandboxes",
    "objective.loss": "crrl.losses",
    "objective.advantage": "crrl.advantages",
}
# Settings that are one of a few words.
WORDS: dict[str, tuple[str, ...]] = {
    "renderer.calls": ("strict", "lenient"),
    "engine.dtype": ("float32", "bfloat16"),
    "engine.transport": ("disk", "stream", "adapter"),
    "sandbox.images": ("auto", "docker", "podman", "apptainer"),
    "adapter.name": ("none", "lora"),
    "launch.name": ("local", "ddp", "zero3"),
    "trainer.dtype": ("float32", "mixed", "bfloat16"),
    "trainer.optimizer": ("adamw", "adamw_8bit", "paged_adamw_8bit"),
    "trainer.schedule": ("constant", "linear", "cosine"),
    "evaluation.checkpoint_rule": ("last", "best_validation"),
    "corpus.ask": ("repair", "implement", "classify"),
    "corpus.curriculum": ("planned", "adaptive"),
    **objective_checks.WORDS,
}
MOST_FUNCTIONS = 4  # `corpus.functions`: each is of another family, and `unseen_families` has so many
KINDS = ("main", "compaction", "subagent", "side")  # of a session's calls: `gateway.api.SampleKind`
PROMPTED = ("builtin", "answer")  # agents with prompt sets of ours

AT_LEAST: dict[str, float] = {
    "seed": 0,
    "engine.max_batch": 1,
    "engine.threads": 0,
    "engine.context": 0,
    "engine.memory_gb": 1,
    "engine.tensor_parallel": 1,
    "engine.replicas": 1,
    "agent.turns": 1,
    "agent.tokens": 1,
    "agent.memory_mb": 0,
    "agent.output_chars": 1,
    "sandbox.memory_mb": 16,
    "sandbox.processes": 1,
    "sandbox.disk_mb": 1,
    "sandbox.cpus": 0,
    "sandbox.cache_gb": 0,
    "corpus.held_out": 1,
    "corpus.functions": 1,
    "objective.groups_per_step": 1,
    "objective.group_size": 2,
    "objective.beta": 0,
    "objective.pair": 0,
    **objective_checks.AT_LEAST,
    "adapter.r": 1,
    "adapter.alpha": 1,
    "tracker.episodes": 0,
    "trainer.max_steps": 0,
    "trainer.learning_rate": 0,
    "trainer.warmup_steps": 0,
    "trainer.weight_decay": 0,
    "trainer.tokens_per_micro_batch": 1,
    "trainer.threads": 0,
    "trainer.save_steps": 1,
    "trainer.keep_checkpoints": 1,
    "launch.processes": 1,
    "rollout.concurrency": 1,
    "rollout.staleness": 0,
    "rollout.tries": 1,
    "rollout.judges": 1,
    "rollout.watchdog_s": 0,
    "evaluation.tasks_per_split": 1,
    "evaluation.samples": 1,
    "evaluation.top_k": 0,
    "evaluation.every": 0,
    "evaluation.validation_tasks": 1,
}
POSITIVE = (
    "agent.wall_s",
    "agent.command_s",
    "trainer.max_grad_norm",
    "rollout.temperature",
    "evaluation.temperature",
    "objective.clip",
)

# Settings of other trainers that people try here, and why crrl refuses them (invariant 6).
TRUNCATED = "its log-probs are of the whole distribution, so truncated or penalised sampling would train on wrong ones"
REFUSED: dict[str, str] = {
    word: f"Training samples from the policy itself; {TRUNCATED}. "
    "Leave it out; the only sampling setting is rollout.temperature=1.0. "
    "Evaluations have evaluation.temperature, evaluation.top_p and evaluation.top_k."
    for word in (
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "tool_choice",
    )
}


def choices(key: str) -> Sequence[str]:
    """The values that a setting may have, if it is one of a few words."""
    return registry.names(PARTS[key]) if key in PARTS else WORDS.get(key, ())


def value_at(config: Any, key: str) -> Any:
    for part in key.split("."):  # maps (`rewards.weights.tests`) have entries; one that is not there is None
        config = (config or {}).get(part) if isinstance(config, dict | None) else getattr(config, part)
    return config


def check(config: Config) -> None:
    """Raises UsageError on the first impossible value or combination."""
    for key in (*PARTS, *WORDS):
        if (value := value_at(config, key)) not in choices(key):
            raise UsageError(f"{key}={value} does not exist.", nearest(str(value), choices(key)))
    for key, least in AT_LEAST.items():
        if (value := value_at(config, key)) < least:
            why = " (a group of one has no baseline)" if key == "objective.group_size" else ""
            raise UsageError(f"{key}={value} is too small{why}.", f"Write {key}={least:g} or more.")
    for key in POSITIVE:
        if (value := value_at(config, key)) <= 0:
            raise UsageError(f"{key}={value} must be above 0.", _greedy_hint(key))
    if not 0 <= config.corpus.rl_share <= 1:
        raise UsageError(
            f"corpus.rl_share={config.corpus.rl_share} is a share, and must be between 0 and 1.",
            "Write corpus.rl_share=0.6.",
        )
    if config.corpus.functions > MOST_FUNCTIONS:
        raise UsageError(
            f"corpus.functions={config.corpus.functions} is too many.",
            f"Write corpus.functions={MOST_FUNCTIONS} or fewer: each is of another family.",
        )
    low, high = config.corpus.pass_rate_low, config.corpus.pass_rate_high
    if not 0 <= low < high <= 1:
        raise UsageError(
            f"corpus.pass_rate_low={low} corpus.pass_rate_high={high} is no band of pass rates.",
            "Write 0 <= low < high <= 1, such as corpus.pass_rate_low=0.2 corpus.pass_rate_high=0.8.",
        )
    if "/" in config.run or config.run in (".", ".."):
        raise UsageError(f"run={config.run} is a folder name, not a path.", "Write run=NAME runs_dir=FOLDER.")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", config.engine.device):
        raise UsageError(
            f"engine.device={config.engine.device} does not exist.", "Write engine.device=auto, cpu, cuda or cuda:N."
        )
    if not 0 < (share := config.engine.memory_share) <= 1:
        raise UsageError(f"engine.memory_share={share} is no share of a memory.", "Write engine.memory_share=0.9.")
    if (config.trainer.dtype, config.trainer.optimizer, config.adapter.name) == ("bfloat16", "adamw", "none"):
        raise UsageError(
            "trainer.dtype=bfloat16 would keep the moments of trainer.optimizer=adamw in bfloat16: too coarse.",
            "Write trainer.dtype=mixed (float32 weights and moments), trainer.optimizer=adamw_8bit, or adapter=lora "
            "(an adapter and its moments stay float32).",
        )
    _check_plugged_in(config)
    _check_agent(config)
    _check_rewards(config)
    _check_credit(config)
    objective_checks.check_objective(config)
    _check_corpus(config)
    check_evaluation(config)
    _check_trackers(config)
    check_launch(config)
    _check_paths(config)


def _greedy_hint(key: str) -> str:
    if key == "rollout.temperature":
        return "Write rollout.temperature=1.0: samples must differ. Greedy decoding is for evaluation."
    if key == "evaluation.temperature":
        return "Write evaluation.decodings=[greedy] for greedy decoding."
    return f"Write a positive number for {key}."


def _check_plugged_in(config: Config) -> None:
    """Parts of other distributions are imported now, so that a broken one stops nothing half-way."""
    for key, group in PARTS.items():
        if not (part := registry.find(group, value_at(config, key))).ours:
            part.load()


def _check_agent(config: Config) -> None:
    if config.agent.options:
        registry.find("crrl.agents", config.agent.name).options(config.agent.options, "agent.options", given=2)
    if config.agent.name == "builtin" and config.renderer.key == "generic-text":
        raise UsageError(
            "agent.name=builtin uses tool calls, and renderer.key=generic-text renders only text.",
            "Write renderer.key=generic, or an agent that sends no tools.",
        )
    # Of an endpoint's model, a shipped one only lends its renderer.
    shipped = SHIPPED.get(config.model.path) if config.engine.name != "remote" else None
    if shipped is not None and config.agent.name in PROMPTED and config.agent.name != shipped.agent:
        fit = [name for name, other in SHIPPED.items() if other.agent == config.agent.name]
        raise UsageError(
            f"model.path={config.model.path} knows only the questions of agent={shipped.agent}.",
            f"Write {' or '.join(f'model.path={name}' for name in [*fit, 'FOLDER'])}, or agent={shipped.agent}.",
        )
    if config.agent.name != "command":
        return
    if not config.agent.command:
        raise UsageError(
            "agent.name=command: agent.command is empty.", "Write agent.command='PROGRAM {{ instruction }}'."
        )
    check_templates(config.agent)


def _check_rewards(config: Config) -> None:
    known = registry.names("crrl.rewards")
    weights, options = config.rewards.weights, config.rewards.options
    for key, names in (("weights", weights), ("options", options)):
        for name in names:
            if name not in known:
                raise UsageError(f"rewards.{key}.{name}: there is no such reward.", nearest(name, known))
    for name in options:
        if name not in weights:
            raise UsageError(
                f"rewards.options.{name} would be ignored: the reward has no weight.",
                f"Write rewards.weights.{name}=0.1 (or 0: reported only), or leave its options out.",
            )
    for name in weights:
        part = registry.find("crrl.rewards", name)
        if name in options or not part.ours:
            part.options(options.get(name, {}), f"rewards.options.{name}")
    for name, weight in weights.items():
        if not math.isfinite(weight):
            raise UsageError(f"rewards.weights.{name}={weight} is not a weight.", f"Write rewards.weights.{name}=1.0.")
    if not any(config.rewards.weights.values()):
        raise UsageError("rewards.weights are all 0: there is nothing to train on.", "Write rewards.weights.tests=1.0.")


def _check_credit(config: Config) -> None:
    for kind, share in config.objective.credit.items():
        if kind not in KINDS:
            raise UsageError(f"objective.credit.{kind}: there is no such kind of call.", nearest(kind, KINDS))
        if not 0 <= share <= 1:
            raise UsageError(
                f"objective.credit.{kind}={share} is a share of the episode's advantage, and must be between 0 and 1.",
                f"Write objective.credit.{kind}=1.0, or 0 to leave such calls out.",
            )
    if not any(config.objective.credit.values()):
        raise UsageError(
            "objective.credit is 0 for every kind of call: there is nothing to train on.",
            "Write objective.credit.main=1.0.",
        )


def _check_corpus(config: Config) -> None:
    name, size = config.corpus.name, config.objective.group_size
    if name == "generated":
        check_questions(config.agent, {config.corpus.ask})
        if config.corpus.ask == "classify" and (size < 4 or size % 2):
            raise UsageError(
                f"objective.group_size={size}: a group has as many attempts at both versions of a pair.",
                "Write an even number from 4 on.",
            )
        return
    if not name.endswith(".jsonl"):
        raise UsageError(
            f"corpus.name={name} does not exist.",
            "Write corpus.name=generated, or a task file: corpus.name=PATH.jsonl.",
        )
    if not Path(name).is_file():
        raise UsageError(
            f"corpus.name={name}: there is no such file.",
            "Write the path of a task file (one JSON task per line).",
        )


def check_rows(config: RowsConfig, explicit: Iterable[str]) -> None:
    """Raises UsageError: `crrl sft DATA...` cannot work with these settings, or one that the user wrote would change
    nothing."""
    if not config.out:
        raise UsageError("Where does the model go?", "Write out=FOLDER.")
    words = {
        "episodes": ("solved", "scored"),
        "adapter.name": ("none", "lora"),
        "schedule": ("constant_with_warmup", "linear", "cosine"),
        "renderer.key": choices("renderer.key"),
    }
    for key, valid in words.items():
        if (value := value_at(config, key)) not in valid:
            raise UsageError(f"{key}={value} does not exist.", nearest(str(value), valid))
    least = {"warmup_steps": 0, "weight_decay": 0, "beta": 0, "tokens_per_pack": 2, "packs_per_step": 1}
    for key, low in {**least, "save_steps": 1, "threads": 0, "adapter.r": 1, "adapter.alpha": 1}.items():
        if (value := value_at(config, key)) < low:
            raise UsageError(f"{key}={value} is too small.", f"Write {key}={low:g} or more.")
    for key in explicit:
        if key == "renderer.calls":
            raise UsageError(f"{key} would be ignored: nothing is sampled.", f"Leave {key} out.")
        if key.startswith("adapter.") and key != "adapter.name" and config.adapter.name == "none":
            raise UsageError(f"{key} would be ignored: it is for an adapter.", "Write adapter=lora, or leave it out.")
    for key in ("epochs", "learning_rate", "max_grad_norm"):
        if (value := value_at(config, key)) <= 0:
            raise UsageError(f"{key}={value} must be above 0.", f"Write a positive number for {key}.")


def _check_trackers(config: Config) -> None:
    names = config.tracker.name
    if len(set(names)) < len(names):
        raise UsageError("tracker.name names something twice.", "Name each once.")
    for name in names:
        part = registry.find("crrl.trackers", name)
        if not part.ours:
            part.load()
        elif importlib.util.find_spec(name) is None:  # our trackers have the names of their packages
            raise UsageError(
                f"tracker={name}: the package {name} is not installed.",
                'In the checkout of CodeRepairRL: .venv/bin/pip install -c constraints.txt -e ".[trackers]"',
            )


def _made_by(path: str) -> str:
    """The command that makes the policy of a recipe; "": nothing of ours does."""
    found = re.fullmatch(r"runs/([\w-]+)/model", path)
    return f"Make it first: crrl sft {found[1]}" if found and found[1] in warmstarts() else ""


def _check_paths(config: Config) -> None:
    state = config.sandbox.state_dir
    home = Path.home()
    if state and home != Path("/") and Path(state).expanduser().resolve().is_relative_to(home.resolve()):
        raise UsageError(
            f"sandbox.state_dir={state} lies under HOME ({home}), which the sandbox's user may not read.",
            f"Write sandbox.state_dir=/var/tmp/crrl-{os.getuid()}, or leave it out.",
        )
    base = config.model.base
    if base and not Path(base).is_dir():
        raise UsageError(f"model.base={base}: there is no such folder.", "Write where the adapter's base model is now.")
    path = config.model.path
    if not base and not model_folder(path).is_dir():
        raise UsageError(
            f"model.path={path}: there is no such folder.",
            _made_by(path) or f"Write model.path={' or '.join(SHIPPED)}, or the path of a Hugging Face model folder.",
        )
