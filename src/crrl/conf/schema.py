"""Every setting, with its type, default and meaning. Hydra uses these dataclasses as the schema of recipes.

Invariant 9: a setting is here only if something acts on it. `checks.py` refuses impossible combinations before anything
starts. Error messages show the documentation of a field.
"""

# ruff: noqa: RUF009 - `doc` is `dataclasses.field` with documentation
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any


def doc(text: str, default: Any) -> Any:
    """A field with a default and a line of documentation."""
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata={"doc": text})
    if isinstance(default, type):
        return field(default_factory=default, metadata={"doc": text})
    return field(default=default, metadata={"doc": text})


@dataclass
class Model:
    path: str = doc(
        "Hugging Face model folder, folder of a LoRA adapter, or a policy shipped with the package: `tiny`", "tiny"
    )
    base: str = doc("folder of an adapter's base model, where that was moved; empty: where it was", "")


@dataclass
class Engine:
    name: str = doc(
        "the engine that samples: `local` (in this process, any transformers causal model), `vllm` (a server that the "
        "run starts: docs/engines.md), or `remote` (an OpenAI-compatible endpoint, only evaluated: docs/evaluation.md)",
        "local",
    )
    max_batch: int = doc("maximum number of requests decoded together", 64)
    threads: int = doc("torch threads for sampling; 0: the number of cores", 0)
    context: int = doc("limit on prompt and answer together, in tokens; 0: the model's own", 0)
    device: str = doc("where it computes: `auto` (the GPU if there is one), `cpu`, `cuda` or `cuda:N`", "auto")
    dtype: str = doc("type of its weights and keys and values: `float32` or `bfloat16`", "float32")
    install: bool = doc("vllm: make its environment if it is not there (some GB, some minutes)", False)
    environment: str = doc("vllm: folder of its environment; empty: engines/vllm in sandbox.state_dir", "")
    memory_gb: int = doc("vllm: GiB for keys and values, where it computes on a CPU", 4)
    memory_share: float = doc("vllm: share of a GPU's memory, for weights, keys and values", 0.9)
    tensor_parallel: int = doc("vllm: number of GPUs that hold the model together", 1)
    transport: str = doc(
        "vllm: how pushed weights get to its servers: `disk` (a folder that both see), `stream` (a socket), or "
        "`adapter` (a folder with the LoRA adapter alone, which is not merged)",
        "disk",
    )
    replicas: int = doc("vllm: how many servers the run starts; each session stays with one", 1)
    share: bool = doc("vllm: its server has the trainer's GPU, and sleeps while that is trained on", False)
    url: str = doc(
        "remote: address of an OpenAI-compatible endpoint, up to its /v1; vllm: http://HOST:PORT of a server that "
        "somebody else runs, or of several, with commas between; empty: the run starts its own",
        "",
    )
    model: str = doc("remote: the model's name there (`crrl eval BENCHMARK NAME engine=remote`)", "")
    key_variable: str = doc("remote: environment variable that holds the key", "OPENAI_API_KEY")


@dataclass
class Renderer:
    key: str = doc(
        "how messages become tokens: the model's family (`qwen3`, `qwen3-thinking`, `llama-3`, ...), `auto`, or "
        "`generic`: any chat template that only appends",
        "qwen3",
    )
    calls: str = doc(
        "`strict`: tool calls as the model's template writes them; `lenient`: also in a ```json fence or as bare JSON",
        "strict",
    )


