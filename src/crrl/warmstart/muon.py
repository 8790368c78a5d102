"""Muon: momentum orthogonalised by a Newton-Schulz iteration, for the hidden matrices of a small model.

Keller Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/. This one stays in float32 and batches matrices
of equal shape: `torch.optim.Muon` iterates in bfloat16, one matrix at a time, which took 0.15 s a step on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Args: params: matrices only; lr: size of an update's singular values; momentum: Nesterov momentum."""

    def __init__(
        self, params: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95, iterations: int = 4
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "iterations": iterations})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[torch.nn.Parameter]] = {}
            for parameter in group["params"]:
                by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for (rows, columns), parameters in by_shape.items():
                grads = torch.stack([_grad(p) for p in parameters])
                state = self.state[parameters[0]]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(grads)
                state["momentum"].lerp_(grads, 1 - group["momentum"])
                update = torch.lerp(grads, state["momentum"], group["momentum"])
                update = orthogonalise(update, group["iterations"])
                scale = max(1.0, rows / columns) ** 0.5
                for parameter, change in zip(parameters, update, strict=True):
                    parameter.add_(change, alpha=-group["lr"] * scale)


def orthogonalise(matrices: torch.Tensor, iterations: int) -> torch.Tensor:
    """[batch, rows, columns] -> the same, with singular values near 1 (quintic Newton-Schulz)."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(iterations):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


def _grad(parameter: torch.nn.Parameter) -> torch.Tensor:
    if parameter.grad is None:
        raise RuntimeError("Muon needs a gradient for every parameter it was given")
    return parameter.grad
