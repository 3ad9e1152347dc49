"""The networks differentiated by hand do what autograd does with the modules, bit for bit."""

from __future__ import annotations

import pytest
import torch

from flowmbpo.models import actor as actor_module
from flowmbpo.models import critic as critic_module
from flowmbpo.models.actor import Actor
from flowmbpo.models.critic import Critic


@pytest.fixture
def modules_only(monkeypatch):
    def switch() -> None:
        for module in (actor_module, critic_module):
            monkeypatch.setattr(module, "worth_it", lambda *_: False)

    return switch


def networks(activation: str):
    sizes = {"latent_dim": 37, "activation": activation}
    actor = Actor(action_dim=8, units=(128, 64), log_std_init=-1.0, log_std_min=-5.0, **sizes)
    one = Critic(units=(64, 64), ensemble=1, **sizes)
    return ((actor, actor.mean_before_tanh), (one, one.values))


@pytest.mark.parametrize("activation", ["silu", "elu", "mish"])
@pytest.mark.parametrize("trained", [True, False])
def test_values_and_gradients_are_those_of_the_modules(modules_only, activation, trained):
    torch.manual_seed(0)
    z = torch.randn(5, 48, 37)
    found = []
    both = networks(activation)
    for network, _ in both:
        network.requires_grad_(trained)
        for parameter in network.parameters():  # no LayerNorm's scale is 1 and no shift 0
            parameter.data += 0.1 * torch.randn_like(parameter)
    for switch in (lambda: None, modules_only):
        switch()
        for network, function in both:
            given = z.clone().requires_grad_()
            value = function(given)
            weights = [p for name, p in network.named_parameters() if trained and name != "log_std_parameter"]
            found.append([value, *torch.autograd.grad(value.square().sum(), [given, *weights])])
    for by_hand, autograd in zip(found[:2], found[2:], strict=True):
        assert len(by_hand) == (12 if trained else 2)
        assert all(torch.equal(a, b) for a, b in zip(by_hand, autograd, strict=True))


def test_a_gradient_goes_back_through_the_actor_without_a_graph():
    (actor, _), _ = networks("silu")
    z = torch.randn(16, 37, requires_grad=True)
    mean, pull_back = actor.linearized(z.detach())
    given = torch.randn_like(mean)
    expected = actor.mean_before_tanh(z)
    assert torch.equal(mean, expected)
    assert torch.equal(pull_back(given), torch.autograd.grad(expected, z, given)[0])