@dataclass
class Agent:
    name: str = doc(
        "the agent: `builtin`, `answer` (one question, one answer: docs/objectives.md), `command` (any program, run in "
        "the sandbox), or one that you plug in",
        "builtin",
    )
    prompts: str = doc(
        "builtin: prompt templates under conf/prompts/, `tiny` (short) or `full`; answer: those under "
        "conf/prompts/answer/",
        "tiny",
    )
    command: str = doc("command: a shell line; {{ instruction }}, {{ model }}... become quoted words", "")
    instruction: str = doc("command: the agent's instruction, a template over task.issue", "{{ task.issue }}")
    env: dict[str, str] = doc("command: additional environment variables; templates", {})
    files: dict[str, str] = doc("command: files it needs: path below its HOME -> text; templates", {})
    mounts: list[str] = doc("command: SOURCE:TARGET, mounted read-only; a relative SOURCE is in state_dir/agents", [])
    memory_mb: int = doc("command: memory for its own processes, on top of sandbox.memory_mb", 0)
    install: str = doc("command: a shell line that makes its SOURCE, run in that folder (`scripts/agents.py NAME`)", "")
    options: dict[str, Any] = doc("builtin, answer, plugged-in agents: their own parameters", {})
    turns: int = doc("limit on model calls per episode", 8)
    tokens: int = doc("limit on sampled tokens per episode", 1024)
    wall_s: float = doc("limit on an episode's seconds, not counting those with a request at the engine", 60.0)
    command_s: float = doc("limit on a command's seconds", 10.0)
    output_chars: int = doc("number of characters of a tool's output that the model sees", 4000)


@dataclass
class Sandbox:
    name: str = doc("the back end of tasks without an image", "bubblewrap")
    state_dir: str = doc("folder for workspaces and other caches; empty: /var/tmp/crrl-<uid>; never under HOME", "")
    memory_mb: int = doc("limit on the memory of an episode's process tree", 1024)
    processes: int = doc("limit on an episode's processes", 128)
    disk_mb: int = doc("limit on what an episode writes to its workspace", 256)
    images: str = doc(
        "engine for tasks with an image: `docker`, `podman`, `apptainer`, or `auto`: the first that works", "auto"
    )
    cpus: float = doc("cores of one container; 0: all", 0.0)
    cache_gb: float = doc(
        "limit on the caches in state_dir, enforced when a run starts (the least recently used go); 0: no limit", 0.0
    )


@dataclass
class Corpus:
    name: str = doc("`generated`, or a task file (.jsonl)", "generated")
    ask: str = doc(
        "generated tasks: to `repair` a program, to `implement` it, whose body is missing, from its docstring, or to "
        "`classify` functions, vulnerable or not",
        "repair",
    )
    functions: int = doc("generated tasks: functions in the file, of which one is to be repaired or implemented", 1)
    rl_share: float = doc(
        "share of training groups from families that only RL teaches; the rest come from the warm start's", 0.6
    )
    shuffle_labels: bool = doc(
        "CONTROL RUN: functions to classify: deal out the labels of training tasks at random", False
    )
    held_out: int = doc("task file: number of tasks held out for evaluation", 100)
    curriculum: str = doc(
        "which training tasks come when: `planned` (a function of the seed), or `adaptive`: tasks (of generated ones, "
        "families) that the policy solves sometimes come more often",
        "planned",
    )
    pass_rate_low: float = doc("adaptive: tasks solved more rarely than this are too hard for now", 0.2)
    pass_rate_high: float = doc("adaptive: tasks solved more often than this are too easy", 0.8)


@dataclass
class Rewards:
    weights: dict[str, float] = doc("reward name -> its weight in the reward; 0: only report it", {"tests": 1.0})
    options: dict[str, dict[str, Any]] = doc("reward name -> its parameters: rewards.options.NAME.KEY=VALUE", {})


