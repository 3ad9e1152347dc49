"""The point mass: hand-computed numbers and its best return."""

from __future__ import annotations

import pytest
import torch

from flowmbpo.envs.pointmass import PointMassEnv


def test_hand_computed_steps():
    env = PointMassEnv(1, stochastic_init=False, episode_length=3)
    torch.testing.assert_close(env.reset(), torch.tensor([[1.0, 0.0]]))
    step = env.step(torch.tensor([[-1.0]]))
    torch.testing.assert_close(step.reward, torch.tensor([0.0]))
    torch.testing.assert_close(step.obs, torch.tensor([[0.9, -1.0]]))
    step = env.step(torch.tensor([[-0.5]]))
    torch.testing.assert_close(step.reward, torch.tensor([0.1]))
    step = env.step(torch.tensor([[0.0]]))
    torch.testing.assert_close(step.reward, torch.tensor([0.15]))
    assert step.truncated.all()
    torch.testing.assert_close(step.obs_before_reset, torch.tensor([[0.85, 0.0]]))
    torch.testing.assert_close(step.obs, torch.tensor([[1.0, 0.0]]))


def test_best_return_by_hand():
    env = PointMassEnv(1, episode_length=5)
    assert env.best_return(torch.tensor(-0.25)) == pytest.approx(5 - 0.25 - 0.15 - 0.05)
    assert env.best_return(torch.tensor(0.0)) == pytest.approx(5.0)


def test_straight_to_the_origin_earns_the_best_return_and_nothing_earns_more():
    env = PointMassEnv(64, seed=2)
    obs = env.reset()
    best = env.best_return(obs[:, 0])
    total = torch.zeros(64)
    for _ in range(env.episode_length):
        step = env.step(-obs[:, :1] / 0.1)
        total += step.reward
        obs = step.obs
    torch.testing.assert_close(total, best, atol=1e-4, rtol=0.0)
    obs = env.reset()
    best, total = env.best_return(obs[:, 0]), torch.zeros(64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(env.episode_length):
        total += env.step(2 * torch.rand(64, 1, generator=generator) - 1).reward
    assert (total < best).all()


def test_running_away_terminates():
    env = PointMassEnv(1, stochastic_init=False)
    env.reset()
    ends = [bool(env.step(torch.ones(1, 1)).terminated) for _ in range(21)]
    assert ends.index(True) in (19, 20)
