"""Distribution, floor, determinism and initialisation of the policy."""

from __future__ import annotations

import math

import pytest
import torch

from flowmbpo.models.actor import Actor


def small_actor(log_std_init: float = -1.0) -> Actor:
    return Actor(
        latent_dim=16, action_dim=2, units=(32, 16), activation="mish", log_std_init=log_std_init, log_std_min=-1.427
    )


def test_actions_are_tanh_of_a_gaussian_around_the_mean() -> None:
    actor = small_actor()
    torch.nn.init.normal_(actor.mean.weight, std=0.3)
    z = torch.rand(1, 16)
    actions = actor.sample(z.expand(50_000, -1), torch.Generator().manual_seed(0)).detach()
    assert actions.abs().max() < 1
    u = actions.atanh()
    torch.testing.assert_close(u.mean(0), actor.mean_action(z)[0].atanh().detach(), atol=0.01, rtol=0)
    torch.testing.assert_close(u.std(0), torch.full((2,), math.exp(-1.0)), atol=0.01, rtol=0)


def test_sampling_uses_only_the_given_generator() -> None:
    actor, z = small_actor(), torch.rand(5, 16)
    before = torch.random.get_rng_state()
    first = actor.sample(z, torch.Generator().manual_seed(4))
    assert torch.equal(first, actor.sample(z, torch.Generator().manual_seed(4)))
    assert not torch.equal(first, actor.sample(z, torch.Generator().manual_seed(5)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_sigma_has_a_floor_it_can_leave_again() -> None:
    actor = small_actor(log_std_init=-3.0)
    torch.testing.assert_close(actor.log_std, torch.full((2,), -1.427))
    (down,) = torch.autograd.grad(actor.log_std.sum(), actor.log_std_parameter)
    (up,) = torch.autograd.grad(-actor.log_std.sum(), actor.log_std_parameter)
    assert torch.equal(down, torch.zeros(2))  # a descent step would lower it further
    assert torch.equal(up, -torch.ones(2))
    entropy = actor.entropy_before_tanh().item()
    assert entropy == pytest.approx(2 * (-1.427 + 0.5 * math.log(2 * math.pi * math.e)), rel=1e-5)


def test_gradients_reach_the_latent_and_every_weight() -> None:
    actor, z = small_actor(), torch.rand(5, 16, requires_grad=True)
    actor.sample(z, torch.Generator().manual_seed(0)).sum().backward()
    assert z.grad.any()
    assert all(p.grad is not None for p in actor.parameters())


def test_bfloat16() -> None:
    actor, z = small_actor(), torch.rand(5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        action = actor.sample(z, torch.Generator().manual_seed(0))
    assert action.dtype == torch.float32
    assert action.isfinite().all()
