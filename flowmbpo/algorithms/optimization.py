"""One optimiser step that refuses what is not finite, the learning-rate schedule, the precision of forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from flowmbpo.data_types import State


class GuardedAdam:
    """Adam with gradient-norm clipping; a step whose loss or gradient is not finite is not applied but counted.

    The refusal happens inside Torch's fused kernel (`found_inf`, which loss scaling uses), so the host never waits for
    it. The kernel is called directly, because `torch.optim` imports Torch's compiler: a second at every start.
    """

    def __init__(
        self, parameters: list[nn.Parameter], *, learning_rate: float, betas: tuple[float, float], grad_norm: float
    ) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.initial_rate = self.learning_rate = learning_rate
        self.betas = betas
        self.grad_norm = grad_norm
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]
        self._steps = torch.zeros((), device=parameters[0].device)  # float32, as the kernel wants it
        self.refused = torch.zeros((), dtype=torch.long, device=parameters[0].device)

    def step(self, loss: Tensor) -> Tensor:
        """Descend `loss` (a scalar with a graph) by one step; returns the gradient's norm before clipping, detached.

        Raises ValueError, with nothing changed, for a parameter that has no part in the loss.
        """
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if len(gradients) < len(self.parameters):
            raise ValueError(f"{len(self.parameters) - len(gradients)} parameters have no part in the loss")
        return self.descend(gradients, loss)

    @torch.no_grad()
    def descend(self, gradients: list[Tensor], loss: Tensor) -> Tensor:
        """`step` with the gradients of `loss` by hand, one of each parameter and overwritten here."""
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        total = norm + loss
        bad = total - total != 0  # a difference of infinities is not a number, which differs from everything
        self._steps += ~bad
        self.refused += bad
        self._apply(gradients, bad, (norm / self.grad_norm).clamp_min(1.0))
        return norm

    def _apply(self, gradients: list[Tensor], refused: Tensor, divisor: Tensor) -> None:
        torch._fused_adam_(
            self.parameters,
            gradients,
            self._means,
            self._squares,
            [],
            [self._steps] * len(self.parameters),
            lr=self.learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
            found_inf=refused.float(),
            grad_scale=divisor,
        )

    def state_dict(self) -> State:
        return {"means": self._means, "squares": self._squares, "steps": self._steps, "refused": self.refused}

    def load_state_dict(self, state: State) -> None:
        for own, saved in ((self._means, state["means"]), (self._squares, state["squares"])):
            for tensor, value in zip(own, saved, strict=True):
                tensor.copy_(value)
        self._steps.copy_(state["steps"])
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


def autocast(precision: Literal["float32", "bfloat16"], device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass on `device` in this precision."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, torch.bfloat16)
