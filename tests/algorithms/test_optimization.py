"""Refused steps change nothing, gradients are clipped, schedules end where they should."""

import copy

import pytest
import torch
from torch import nn

from flowmbpo.algorithms.optimization import GuardedAdam, frozen, scheduled_rate


def adam(parameters, **changes):
    return GuardedAdam(parameters, **({"learning_rate": 0.1, "betas": (0.7, 0.95), "grad_norm": 1.0} | changes))


def parameter(*values):
    return nn.Parameter(torch.tensor(values))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_a_step_that_is_not_finite_is_refused_and_counted(poison):
    x = parameter(1.0, 2.0)
    optimizer = adam([x])
    optimizer.step((x**2).sum())
    weights, state = x.detach().clone(), copy.deepcopy(optimizer.state_dict())
    optimizer.step((x * poison).sum())
    assert torch.equal(x, weights)
    after = optimizer.state_dict()
    assert torch.equal(after["means"][0], state["means"][0])
    assert torch.equal(after["squares"][0], state["squares"][0])
    assert after["steps"] == state["steps"] == 1
    assert optimizer.refused == 1
    optimizer.step((x**2).sum())  # and life goes on
    assert not torch.equal(x, weights)
    assert optimizer.refused == 1


def test_it_is_torchs_adam():
    x, y = parameter(1.0, -2.0), parameter(1.0, -2.0)
    mine, theirs = adam([x], grad_norm=100.0), torch.optim.Adam([y], lr=0.1, betas=(0.7, 0.95), fused=True)
    for k in range(5):
        mine.learning_rate = theirs.param_groups[0]["lr"] = 0.1 / (k + 1)
        mine.step((x**4).sum())
        theirs.zero_grad()
        (y**4).sum().backward()
        theirs.step()
        assert torch.equal(x, y)


def test_an_infinite_loss_with_finite_gradients_is_refused():
    x = parameter(1.0)
    optimizer = adam([x])
    optimizer.step(x.sum() + float("inf"))
    assert x.item() == 1.0
    assert optimizer.refused == 1


def test_gradients_are_clipped_and_the_norm_before_is_returned():
    x = parameter(0.0, 0.0)
    optimizer = adam([x], grad_norm=0.5)
    norm = optimizer.step(3 * x[0] + 4 * x[1])
    assert norm.item() == pytest.approx(5.0)
    torch.testing.assert_close(x.grad, torch.tensor([0.3, 0.4]))


def test_a_parameter_without_a_part_in_the_loss_is_an_error_that_changes_nothing():
    x, y = parameter(1.0), parameter(2.0)
    optimizer = adam([x, y])
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match="1 parameters have no part"):
        optimizer.step(x.sum())
    assert x.item() == 1.0
    assert optimizer.state_dict()["steps"] == before["steps"]


def test_state_comes_back_exactly():
    x, y = parameter(1.0, -1.0), parameter(1.0, -1.0)
    first, second = adam([x]), adam([y])
    for _ in range(3):
        first.step((x**4).sum())
    y.data.copy_(x.data)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(3):
        first.step((x**4).sum())
        second.step((y**4).sum())
    assert torch.equal(x, y)


def test_frozen_networks_pass_gradients_on_and_keep_none():
    network = nn.Linear(2, 1)
    network.bias.requires_grad_(False)
    x = torch.ones(2, requires_grad=True)
    with frozen(network):
        network(x).sum().backward()
    assert x.grad is not None
    assert network.weight.grad is None
    assert network.weight.requires_grad
    assert not network.bias.requires_grad  # what was frozen before stays so


@pytest.mark.parametrize(
    ("progress", "schedule", "expected"),
    [
        (0.0, "linear", 5e-4),
        (0.5, "linear", 2.55e-4),
        (1.0, "linear", 1e-5),
        (1.5, "linear", 1e-5),
        (0.7, "constant", 5e-4),
    ],
)
def test_learning_rate_schedule(progress, schedule, expected):
    assert scheduled_rate(5e-4, 1e-5, progress, schedule) == pytest.approx(expected)


def test_a_final_rate_above_the_initial_one_does_not_raise_it():
    assert scheduled_rate(1e-6, 1e-5, 0.5, "linear") == 1e-6
