"""Activations by name, and SimNorm's group softmax; on a CPU written out in vectorised operations.

Torch's own CPU kernels are not vectorised for two of them: `F.mish` costs 9 times a SiLU, and a softmax over 8
consecutive features 9 times an exp, a sum and a division. On a GPU torch's fused kernels are used. Not here: layers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

Activation = Callable[[Tensor], Tensor]

MISH_BLOCK = 262_144
"""Elements that Mish takes at a time and thread: scratch of a whole layer would leave the cache."""


def mish(x: Tensor) -> Tensor:
    """x tanh(softplus(x)), any shape (Misra, arXiv 1908.08681)."""
    if not x.is_cpu:
        return F.mish(x)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Mish.apply(x)
    s = x.to(torch.promote_types(x.dtype, torch.float32)).sigmoid()
    n = torch.addcmul(s, s, 1 - s)
    return n.div_(2 - n).mul_(x).to(x.dtype)


class Saved(FunctionCtx):
    """What Torch hands from a function's forward to its backward pass."""

    saved_tensors: tuple[Tensor]


class _Mish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Saved, x: Tensor) -> Tensor:
        y, slope = _mish_and_slope(x)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Saved, grad: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return grad * slope


def _mish_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mish and its slope, block by block; half types are computed in float32 and rounded once."""
    x = x.contiguous()
    y, slope = torch.empty_like(x), torch.empty_like(x)
    wide = torch.promote_types(x.dtype, torch.float32)
    block = min(x.numel(), MISH_BLOCK * torch.get_num_threads())
    scratch = x.new_empty(3 if x.dtype is wide else 5, block, dtype=wide)
    parts = (tensor.view(-1).split(max(1, block)) for tensor in (x, y, slope))
    for x_part, y_part, slope_part in zip(*parts, strict=True):
        s, q, d, *own = scratch[:, : len(x_part)]
        if x.dtype is wide:
            _mish_with_slope(x_part, y_part, slope_part, s, q, d)
        else:
            wide_x, wide_y = own
            _mish_with_slope(wide_x.copy_(x_part), wide_y, q, s, q, d)
            y_part.copy_(wide_y)
            slope_part.copy_(q)
    return y, slope


def _mish_with_slope(x: Tensor, y: Tensor, slope: Tensor, s: Tensor, q: Tensor, d: Tensor) -> None:
    """Into y and slope (which may be q); s, q and d are scratch, all of one length and type.

    With s = sigmoid(x), q = 1 - s and n = s + s q: y = x n / (2 - n), dy/dx = n / (2 - n) + 4 x s q^2 / (2 - n)^2.
    Nothing overflows, y keeps its digits on both sides, and a sigmoid costs half of an exp.
    """
    torch.sigmoid(x, out=s)
    torch.sub(1, s, out=q)
    n = torch.addcmul(s, s, q, out=y)
    torch.sub(2, n, out=d)
    gate = n.div_(d)
    # The slope is cheaper now, while s and q are at hand, than a second sigmoid in the backward pass.
    q.div_(d).square_()
    torch.addcmul(gate, q, s.mul_(x), value=4, out=slope)
    gate.mul_(x)


def group_softmax(x: Tensor, group: int) -> Tensor:
    """Softmax over each `group` of consecutive features: `[..., Z]` -> `[..., Z]`."""
    if x.is_cpu:
        return _GroupSoftmax.apply(x, group)
    return x.unflatten(-1, (-1, group)).softmax(-1).flatten(-2)


class _GroupSoftmax(torch.autograd.Function):
    """exp over sum, without subtracting the maximum: the clamp already excludes an overflow and an empty sum."""

    @staticmethod
    def forward(ctx: Saved, x: Tensor, group: int) -> Tensor:
        e = x.clamp(-80.0, 80.0).exp_().unflatten(-1, (-1, group))
        y = e.div_(e.sum(-1, keepdim=True))
        ctx.save_for_backward(y)
        return y.flatten(-2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Saved, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        gy = grad.unflatten(-1, y.shape[-2:]) * y
        return torch.addcmul(gy, y, gy.sum(-1, keepdim=True), value=-1).flatten(-2), None


ACTIVATIONS: dict[str, Activation] = {"mish": mish, "silu": F.silu, "elu": F.elu}


def linearized(activation: Activation, x: Tensor) -> tuple[Tensor, Activation]:
    """Its value, and the gradient with respect to `x` as a function of the one with respect to that value."""
    if activation is F.silu:
        return F.silu(x), lambda gradient: torch.ops.aten.silu_backward.default(gradient, x)
    if activation is F.elu:
        return F.elu(x), lambda gradient: torch.ops.aten.elu_backward.default(gradient, 1.0, 1.0, 1.0, False, x)
    assert activation is mish
    if not x.is_cpu:
        return F.mish(x), lambda gradient: torch.ops.aten.mish_backward.default(gradient, x)
    y, slope = _mish_and_slope(x)
    return y, slope.mul


def find_activation(name: str) -> Activation:
    """The activation called `name`; ValueError names the ones there are."""
    try:
        return ACTIVATIONS[name]
    except KeyError:
        raise ValueError(f"unknown activation {name!r}; allowed: {', '.join(ACTIVATIONS)}") from None
