"""Exponential moving average of a network's weights, for slowly moving targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_average_(average: nn.Module, source: nn.Module, rate: float) -> None:
    """average <- average + rate (source - average), over all parameters in one fused operation."""
    weights: list[Tensor] = list(average.parameters())
    if weights:
        torch._foreach_lerp_(weights, [*source.parameters()], rate)
