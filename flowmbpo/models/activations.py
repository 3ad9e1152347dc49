"""Activations by name, and SimNorm's group softmax; on a CPU written out in vectorised operations.

Torch's own CPU kernels are not vectorised for two of them: `F.mish` costs 9 times a SiLU, and a softmax over 8
consecutive features 9 times an exp, a sum and a division. On a GPU torch's fused kernels are used. Not here: layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Activation = Callable[[Tensor], Tensor]

EXP_LIMIT = 30.0
"""exp is taken of arguments up to this size: beyond it Mish is the identity to float64 precision, nothing overflows."""


MISH_BLOCK = 65_536
"""Elements that Mish takes at a time and thread: so much scratch stays in a core's cache, a layer's does not."""


def mish(x: Tensor) -> Tensor:
    """x tanh(softplus(x)), any shape (Misra, arXiv 1908.08681)."""
    if not x.is_cpu:
        return F.mish(x)
    if x.dtype is torch.bfloat16:
        return mish(x.float()).to(x.dtype)  # one rounding instead of five
    if torch.is_grad_enabled() and x.requires_grad:
        return _Mish.apply(x)
    e = x.clamp(max=EXP_LIMIT).exp_()
    n = e.mul_(e + 2)
    return (x * n).div_(n + 2)


class _Mish(torch.autograd.Function):
    """With e = exp(x), n = e (e + 2): y = x n / (n + 2), dy/dx = n / (n + 2) + 4 x e (e + 1) / (n + 2)^2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y, slope = torch.empty_like(x), torch.empty_like(x)
        block = min(x.numel(), MISH_BLOCK * torch.get_num_threads())
        scratch = x.new_empty(3, block)
        parts = (tensor.view(-1).split(max(1, block)) for tensor in (x, y, slope))
        for x_part, y_part, slope_part in zip(*parts, strict=True):
            e, n, r = scratch[:, : len(x_part)]
            torch.clamp(x_part, max=EXP_LIMIT, out=e).exp_()
            torch.add(e, 2, out=n).mul_(e)
            torch.add(n, 2, out=r).reciprocal_()
            gate = torch.mul(n, r, out=y_part)
            # The slope is cheaper now, while e and r are at hand, than a second exp in the backward pass.
            torch.addcmul(e, e, e, out=n).mul_(r).mul_(r).mul_(x_part)
            torch.add(gate, n, alpha=4, out=slope_part)
            gate.mul_(x_part)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return grad * slope


def group_softmax(x: Tensor, group: int) -> Tensor:
    """Softmax over each `group` of consecutive features: `[..., Z]` -> `[..., Z]`."""
    if x.is_cpu:
        return _GroupSoftmax.apply(x, group)
    return x.unflatten(-1, (-1, group)).softmax(-1).flatten(-2)


class _GroupSoftmax(torch.autograd.Function):
    """exp over sum, without subtracting the maximum: the clamp already excludes an overflow and an empty sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: int) -> Tensor:
        e = x.clamp(-80.0, 80.0).exp_().unflatten(-1, (-1, group))
        y = e.div_(e.sum(-1, keepdim=True))
        ctx.save_for_backward(y)
        return y.flatten(-2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        gy = grad.unflatten(-1, y.shape[-2:]) * y
        return torch.addcmul(gy, y, gy.sum(-1, keepdim=True), value=-1).flatten(-2), None


ACTIVATIONS: dict[str, Activation] = {"mish": mish, "silu": F.silu}


def find_activation(name: str) -> Activation:
    """The activation called `name`; ValueError names the ones there are."""
    try:
        return ACTIVATIONS[name]
    except KeyError:
        raise ValueError(f"unknown activation {name!r}; allowed: {', '.join(ACTIVATIONS)}") from None
