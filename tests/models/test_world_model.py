"""The autoregressive loss against a plain re-computation, its gradients, its options."""

from __future__ import annotations

import copy

import pytest
import torch
from small_networks import every_dynamics, flow, mlp, small_world_model
from torch import nn

from flowmbpo.models.averaging import update_average_
from flowmbpo.models.dynamics import Dynamics, MLPDynamics
from flowmbpo.models.heads import ScalarReward
from flowmbpo.models.world_model import WorldModel

KINDS = range(len(every_dynamics()))
GAMMA = 0.9


def batch(steps: int = 4, size: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """obs `[T + 1, B, 5]`, actions `[T, B, 3]`, rewards `[T, B]`."""
    return torch.randn(steps + 1, size, 5), torch.randn(steps, size, 3), torch.randn(steps, size)


def test_loss_is_the_published_sum_step_by_step() -> None:
    model = small_world_model(mlp())
    nn.init.normal_(model.reward_head.last.weight)
    obs, actions, rewards = batch()
    total, parts = model.loss(obs, actions, rewards, discount=GAMMA)

    z = model.encode(obs[0])
    dynamics_loss = reward_loss = 0.0
    for t in range(4):
        reward_error = (model.reward(z, actions[t]) - rewards[t]) ** 2
        z = model.next(z, actions[t])
        latent_error = ((z - model.encode(obs[t + 1])) ** 2).mean(-1)
        dynamics_loss += GAMMA**t * latent_error.mean() / 4
        reward_loss += GAMMA**t * reward_error.mean() / 4 / 4
    torch.testing.assert_close(parts["dynamics_loss"], dynamics_loss.detach())
    torch.testing.assert_close(parts["reward_loss"], reward_loss.detach())
    torch.testing.assert_close(total, dynamics_loss + reward_loss)
    assert all(not part.requires_grad and part.ndim == 0 for part in parts.values())


def test_flow_loss_is_evaluated_at_the_models_own_latents() -> None:
    model = small_world_model(flow("linear", tau_sampling="midpoint"))
    obs, actions, rewards = batch()
    _, parts = model.loss(obs, actions, rewards, discount=GAMMA)
    z, expected = model.encode(obs[0]), 0.0
    for t in range(4):
        expected += GAMMA**t * model.dynamics.loss(z, actions[t], model.encode(obs[t + 1])).mean() / 4
        z = model.next(z, actions[t])
    torch.testing.assert_close(parts["dynamics_loss"], expected.detach())


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_receives_a_gradient_and_one_update_helps(kind: int) -> None:
    model = small_world_model(every_dynamics()[kind], continuation=True)
    obs, actions, rewards = batch()
    terminated = torch.zeros(4, 6, dtype=torch.bool)
    terminated[-1, 0] = True
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        total, parts = model.loss(
            obs,
            actions,
            rewards,
            discount=GAMMA,
            terminated=terminated,
            generator=torch.Generator().manual_seed(1),
        )
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(total.item())
    assert {"dynamics_loss", "reward_loss", "continuation_loss", "reward_correlation"} == set(parts)
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    assert losses[-1] < 0.8 * losses[0]


def test_targets_carry_no_gradient() -> None:
    model = small_world_model(mlp())
    obs, actions, rewards = batch()
    obs.requires_grad_()
    total, _ = model.loss(obs, actions, rewards, discount=GAMMA)
    total.backward()
    assert obs.grad[0].any()
    assert not obs.grad[1:].any()


def test_a_target_encoder_replaces_the_models_own_and_is_not_trained() -> None:
    model = small_world_model(mlp())
    obs, actions, rewards = batch()
    same = copy.deepcopy(model.encoder)
    own, _ = model.loss(obs, actions, rewards, discount=GAMMA)
    torch.testing.assert_close(model.loss(obs, actions, rewards, discount=GAMMA, target_encoder=same)[0], own)
    other = small_world_model(mlp()).encoder
    total, _ = model.loss(obs, actions, rewards, discount=GAMMA, target_encoder=other)
    assert (total - own).abs() > 1e-6
    total.backward()
    assert all(p.grad is None for p in other.parameters())


def test_a_continuation_head_asks_for_terminated() -> None:
    model = small_world_model(mlp(), continuation=True)
    with pytest.raises(ValueError, match="terminated"):
        model.loss(*batch(), discount=GAMMA)
    probability = model.continuation(torch.rand(7, 32), torch.rand(7, 3))
    torch.testing.assert_close(probability, torch.full((7,), 0.5))
    without = small_world_model(mlp())
    assert torch.equal(without.continuation(torch.rand(7, 32), torch.rand(7, 3)), torch.ones(7))


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_finite_close_and_keeps_latents_in_float32(kind: int) -> None:
    model = small_world_model(every_dynamics()[kind], continuation=True)
    obs, actions, rewards = batch()

    def run() -> torch.Tensor:
        return model.loss(
            obs,
            actions,
            rewards,
            discount=GAMMA,
            terminated=torch.zeros(4, 6),
            generator=torch.Generator().manual_seed(1),
        )[0]

    exact = run()
    with torch.autocast("cpu", torch.bfloat16):
        rough = run()
        z = model.encode(obs)
        assert z.dtype == model.next(z[0], actions[0]).dtype == model.reward(z[0], actions[0]).dtype == torch.float32
    rough.backward()
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=1e-3)
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_unroll_is_next_again_and_again(kind: int) -> None:
    dynamics: Dynamics = every_dynamics()[kind]
    model = small_world_model(dynamics)
    z, actions = model.encode(torch.randn(6, 5)), torch.randn(3, 6, 3)
    one, two = dynamics.next(z, actions[0]), dynamics.next(dynamics.next(z, actions[0]), actions[1])
    torch.testing.assert_close(model.unroll(z, actions)[:2], torch.stack((one, two)))


def test_the_latent_may_be_the_observation_itself() -> None:
    sizes = {"latent_dim": 5, "action_dim": 3, "units": (48,), "activation": "silu"}
    model = WorldModel(
        encoder=nn.Identity(),
        dynamics=MLPDynamics(**sizes, simnorm_dim=None, residual=True),
        reward_head=ScalarReward(**sizes),
    )
    obs, actions, rewards = batch()
    assert torch.equal(model.encode(obs), obs)
    _, parts = model.loss(obs, actions, rewards, discount=1.0)
    predicted = model.unroll(obs[0], actions)
    torch.testing.assert_close(parts["dynamics_loss"], (predicted - obs[1:]).square().mean())
    update_average_(copy.deepcopy(model.encoder), model.encoder, 0.1)  # nothing to average


def test_moving_average() -> None:
    source, average = nn.Linear(3, 2), nn.Linear(3, 2)
    expected = 0.9 * average.weight.detach().clone() + 0.1 * source.weight.detach()
    update_average_(average, source, 0.1)
    torch.testing.assert_close(average.weight.detach(), expected)
