"""How much memory training takes, before anything is loaded: bytes of each component on the fullest card.

A pure function of a model's config.json and the settings. Parameters are counted on the model itself, made without
storage; what a decoder layer keeps for the backward pass is counted by hand for Llama-shaped layers (Llama, Mistral,
Qwen2, Qwen3; others are taken for one of these), and tests compare both with what torch keeps and with the measured
peak of real steps.

The sizes are the largest that the budgets allow: one micro-batch of `trainer.tokens_per_micro_batch` tokens, or one row
as long as `engine.context` if that is more, all of it sampled if `agent.tokens` lets it; and `rollout.concurrency`
generations at full length in the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from crrl.conf.schema import Config
from crrl.errors import CrrlError

GIB = 2**30
PREFIX_TOKENS = 65536
"""`LocalEngine.kv_tokens`: keys and values that stay for whoever continues a generation."""
TILE = (4096, 32768)
"""Tokens and vocabulary of one tile of TRL's log-prob head."""
PROGRAM = int(0.6 * GIB)
"""The interpreter with torch, transformers and TRL; with a GPU, CUDA's context and kernels are about as much."""
CUDA_BUILD = int(0.3 * GIB)
"""What the libraries of a torch with CUDA take of a process that trains on a CPU."""
VLLM = 3 * GIB
"""A vLLM server on a CPU, without weights, keys and values: its three processes."""
VLLM_ASLEEP = 2 * GIB
"""What one keeps of the trainer's GPU while it sleeps: CUDA's context, kernels and graphs. Not measured."""


@dataclass(frozen=True)
class Shape:
    """What of a model's config matters here. `heads` and `kv_heads` are widths: number of heads times their dimension.
    `mlp` is what one token goes through: of a mixture, the chosen experts together. `linear`: parameters of a layer's
    matrices; `largest`: of the largest product that the engine lays out at once; `adapted`: inputs + outputs of the
    linear layers that LoRA adapts, per layer."""

    parameters: int
    tied: int
    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    attention_heads: int
    qk_norm: bool
    vocabulary: int
    context: int
    linear: int
    largest: int
    adapted: int
    adapters: int


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest card (that of rank 0, with the engine), or in this process on a CPU. `rests`: the engine has
    no keys and values while the trainer computes."""

    program: int
    weights: int
    gradients: int
    optimizer: int
    reference: int
    activations: int
    logits: int
    engine: int
    kv: int
    push: int
    awake: int = 0
    rests: bool = False

    @property
    def trainer(self) -> int:
        """The peak of a rank without an engine. A push comes when gradients and activations are gone. A server that
        shares the card wakes up after the backward pass, before the optimizer's step: when gradients are still
        there."""
        computing = self.activations + self.logits
        return self._lasting + max(self.gradients + max(computing, self.awake), self.push)

    @property
    def peak(self) -> int:
        if self.rests:
            return self.engine + max(self.trainer, self._lasting + self.kv)
        return self.engine + self.trainer + self.kv

    @property
    def _lasting(self) -> int:
        return self.program + self.weights + self.optimizer + self.reference

    def rows(self) -> list[tuple[str, int]]:
        return [(f.name, getattr(self, f.name)) for f in fields(self) if f.name != "rests"]


@dataclass(frozen=True)
class Budget:
    """Tokens of the largest micro-batch, how many of them may be trained, and of one row."""

    tokens: int
    trained: int
    row: int


def shape_of(folder: Path, targets: list[str] | None = None) -> Shape:
    """Of a model folder, from its config.json alone. `targets`: as `adapter.targets`.

    Raises: CrrlError: there is none, or transformers does not know the model.
    """
    if not (folder / "config.json").is_file():
        raise CrrlError(
            f"{folder} is not a Hugging Face model folder: it has no config.json.",
            "Give the folder that save_pretrained wrote.",
        )
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # anything can be wrong with a file that anyone wrote
        why = (str(error).splitlines() or [repr(error)])[0][:200]
        raise CrrlError(
            f"{folder} cannot be loaded as a causal language model: {why}",
            "Check config.json: architecture and sizes must be those of the weights.",
        ) from error
    return _shape(model, config.get_text_config(), targets or [])


def _shape(model: Any, config: PreTrainedConfig, targets: list[str]) -> Shape:
    def of(*names: str, default: Any = None) -> Any:
        found = (getattr(config, name, None) for name in names)
        return next((value for value in found if value is not None), default)

    hidden, heads = int(of("hidden_size")), int(of("num_attention_heads"))
    layers = int(of("num_hidden_layers"))
    dim = int(of("head_dim", default=hidden // heads))
    kv_heads = int(of("num_key_value_heads", default=heads))
    chosen = int(of("num_experts_per_tok", default=0))
    mlp = int(of("intermediate_size", default=4 * hidden))
    if chosen:
        mlp = chosen * int(of("moe_intermediate_size", default=mlp))
    head = model.get_output_embeddings()
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    adapted = [m for name, m in linears.items() if not targets or name.rpartition(".")[2] in targets]
    embedding = model.get_input_embeddings().weight
    tied = embedding.numel() if head is not None and head.weight is embedding else 0
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        tied=tied,
        layers=layers,
        hidden=hidden,
        mlp=mlp,
        heads=heads * dim,
        kv_heads=kv_heads * dim,
        attention_heads=heads,
        qk_norm=any(name.endswith("q_norm.weight") for name, _ in model.named_parameters()),
        vocabulary=int(of("vocab_size")),
        context=int(of("max_position_embeddings", default=0)),
        linear=sum(m.weight.numel() for m in linears.values()) // layers,
        largest=max(2 * hidden * int(of("intermediate_size", default=4 * hidden)), embedding.numel()),
        adapted=sum(m.in_features + m.out_features for m in adapted) // layers,
        adapters=len(adapted) // layers,
    )


def budget_of(context: int, config: Config) -> Budget:
    """`context`: the model's own. Raises CrrlError: nothing says how long a row may be."""
    row = config.engine.context or context
    if not row:
        raise CrrlError("The model does not say its context length.", "Set engine.context.")
    tokens = max(config.trainer.tokens_per_micro_batch, row)
    rows = config.objective.groups_per_step * config.objective.group_size
    return Budget(tokens, min(tokens, rows * config.agent.tokens), row)