@dataclass
class Objective:
    """`objective=NAME` is a ready one, of conf/objective/."""

    loss: str = doc(
        "one of TRL's (grpo, bnpo, dr_grpo, dapo, cispo, sapo, vespo, luspo), or one that is plugged in", "dr_grpo"
    )
    advantage: str = doc(
        "`centred` (reward − group mean), `normalised` (also / deviation) or `leave_one_out` (− mean of the others)",
        "centred",
    )
    groups_per_step: int = doc("tasks per step", 8)
    group_size: int = doc("attempts per task", 8)
    level: str = doc(
        "an importance ratio is of a `token`, or of a `sequence`: the geometric mean over a row's trained tokens",
        "token",
    )
    old: str = doc(
        "denominator of importance ratios: log-probs of the `sampler` as recorded, or of the `trainer` before the "
        "step, with objective.correction for the rest",
        "sampler",
    )
    correction: str = doc(
        "old=trainer: each token's, or row's, loss is weighted by exp(trainer − sampler), which beyond "
        "objective.correction_bound is truncated, or masked: `none`, `token_truncate`, `token_mask`, "
        "`sequence_truncate`, `sequence_mask`",
        "none",
    )
    correction_bound: float = doc("correction: the largest weight", 2.0)
    updates_per_batch: int = doc("optimizer steps on the rows of one step", 1)
    clip: float = doc("PPO's epsilon: ratios count down to 1 − clip, and up to 1 + clip_high", 0.2)
    clip_high: float = doc("the epsilon of ratios above 1; 0: as objective.clip", 0.0)
    beta: float = doc("weight of the KL divergence to the reference policy", 0.0)
    every: int = doc("steps after which the reference policy follows; 0: never, it is the first policy", 0)
    mixup: float = doc("how far it then follows: reference = mixup * policy + (1 − mixup) * reference", 1.0)
    length_normaliser: int = doc("dr_grpo: divides sums over an episode's tokens by this constant", 30)
    dynamic_sampling: int = doc(
        "at most so many more groups a step, each in the place of one whose attempts all got the same reward", 0
    )
    overlong: float = doc(
        "the last share of agent.tokens over which an episode's reward falls by up to 1 (DAPO); 0: none", 0.0
    )
    pair: float = doc(
        "functions to classify: the weight of getting both versions of a pair right, which stand in one group "
        "(docs/rewards.md)",
        0.0,
    )
    credit: dict[str, float] = doc(
        "kind of model call (main, compaction, subagent, side) -> share of the episode's advantage; 0: not trained",
        {"main": 1.0, "compaction": 0.0, "subagent": 0.0, "side": 0.0},
    )
    shuffle_rewards: bool = doc("CONTROL RUN: shuffle rewards at random, so that there is nothing to learn", False)


@dataclass
class Adapter:
    name: str = doc("`none`: train all weights; `lora`: low-rank matrices beside them (arXiv:2106.09685)", "none")
    r: int = doc("lora: the rank", 16)
    alpha: int = doc("lora: the update is scaled by alpha / r", 32)
    targets: list[str] = doc("lora: last parts of the names of the adapted layers; empty: all linear ones", [])


@dataclass
class Launch:
    name: str = doc(
        "`local`: one process trains; `ddp`: several, each with all weights; `zero3`: several, each with a part of "
        "weights, gradients and moments (DeepSpeed)",
        "local",
    )
    processes: int = doc("ddp, zero3: how many, on this machine; each has a GPU of its own where there are GPUs", 1)


@dataclass
class Tracker:
    name: list[str] = doc("where the numbers go besides the run folder: any of wandb, trackio, tensorboard", [])
    project: str = doc("wandb, trackio: the project", "crrl")
    entity: str = doc("wandb: the team or user; empty: your default one", "")
    offline: bool = doc("wandb: keep everything in the run folder, for `wandb sync`", False)
    episodes: int = doc("episodes of each step that are shown as a table: outcome, patch, conversation", 0)
    checkpoints: bool = doc("wandb, trackio: upload checkpoints as artifacts", False)


