"""The written-out CPU activations against torch's own, in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from flowmbpo.models import activations
from flowmbpo.models.activations import find_activation, group_softmax, mish

GRID = torch.cat((torch.linspace(-200, 200, 2001), torch.linspace(-4, 4, 2001)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mish_is_torchs_mish(dtype: torch.dtype) -> None:
    mine, theirs = GRID.to(dtype, copy=True).requires_grad_(), GRID.double().requires_grad_()
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(mish(mine).double(), F.mish(theirs), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(mish(mine.detach()).double(), F.mish(theirs), rtol=tolerance, atol=tolerance)
    mish(mine).sum().backward()
    F.mish(theirs).sum().backward()
    torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=tolerance, atol=tolerance)


def test_mish_rounds_bfloat16_once() -> None:
    x = GRID.bfloat16()
    assert mish(x).dtype == torch.bfloat16
    torch.testing.assert_close(mish(x).float(), F.mish(x.float()), rtol=2**-8, atol=1e-6)
    mine, wide = x.clone().requires_grad_(), x.float().requires_grad_()
    y = mish(mine)
    y.sum().backward()
    F.mish(wide).sum().backward()
    assert y.dtype == mine.grad.dtype == torch.bfloat16
    assert torch.equal(y, mish(x))
    torch.testing.assert_close(mine.grad.float(), wide.grad, rtol=2**-8, atol=1e-6)


def test_mish_leaves_its_input_alone() -> None:
    x = GRID.clone()
    mish(x)
    mish(x.requires_grad_()).sum().backward()
    assert torch.equal(x.detach(), GRID)


def test_group_softmax_is_a_softmax_with_its_gradient() -> None:
    x = torch.randn(3, 4, 24, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(group_softmax(x, 8), x.unflatten(-1, (3, 8)).softmax(-1).flatten(-2))
    assert torch.autograd.gradcheck(lambda x: group_softmax(x, 8), (x,))


def test_a_second_derivative_is_refused_instead_of_wrong() -> None:
    x = torch.randn(8, requires_grad=True)
    for function in (mish, lambda x: group_softmax(x, 8)):
        (first,) = torch.autograd.grad((function(x) * x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


def test_an_unknown_activation_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'relu'; allowed: mish, silu"):
        find_activation("relu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_mish_of_more_than_one_block_and_of_an_input_with_gaps(monkeypatch, dtype: torch.dtype) -> None:
    tolerance = 8 * torch.finfo(dtype).eps
    monkeypatch.setattr(activations, "MISH_BLOCK", 1000)
    x = torch.randn(3, 5007).to(dtype)[:, ::2].requires_grad_()
    assert x.numel() > 2 * 1000 * torch.get_num_threads()
    twin = x.detach().double().requires_grad_()
    torch.testing.assert_close(mish(x).double(), F.mish(twin), rtol=tolerance, atol=tolerance)
    mish(x).sum().backward()
    F.mish(twin).sum().backward()
    torch.testing.assert_close(x.grad.double(), twin.grad, rtol=tolerance, atol=tolerance)