def estimate(shape: Shape, config: Config, *, device: str, ranks: int = 1, card: int = 0) -> Memory:
    """`device`: cpu or cuda. `ranks`: processes that train together, each on a card of its own if there are any.
    `card`: its bytes, of which vLLM takes a share."""
    trainer, lora = config.trainer, config.adapter.name == "lora"
    budget = budget_of(shape.context, config)
    size = 2 if trainer.dtype == "bfloat16" else 4
    adapters = shape.layers * shape.adapted * config.adapter.r if lora else 0
    trained = adapters or shape.parameters
    sharded = ranks if config.launch.name == "zero3" else 1
    if config.launch.name == "zero3" and trainer.dtype == "mixed":
        size = 2  # DeepSpeed's own: the float32 weights are the optimizer's
    weights = size * shape.parameters + 4 * adapters
    gradients = (4 if lora else size) * trained
    moments = 2 * (1 if "8bit" in trainer.optimizer else 4) * trained
    if sharded > 1:
        # DeepSpeed updates a float32 copy of each rank's part; a layer's whole weights come and go.
        weights, gradients, moments = weights // sharded, gradients // sharded, (moments + 4 * trained) // sharded
        weights += 2 * size * (shape.linear + shape.tied)
    elif ranks > 1:
        gradients *= 2  # DDP's buckets
    reference = size * shape.parameters // sharded if config.objective.beta and not lora else 0
    engine_size = 2 if config.engine.dtype == "bfloat16" else 4
    engine = engine_size * shape.parameters
    push, kv = engine_size * 2 * shape.largest, _kv(shape, config, budget.row, engine_size)
    if device == "cpu" and engine_size == 4:
        engine += 4 * shape.tied  # the head's layout is not the embedding's
    if config.engine.name == "vllm":  # a process of its own; on a card of its own, if it has one
        each = (engine + VLLM, config.engine.memory_gb << 30) if device == "cpu" else (0, 0)
        engine, kv = each[0] * config.engine.replicas, each[1] * config.engine.replicas
        push = min(engine_size * shape.parameters, 1 << 30)
    shares = config.engine.name == "vllm" and config.engine.share and device != "cpu"
    return Memory(
        program=PROGRAM
        + (VLLM_ASLEEP if shares else 0)
        + (CUDA_BUILD if device == "cpu" and torch.version.cuda is not None else 0),
        weights=weights,
        gradients=gradients,
        optimizer=moments,
        reference=reference,
        activations=_activations(shape, budget.tokens, config),
        logits=_logits(shape, budget, device, full=not lora),
        engine=engine,
        kv=kv,
        push=push,
        awake=max(0, int(config.engine.memory_share * card) - VLLM_ASLEEP) if shares else 0,
        rests=config.engine.name == "local" and not config.rollout.staleness,
    )


