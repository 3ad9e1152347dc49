"""Reward heads must give a usable reward and gradient: a dead head once trained policies on nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flowmbpo.models.diagnostics import correlation
from flowmbpo.models.heads import Continuation, Head, ScalarReward, TwoHotReward, symexp, symlog
from tests.models.small_networks import SMALL, on_simplex

REWARD_HEADS: list[Callable[..., Head]] = [ScalarReward, TwoHotReward]


def true_reward(z: Tensor, action: Tensor) -> Tensor:
    """Smooth, with values and spread like the Ant's."""
    return 2.9 + 3 * (z[..., 0] - z[..., 9]) + 1.2 * action[..., 0] - 0.6 * action.square().sum(-1)


def train(head: Head, updates: int = 600) -> None:
    optimiser = torch.optim.Adam(head.parameters(), lr=2e-3)
    for _ in range(updates):
        z, action = on_simplex(256, 32), torch.rand(256, 3) * 2 - 1
        loss, _ = head.loss(z, action, true_reward(z, action))
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()


def action_gradient(reward: Callable[[Tensor, Tensor], Tensor], z: Tensor, action: Tensor) -> Tensor:
    action = action.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reward(z, action).sum(), action)
    return gradient


@pytest.mark.parametrize("kind", REWARD_HEADS)
def test_reward_and_its_gradient_are_learned(kind: Callable[..., Head]) -> None:
    head = kind(**SMALL)
    train(head)
    z, action = on_simplex(512, 32), torch.rand(512, 3) * 1.6 - 0.8
    predicted, real = head(z, action).detach(), true_reward(z, action)
    assert correlation(predicted, real) > 0.97
    assert (predicted - real).mean().abs() < 0.1
    found, true = action_gradient(head, z, action), action_gradient(true_reward, z, action)
    assert found.norm(dim=-1).min() > 0  # alive at every single sample
    assert correlation(found, true) > 0.9
    assert found.norm() / true.norm() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("kind", REWARD_HEADS)
def test_an_untrained_head_predicts_zero_and_can_learn(kind: Callable[..., Head]) -> None:
    head = kind(**SMALL)
    z, action = on_simplex(8, 32), torch.randn(8, 3)
    torch.testing.assert_close(head(z, action), torch.zeros(8), atol=1e-5, rtol=0)
    loss, predicted = head.loss(z, action, torch.full((8,), 2.0))
    assert loss.shape == predicted.shape == (8,)
    assert not predicted.requires_grad
    loss.mean().backward()
    assert head.last.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", REWARD_HEADS)
def test_bfloat16_rounds_the_network_but_not_the_decoding(kind: Callable[..., Head]) -> None:
    head = kind(**SMALL)
    torch.nn.init.normal_(head.last.weight, std=0.1)
    z, action, target = on_simplex(64, 32), torch.randn(64, 3), torch.randn(64)
    exact, _ = head.loss(z, action, target)
    with torch.autocast("cpu", torch.bfloat16):
        loss, predicted = head.loss(z, action, target)
    assert loss.dtype == predicted.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.1, atol=0.05)
    torch.testing.assert_close(predicted, head(z, action), rtol=0.1, atol=0.05)


def test_scalar_loss_is_the_squared_error() -> None:
    head = ScalarReward(**SMALL)
    torch.testing.assert_close(
        head.raw_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([2.0, -1.0])), torch.tensor([1.0, 16.0])
    )


def test_two_hot_target_decodes_to_the_reward_it_came_from() -> None:
    # At the minimum of the cross-entropy the distribution is the target, so its decoding must be the reward.
    head = TwoHotReward(**SMALL)
    rewards = torch.tensor([-30.0, -1.3, 0.0, 0.01, 2.88, 11.0, 21_000.0])
    raw = torch.zeros(len(rewards), 101, requires_grad=True)
    optimiser = torch.optim.LBFGS([raw], max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = head.raw_loss(raw, rewards).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(head.decode(raw.detach()), rewards, rtol=2e-2, atol=2e-3)


def test_two_hot_cross_entropy_by_hand() -> None:
    head = TwoHotReward(
        latent_dim=8, action_dim=1, units=(4,), activation="mish", bins=5, limit=2.0
    )  # bins -2, -1, 0, 1, 2
    raw = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]])
    log_p = raw.log_softmax(-1)[0]
    quarter = symexp(torch.tensor([0.25]))  # three quarters on bin 0, one on bin 1
    torch.testing.assert_close(head.raw_loss(raw, quarter)[0], -(0.75 * log_p[2] + 0.25 * log_p[3]))
    beyond = torch.tensor([1e6])
    torch.testing.assert_close(head.raw_loss(raw, beyond)[0], -log_p[4])
    torch.testing.assert_close(head.raw_loss(raw, -beyond)[0], -log_p[0])


def test_symlog_and_symexp_are_inverse() -> None:
    x = torch.tensor([-500.0, -1.0, -1e-4, 0.0, 1e-4, 3.0, 1e4])
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-4, atol=1e-6)
    assert symlog(torch.tensor(torch.e - 1)).item() == pytest.approx(1.0)


def test_continuation_learns_a_probability() -> None:
    head = Continuation(**SMALL)
    optimiser = torch.optim.Adam(head.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(2)
    for _ in range(500):
        z, action = on_simplex(256, 32), torch.randn(256, 3)
        chance = torch.where(z[:, 0] > 0.3, 0.9, 0.2)
        loss, _ = head.loss(z, action, torch.bernoulli(chance, generator=generator))
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    z, action = on_simplex(2048, 32), torch.randn(2048, 3)
    with torch.no_grad():
        probability = head(z, action)
    assert probability[z[:, 0] > 0.5].mean().item() == pytest.approx(0.9, abs=0.07)
    assert probability[z[:, 0] < 0.1].mean().item() == pytest.approx(0.2, abs=0.07)