@dataclass
class Trainer:
    max_steps: int = doc("number of steps: rollouts, updates on them, and a push", 60)
    learning_rate: float = doc("peak learning rate", 1e-4)
    warmup_steps: int = doc("steps of linear warm-up", 3)
    schedule: str = doc("after the warm-up: constant, linear or cosine", "constant")
    max_grad_norm: float = doc("gradient clipping", 1.0)
    weight_decay: float = doc("AdamW's weight decay", 0.0)
    adam_beta2: float = doc("AdamW's beta2", 0.95)
    tokens_per_micro_batch: int = doc("tokens in one forward pass; what rows share counts once", 16384)
    gradient_checkpointing: bool = doc("recompute activations in the backward pass: less memory, more time", False)
    dtype: str = doc("`float32`; `mixed`: float32 weights, bfloat16 passes; `bfloat16`: weights, too", "float32")
    optimizer: str = doc(
        "`adamw`; on a CUDA GPU also `adamw_8bit`, `paged_adamw_8bit` (moments in 8 bits; in host memory at need)",
        "adamw",
    )
    threads: int = doc("torch threads for an update, while rollouts pause; 0: the cores, shared by the ranks", 0)
    save_steps: int = doc("steps between checkpoints", 10)
    keep_checkpoints: int = doc("number of checkpoints to keep, besides the best", 2)
    checkpoints_dir: str = doc(
        "another folder for checkpoints (a disk that several hosts share); empty: in the run folder", ""
    )


@dataclass
class Rollout:
    concurrency: int = doc("episodes that run at once", 32)
    staleness: int = doc(
        "steps that episodes may run ahead of the trainer, while it works; 0: they wait for its weights", 0
    )
    tries: int = doc("how often to start an attempt if our infrastructure fails", 3)
    temperature: float = doc("sampling temperature in training", 1.0)
    judges: int = doc("number of warm judges", 2)
    watchdog_s: float = doc("write every process's stacks when nothing has moved for so long; 0: never", 900.0)


@dataclass
class Evaluation:
    tasks_per_split: int = doc("held-out tasks in each split", 100)
    splits: list[str] = doc(
        "held-out splits of generated tasks; `impossible` is one more: who passes its tests has cheated",
        ["rl_instances", "sft_instances", "unseen_families"],
    )
    decodings: list[str] = doc("`sampled` (at evaluation.temperature), `greedy`", ["sampled", "greedy"])
    before: bool = doc("also evaluate before training (needed for a comparison)", True)
    samples: int = doc("samples of each task under `sampled`", 1)
    temperature: float = doc("temperature of `sampled`; training has its own, rollout.temperature", 1.0)
    top_p: float = doc("`sampled`: draw only from the tokens that have this share of the mass; 1.0: from all", 1.0)
    top_k: int = doc("`sampled`: draw only from so many most probable tokens; 0: from all", 0)
    every: int = doc("steps of training between validations; 0: none", 0)
    validation_tasks: int = doc("tasks of a validation, one sample each, under the first of evaluation.decodings", 20)
    checkpoint_rule: str = doc(
        "which policy counts at the end: `last`, or `best_validation`: the checkpoint with the best validation", "last"
    )
    prices: dict[str, float] = doc("USD: `input`, `output` (a million tokens), `hour` (of an episode); reported", {})


@dataclass
class Config:
    """`crrl train`."""

    run: str = doc("name of the run folder; empty: <recipe>-seed<seed>", "")
    runs_dir: str = doc("folder for run folders", "runs")
    seed: int = doc("seed of everything: tasks, sampling, test split", 0)
    recipe: str = doc("the recipe this came from (set by the loader)", "")
    model: Model = doc("", Model)
    engine: Engine = doc("", Engine)
    renderer: Renderer = doc("", Renderer)
    agent: Agent = doc("", Agent)
    sandbox: Sandbox = doc("", Sandbox)
    corpus: Corpus = doc("", Corpus)
    rewards: Rewards = doc("", Rewards)
    objective: Objective = doc("", Objective)
    adapter: Adapter = doc("", Adapter)
    launch: Launch = doc("", Launch)
    tracker: Tracker = doc("", Tracker)
    trainer: Trainer = doc("", Trainer)
    rollout: Rollout = doc("", Rollout)
    evaluation: Evaluation = doc("", Evaluation)