def kept(shape: Shape, dtype: str, rank: int = 0) -> int:
    """Bytes per token that a decoder layer keeps for the backward pass. `rank`: LoRA's; 0: all weights are trained.

    The residual stream and its norm twice, queries, keys, values and the attention's output, and four widths of the
    MLP. In `mixed`, products have bfloat16 copies of their inputs, one each; beside bfloat16 weights, LoRA's matrices
    are float32, and have float32 copies."""
    hidden, heads, keys, mlp = shape.hidden, shape.heads, shape.kv_heads, shape.mlp
    normed = heads + keys if shape.qk_norm else 0
    if dtype == "float32":
        stream, frozen, width, normed_size, normed_frozen = 24, 8, 4, 8, 4
    elif dtype == "mixed":
        stream, frozen, width, normed_size, normed_frozen = 26, 8, 2, 6, 2
    else:
        stream, frozen, width, normed_size, normed_frozen = 16, 4, 2, 6, 2
    products = width * (3 * heads + 2 * keys + 4 * mlp + rank * shape.adapters)
    if rank:  # a norm whose weight is frozen keeps its input alone
        stream, normed_size = stream - frozen, normed_size - normed_frozen
        if dtype == "bfloat16":
            stream = 28
            products += 2 * heads + 2 * mlp + 2 * rank * shape.adapters
    sums = 4 * (shape.attention_heads + 2) + (4 * normed // max(1, heads // shape.attention_heads))
    return stream * hidden + products + normed_size * normed + sums


def _activations(shape: Shape, tokens: int, config: Config) -> int:
    """What the forward pass keeps, and what the backward pass of one layer makes on top."""
    trainer, lora = config.trainer, config.adapter.name == "lora"
    layer = kept(shape, trainer.dtype, config.adapter.r if lora else 0) * tokens
    width = 4 if trainer.dtype == "float32" else 2
    if trainer.dtype == "mixed":  # bfloat16 copies of the weights
        layer += 2 * shape.linear
    stream = (2 if trainer.dtype == "bfloat16" else 4) * shape.hidden * tokens
    layers = shape.layers * stream + layer if trainer.gradient_checkpointing else shape.layers * layer
    backward = width * (3 * shape.mlp + 2 * shape.hidden) * tokens
    return layers + 2 * stream + backward


def _logits(shape: Shape, budget: Budget, device: str, *, full: bool) -> int:
    """Tiles of the head: on a CPU torch holds eight of them at once, and a mask; on a GPU one kernel works in place.
    And the head's gradient before it is added to what is there."""
    tile = min(budget.trained, TILE[0]) * min(shape.vocabulary, TILE[1]) * 4
    gradient = 4 * shape.vocabulary * shape.hidden if full else 0
    return int((8.25 if device == "cpu" else 1) * tile) + 2 * 4 * budget.trained * shape.hidden + gradient


def _kv(shape: Shape, config: Config, row: int, size: int) -> int:
    """Slots for all that run at once, and what stays of those that have ended."""
    slots = min(config.engine.max_batch, config.rollout.concurrency)
    return 2 * size * shape.layers * shape.kv_heads * (slots * row + PREFIX_TOKENS)
