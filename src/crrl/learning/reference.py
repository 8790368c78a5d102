"""The reference policy of the KL term: fixed, the previous step's, that of every n steps, or a moving average.

Two numbers say which. At the end of step k, if k + 1 is a multiple of `every`, it follows the policy that began step k:

    reference = mixup * policy + (1 - mixup) * reference

| every | mixup | the reference of step k is |
|---|---|---|
| 0 | - | the first policy |
| 1 | 1 | the policy that began step k - 1 |
| n | 1 | that policy, renewed every n steps |
| 1 | m | a moving average of the policies, with decay 1 - m |

It lags by one step: equal to the current policy, its KL divergence and the gradient of that would be 0. Under LoRA it
is a second adapter on the same base (`AdapterReference`), otherwise a second model (`ModelReference`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from crrl.conf.schema import Objective
from crrl.learning.logprobs import Picked, unwrapped

FILE = "reference/weights.safetensors"
"""In a checkpoint, where the reference is not the run's first policy."""
ADAPTER = "reference"


class Reference:
    """What both kinds have in common. `policy`: the trainer's, not wrapped."""

    def __init__(self, policy: Any, objective: Objective) -> None:
        self._policy, self._every, self._mixup = policy, objective.every, objective.mixup

    @contextmanager
    def scoring(self) -> Iterator[tuple[nn.Module, Picked]]:
        """The model whose forward passes are the reference's, and its hook."""
        raise NotImplementedError

    def _pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name, weight of the reference, weight of the policy."""
        raise NotImplementedError

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """To call in step k (0-based) once its log-probs are known, before the policy changes."""
        if self._every and (step + 1) % self._every == 0:
            for _, mine, policys in self._pairs():
                mine.lerp_(policys.to(mine.dtype), self._mixup)

    @property
    def moves(self) -> bool:
        return bool(self._every)

    def save(self, folder: Path) -> None:
        """Into a checkpoint."""
        (folder / FILE).parent.mkdir(exist_ok=True)
        save_file({name: mine.detach().contiguous() for name, mine, _ in self._pairs()}, folder / FILE)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """From a checkpoint that has one."""
        stored = load_file(folder / FILE)
        for name, mine, _ in self._pairs():
            mine.copy_(stored[name])


class ModelReference(Reference):
    """A model of its own. TRL would load one from a path that it guesses."""

    def __init__(
        self, policy: PreTrainedModel, model: PreTrainedModel, objective: Objective, temperature: float
    ) -> None:
        super().__init__(policy, objective)
        model.requires_grad_(False).eval().to(policy.device)
        add_fused_lm_head(model, temperature=temperature, outputs=("log_probs",))
        self.model, self._picked = model, Picked(model)

    @contextmanager
    def scoring(self) -> Iterator[tuple[nn.Module, Picked]]:
        yield self.model, self._picked

    def _pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        policys = dict(self._policy.named_parameters())
        for name, mine in self.model.named_parameters():
            yield name, mine, policys[name]


class AdapterReference(Reference):
    """A second adapter, whose scores are taken with the policy's own set aside."""

    def __init__(self, policy: Any, picked: Picked, objective: Objective) -> None:
        super().__init__(policy, objective)
        self._picked = picked
        (self._active,) = policy.active_adapters
        policy.add_adapter(ADAPTER, deepcopy(policy.peft_config[self._active]))
        policy.set_adapter(self._active)
        with torch.no_grad():
            for _, mine, policys in self._pairs():
                mine.copy_(policys)

    @contextmanager
    def scoring(self) -> Iterator[tuple[nn.Module, Picked]]:
        self._policy.set_adapter(ADAPTER)
        try:
            yield self._policy, self._picked
        finally:
            self._policy.set_adapter(self._active)

    @property
    def moves(self) -> bool:
        return True  # a resumed run has no other copy of the adapter that it began with

    def save(self, folder: Path) -> None:
        """PEFT saves every adapter of a model: this one in a folder of its name."""

    def load(self, folder: Path) -> None:
        stored = load_file(folder / ADAPTER / SAFETENSORS_WEIGHTS_NAME)
        set_peft_model_state_dict(self._policy, stored, adapter_name=ADAPTER)

    def _pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        weights = dict(unwrapped(self._policy).named_parameters())
        for name, mine in weights.items():
            if f".{ADAPTER}." in name:
                yield name, mine, weights[name.replace(f".{ADAPTER}.", f".{self._active}.")]
