"""Linear -> activation -> LayerNorm, repeated, and a last linear layer, differentiated by hand.

Values and gradients are bit for bit those of the modules. A small network is mostly bookkeeping: as one node of
autograd instead of seven a layer it takes little more than half the time. Not here: weights and their initialisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from flowmbpo.models.activations import Activation, linearized

EPS = 1e-5  # of every LayerNorm

Gradients = Callable[[Tensor, Sequence[bool]], list[Tensor | None]]
"""Gradient with respect to the output, and which are needed -> those with respect to the input and each parameter."""

_norm_backward = torch.ops.aten.native_layer_norm_backward.default


def chain(x: Tensor, activation: Activation, parameters: Sequence[Tensor]) -> Tensor:
    """`[N, in]` -> `[N, out]`. parameters: weight, bias, LayerNorm's scale and shift of each layer, weight and bias of
    the last; a weight is `[out, in]` or, of an ensemble of one, `[1, in, out]`."""
    result: Tensor = _Chain.apply(x, activation, *parameters)
    return result


def worth_it(x: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Whether there will be a graph that this can replace."""
    return torch.is_grad_enabled() and (x.requires_grad or parameters[0].requires_grad) and not under_autocast(x)


def under_autocast(x: Tensor) -> bool:
    """Whether autocast picks the type of each operation on `x`, which is not repeated here."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def run(x: Tensor, activation: Activation, parameters: Sequence[Tensor]) -> tuple[Tensor, Gradients]:
    """The output as of `chain`, and its gradients."""
    layers = []
    for weight, bias, scale, shift in zip(*(parameters[k:-2:4] for k in range(4)), strict=True):
        matrix, scale, shift = _matrix(weight), scale.view(-1), shift.view(-1)
        active, pull_back = linearized(activation, torch.addmm(bias.view(-1), x, matrix))
        y, mean, rstd = torch.native_layer_norm(active, scale.shape, scale, shift, EPS)
        layers.append((x, matrix, pull_back, (active, scale.shape, mean, rstd, scale, shift)))
        x = y
    last = _matrix(parameters[-2])

    def gradients(d: Tensor, needed: Sequence[bool]) -> list[Tensor | None]:
        found = [_of_bias(d, needed[-1], parameters[-1]), _of_weight(d, x, needed[-2], parameters[-2])]
        of_input = d @ last.t() if layers or needed[0] else None
        for index in reversed(range(len(layers))):
            entered, matrix, pull_back, norm = layers[index]
            weight, bias, scale, shift = range(4 * index, 4 * index + 4)
            d, of_scale, of_shift = _norm_backward(of_input, *norm, [True, needed[scale + 1], needed[shift + 1]])
            d = pull_back(d)
            found += [_shaped(of_shift, parameters[shift]), _shaped(of_scale, parameters[scale])]
            found.append(_of_bias(d, needed[bias + 1], parameters[bias]))
            found.append(_of_weight(d, entered, needed[weight + 1], parameters[weight]))
            of_input = d @ matrix.t() if index or needed[0] else None
        return [of_input, *reversed(found)]

    return torch.addmm(parameters[-1].view(-1), x, last), gradients


def _matrix(weight: Tensor) -> Tensor:
    """`[in, out]`."""
    return weight[0] if weight.ndim == 3 else weight.t()


def _of_weight(d: Tensor, x: Tensor, needed: bool, weight: Tensor) -> Tensor | None:
    if not needed:
        return None
    return (x.t() @ d).unsqueeze(0) if weight.ndim == 3 else d.t() @ x


def _of_bias(d: Tensor, needed: bool, bias: Tensor) -> Tensor | None:
    return _shaped(d.sum(0), bias) if needed else None


def _shaped(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    return None if gradient is None else gradient.view(parameter.shape)


class _Backward(FunctionCtx):
    gradients: Gradients
    needs_input_grad: tuple[bool, ...]


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Backward, x: Tensor, activation: Activation, *parameters: Tensor) -> Tensor:
        result, ctx.gradients = run(x, activation, parameters)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _Backward, d: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad
        of_input, *rest = ctx.gradients(d.contiguous(), (needed[0], *needed[2:]))
        return of_input, None, *rest
