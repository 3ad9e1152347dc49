"""One optimiser step that refuses what is not finite, and the learning-rate schedule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn


class GuardedAdam:
    """Adam with gradient-norm clipping; a step whose loss or gradient is not finite is not applied but counted.

    The refusal happens inside the fused kernel (`found_inf`, what loss scaling uses), so the host never waits for it.
    """

    def __init__(
        self, parameters: list[nn.Parameter], *, learning_rate: float, betas: tuple[float, float], grad_norm: float
    ) -> None:
        self.parameters = parameters
        self.initial_rate = learning_rate
        self.grad_norm = grad_norm
        self._adam = torch.optim.Adam(parameters, lr=learning_rate, betas=betas, fused=True)
        self.refused = torch.zeros((), dtype=torch.long, device=parameters[0].device)

    @property
    def learning_rate(self) -> float:
        return float(self._adam.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._adam.param_groups[0]["lr"] = rate

    def step(self, loss: Tensor) -> Tensor:
        """Descend `loss` (a scalar with a graph) by one step; returns the gradient's norm before clipping, detached."""
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.grad_norm)
        bad = ~(torch.isfinite(norm) & torch.isfinite(loss.detach()))
        self._adam.found_inf = bad.float()  # type: ignore[attr-defined]
        self._adam.grad_scale = None  # type: ignore[attr-defined]
        self._adam.step()
        self.refused += bad
        return norm.detach()

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self._adam.state_dict(), "refused": self.refused}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adam.load_state_dict(state["adam"])
        self.refused.copy_(state["refused"])


def scheduled_rate(initial: float, final: float, progress: float, schedule: Literal["linear", "constant"]) -> float:
    """Learning rate at `progress` in [0, 1] of the run; a linear schedule never rises above `initial`."""
    if schedule == "constant":
        return initial
    return initial + (min(final, initial) - initial) * min(progress, 1.0)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Gradients flow through these networks but not into their weights."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