@dataclass
class WarmstartConfig:
    """`crrl sft warmstart`: makes a tiny policy."""

    seed: int = doc("seed of demonstrations and weights", 1)
    recipe: str = doc("the recipe this came from (set by the loader)", "")
    out: str = doc("folder for the finished model", "runs/warmstart/model")
    state_dir: str = doc("folder for demonstrations and optimizer state, to resume from", "runs/warmstart")
    form: str = doc(
        "what is demonstrated: `tools` (episodes of agent=builtin), `blocks` (answers of agent=answer), `implement` "
        "(the same, to tasks of corpus.ask=implement), or `classify` (answers about functions)",
        "tools",
    )
    base: str = doc("policy to start from: a shipped one or a folder; empty: random weights, a new tokenizer", "")
    pool_size: int = doc("number of demonstrations", 128_000)
    random_share: float = doc("share of demonstrations with a random edit", 0.15)
    mistakes: float = doc("form=tools: share of demonstrations that correct refused edits", 0.3)
    steps: int = doc("optimizer steps", 4000)
    batch: int = doc("demonstrations per step", 32)
    lr_muon: float = doc("peak learning rate of the hidden matrices (Muon)", 0.02)
    lr_adam: float = doc("peak learning rate of the other weights (Adam)", 4e-3)
    decay: float = doc("final share of the run over which the learning rate falls to zero", 0.6)
    ema: float = doc("decay of the averaged weights, which become the shipped model", 0.99)
    threads: int = doc("torch threads; 0: the number of cores", 0)


@dataclass
class RowsConfig:
    """`crrl sft DATA...`: supervised fine-tuning on episodes of runs, or on chats."""

    seed: int = doc("seed of the order of rows, and of an adapter", 0)
    recipe: str = doc("the recipe this came from (set by the loader)", "")
    out: str = doc("folder for the finished model", "")
    data: list[str] = doc("runs, and JSON Lines files of chats (the verb's arguments)", [])
    episodes: str = doc("of a run's training episodes: `solved`, or `scored` (all that were not lost)", "solved")
    model: Model = doc("", Model)
    renderer: Renderer = doc("", Renderer)
    adapter: Adapter = doc("", Adapter)
    epochs: float = doc("passes over the rows", 1.0)
    learning_rate: float = doc("peak learning rate", 1e-5)
    schedule: str = doc("after the warm-up: constant_with_warmup, linear or cosine", "cosine")
    warmup_steps: int = doc("steps of linear warm-up", 5)
    weight_decay: float = doc("AdamW's weight decay", 0.0)
    max_grad_norm: float = doc("gradient clipping", 1.0)
    beta: float = doc("weight of KL(policy || base) at the trained tokens", 0.0)
    tokens_per_pack: int = doc("tokens of one packed sequence; longer rows are left out, and counted", 4096)
    packs_per_step: int = doc("packed sequences of an update", 4)
    gradient_checkpointing: bool = doc("recompute activations in the backward pass: less memory, more time", False)
    save_steps: int = doc("steps between checkpoints, from which an interrupted command goes on", 50)
    threads: int = doc("torch threads; 0: the number of cores", 0)


# The first entry of a recipe's `defaults` names one of these (or a recipe to build on).
SCHEMAS: dict[str, type] = {"train_schema": Config, "sft_schema": WarmstartConfig, "rows_schema": RowsConfig}


@dataclass(frozen=True)
class Key:
    """One setting as people see it: `trainer.max_steps`, int, 60, its documentation."""

    name: str
    type: str
    default: Any
    doc: str


def keys(schema: type, prefix: str = "") -> Iterator[Key]:
    """Every setting of a schema, in order; groups are not settings."""
    for f in fields(schema):
        factory = f.default_factory
        default = f.default if factory is MISSING else factory()
        if is_dataclass(default):
            yield from keys(type(default), f"{prefix}{f.name}.")
        elif f.name != "recipe":
            yield Key(f"{prefix}{f.name}", str(f.type), default, f.metadata["doc"])
