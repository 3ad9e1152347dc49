"""The autoregressive loss against a plain re-computation, its gradients, its options."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from flowmbpo.models.averaging import update_average_
from flowmbpo.models.dynamics import Dynamics, MLPDynamics
from flowmbpo.models.heads import ScalarReward
from flowmbpo.models.world_model import WorldModel
from tests.models.small_networks import every_dynamics, flow, mlp, small_world_model

KINDS = range(len(every_dynamics()))
GAMMA = 0.9
WEIGHTS = {"reward_weight": 0.25, "decoder_weight": 0.5}


def batch(steps: int = 4, size: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """obs `[T + 1, B, 5]`, actions `[T, B, 3]`, rewards `[T, B]`."""
    return torch.randn(steps + 1, size, 5), torch.randn(steps, size, 3), torch.randn(steps, size)


def test_loss_is_the_published_sum_step_by_step() -> None:
    model = small_world_model(mlp())
    nn.init.normal_(model.reward_head.last.weight)
    obs, actions, rewards = batch()
    total, parts = model.loss(obs, actions, rewards, discount=GAMMA, **WEIGHTS)

    z = model.encode(obs[0])
    dynamics_loss = reward_loss = 0.0
    for t in range(4):
        reward_error = (model.reward(z, actions[t]) - rewards[t]) ** 2
        z = model.next(z, actions[t])
        latent_error = ((z - model.encode(obs[t + 1])) ** 2).mean(-1)
        dynamics_loss += GAMMA**t * latent_error.mean() / 4
        reward_loss += WEIGHTS["reward_weight"] * GAMMA**t * reward_error.mean() / 4
    torch.testing.assert_close(parts["dynamics_loss"], dynamics_loss.detach())
    torch.testing.assert_close(parts["reward_loss"], reward_loss.detach())
    torch.testing.assert_close(total, dynamics_loss + reward_loss)
    assert all(not part.requires_grad and part.ndim == 0 for part in parts.values())


def test_flow_loss_is_evaluated_at_the_models_own_latents() -> None:
    model = small_world_model(flow("linear", tau_sampling="midpoint"))
    obs, actions, rewards = batch()
    _, parts = model.loss(obs, actions, rewards, discount=GAMMA, **WEIGHTS)
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
            **WEIGHTS,
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
    total, _ = model.loss(obs, actions, rewards, discount=GAMMA, **WEIGHTS)
    total.backward()
    assert obs.grad[0].any()
    assert not obs.grad[1:].any()


def test_the_rewards_weight_does_not_depend_on_the_length_of_a_sequence() -> None:
    model = small_world_model(mlp())  # its untrained reward head says 0 everywhere
    for steps in (1, 4, 16):
        obs, actions, _ = batch(steps)
        _, parts = model.loss(obs, actions, torch.full((steps, 6), 2.0), discount=1.0, **WEIGHTS)
        assert parts["reward_loss"].item() == pytest.approx(WEIGHTS["reward_weight"] * 4.0)


def test_an_untrained_head_predicts_the_offset_and_learns_what_is_beside_it() -> None:
    model = small_world_model(mlp())
    model.reward_offset.fill_(5.0)
    obs, actions, rewards = batch()
    assert torch.equal(model.reward(model.encode(obs[0]), actions[0]), torch.full((6,), 5.0))
    _, parts = model.loss(obs, actions, 5.0 + rewards, discount=1.0, **WEIGHTS | {"reward_weight": 1.0})
    torch.testing.assert_close(parts["reward_loss"], rewards.square().mean())
    assert "reward_offset" not in model.state_dict()  # its owner knows it again


def test_the_decoder_is_judged_on_the_encoded_and_all_predicted_states() -> None:
    model = small_world_model(flow("endpoint"), decoder=True)
    obs, actions, rewards = batch()
    total, parts = model.loss(
        obs, actions, rewards, discount=GAMMA, **WEIGHTS, generator=torch.Generator().manual_seed(1)
    )
    z = model.encode(obs[0])
    expected = 0.5 * (model.decoder(z) - obs[0]).square().mean() / 5
    for t in range(4):
        z = model.next(z, actions[t])
        expected = expected + 0.5 * GAMMA ** (t + 1) * (model.decoder(z) - obs[t + 1]).square().mean() / 5
    torch.testing.assert_close(parts["decoder_loss"], expected.detach())
    torch.testing.assert_close(total, sum(parts[name] for name in ("dynamics_loss", "reward_loss", "decoder_loss")))
    total.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.decoder.parameters())


def test_a_flow_that_learns_from_its_velocity_does_not_integrate_the_last_step() -> None:
    obs, actions, rewards = batch()
    for objective, decoder, steps in (("matching", False, 3), ("matching", True, 4), ("both", False, 4)):
        model = small_world_model(flow("endpoint", substeps=1, objective=objective), decoder=decoder)
        calls: list[object] = []
        model.dynamics.velocity.register_forward_hook(lambda *_, calls=calls: calls.append(_))
        model.loss(obs, actions, rewards, discount=GAMMA, **WEIGHTS)
        assert len(calls) == 2 * steps + 1


def test_a_continuation_head_asks_for_terminated() -> None:
    model = small_world_model(mlp(), continuation=True)
    with pytest.raises(ValueError, match="terminated"):
        model.loss(*batch(), discount=GAMMA, **WEIGHTS)
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
            **WEIGHTS,
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
    _, parts = model.loss(obs, actions, rewards, discount=1.0, **WEIGHTS)
    predicted = model.unroll(obs[0], actions)
    torch.testing.assert_close(parts["dynamics_loss"], (predicted - obs[1:]).square().mean())
    update_average_(copy.deepcopy(model.encoder), model.encoder, 0.1)  # nothing to average


def test_moving_average() -> None:
    source, average = nn.Linear(3, 2), nn.Linear(3, 2)
    expected = 0.9 * average.weight.detach().clone() + 0.1 * source.weight.detach()
    update_average_(average, source, 0.1)
    torch.testing.assert_close(average.weight.detach(), expected)
