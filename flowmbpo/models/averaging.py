"""Exponential moving average of a network's weights, for slowly moving targets."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def update_average_(average: nn.Module, source: nn.Module, rate: float) -> None:
    """average <- average + rate (source - average), over all parameters in one fused operation."""
    torch._foreach_lerp_(list(average.parameters()), list(source.parameters()), rate)
