"""The simulator as the world model: what it predicts is what happens, and the same learner trains on it."""

from __future__ import annotations

import pytest
import torch

from flowmbpo.envs import AntEnv
from flowmbpo.spec.registry import load_registry
from flowmbpo.training.builder import build


def built(name: str, *overrides: str, seed: int = 3):
    return build(load_registry(None).resolve(name, list(overrides)).spec, seed, "cpu")


def run_epochs(algorithm, count: int) -> dict[str, torch.Tensor]:
    statistics: dict[str, torch.Tensor] = {}
    for epoch in range(count):
        algorithm.begin_epoch(epoch)
        for _, phase in algorithm.phases:
            statistics |= phase()
    return statistics


@pytest.fixture
def learner():
    small = ("train.num_envs=16", "actor.imagined_batch_size=16", "evaluation.episodes=2")
    algorithm = built("mini-oracle", *small).algorithm
    run_epochs(algorithm, 2)
    return algorithm


def test_predicts_what_happens(learner):
    """Sixteen steps open loop from falling Ants: observations, rewards and ends are those of the environment."""
    env, model = AntEnv(16, seed=5), learner.world_model
    obs = env.reset().clone()
    z, alive = learner.encode(obs), torch.ones(16, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        action = 2 * torch.rand(16, 8, generator=generator) - 1
        z, reward, goes_on = model.step(z, action)
        step = env.step(action)
        torch.testing.assert_close(reward[alive], step.reward[alive], atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(goes_on[alive], 1.0 - step.terminated[alive].float())
        alive &= ~step.terminated
        seen = learner.observations.undo(z)[alive]
        torch.testing.assert_close(seen, step.obs_before_reset[alive], atol=5e-3, rtol=5e-3)
    assert not alive.all()
    assert alive.any()


def test_nothing_is_learned_about_the_model_and_the_policy_starts_at_once(learner):
    assert set(learner.optimizers) == {"actor", "critic"}
    assert learner.model_learner.updates == 0
    before = [parameter.clone() for parameter in learner.actor.parameters()]
    statistics = run_epochs(learner, 1)
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.actor.parameters(), strict=True))
    assert statistics["train/reward_correlation"] > 0.9999
    assert all(int(count) == 0 for count in learner.nonfinite.values())


def test_alongside_the_imagined_rollout_is_the_real_one():
    small = ("train.imagination=alongside", "train.num_envs=16", "train.horizon=16", "evaluation.episodes=2")
    algorithm = built("shac-quick", *small).algorithm
    run_epochs(algorithm, 1)
    algorithm.begin_epoch(1)
    algorithm.rollout()
    imagined, experience = algorithm._imagined, algorithm.collector.experience
    torch.testing.assert_close(imagined.rewards.detach(), experience.rewards, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(("symmetric", "seed"), [("true", 4), ("false", 3)])
def test_the_real_rollout_has_the_gradient_of_the_imagined_one(symmetric, seed):
    """One sweep back over the steps gives what Torch makes of a graph of them, also where episodes end.

    With seeds whose rollouts meet every contact in the same step, although the two round differently.
    """
    small = (f"actor.symmetric={symmetric}", "train.num_envs=16", "train.horizon=32", "evaluation.episodes=2")
    found = []
    for form in (["real"], ["alongside", "actor.reacts=true"]):
        algorithm = built("shac-quick", *small, f"train.imagination={form[0]}", *form[1:], seed=seed).algorithm
        run_epochs(algorithm, 1)
        algorithm.rollout()
        imagined = algorithm._imagined
        value = (imagined.rewards * torch.linspace(0, 1, 16)).sum() + imagined.next_latents[..., 5].sum()
        found.append((torch.autograd.grad(value, imagined.exploration._zeros)[0], imagined))
    (ours, real), (graph, alongside) = found
    assert real.ended.any()
    assert not real.ended.all()
    torch.testing.assert_close(real.latents, alongside.latents, atol=1e-3, rtol=1e-3)
    error = (ours - graph).norm(dim=-1) / graph.norm(dim=-1)
    assert error.quantile(0.99) < 1e-2
    assert error.quantile(0.9) < 1e-3
    assert error.median() < 1e-4


@pytest.mark.parametrize("imagination", ["real", "alongside"])
def test_networks_may_compute_in_bfloat16(imagination):
    small = ("train.num_envs=4", "evaluation.episodes=2", "train.precision=bfloat16", "critic.ensemble=2")
    algorithm = built("shac-quick", f"train.imagination={imagination}", *small).algorithm
    assert 0.0 < run_epochs(algorithm, 2)["train/actor_gradient_norm"] < float("inf")
    assert all(int(count) == 0 for count in algorithm.nonfinite.values())


def test_training_continues_exactly_from_a_saved_state():
    """With the slowly moving critic of the published form."""
    small = ("train.num_envs=16", "train.horizon=16", "critic.passes=2", "evaluation.episodes=2")
    first, second = (built("shac", *small) for _ in range(2))
    run_epochs(first.algorithm, 2)
    assert not torch.equal(first.algorithm.critic_learner.target.head.weight, first.algorithm.critic.head.weight)
    second.algorithm.load_state_dict(first.algorithm.state_dict())
    second.env.load_state_dict(first.env.state_dict())
    for one in (first, second):
        run_epochs(one.algorithm, 1)
    for a, b in zip(first.algorithm.actor.parameters(), second.algorithm.actor.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_oracles_own_gradient_is_true_and_a_learned_one_is_measured():
    """The oracle against the simulator on raw observations: only rounding separates them."""
    small = ("train.num_envs=16", "actor.imagined_batch_size=16", "evaluation.episodes=8")
    for name, least in (("mini-oracle", 0.999), ("mini-baseline", -1.0)):
        one = built(name, *small)
        one.algorithm.begin_epoch(0)
        one.algorithm.rollout()
        one.evaluator(one.algorithm.policy(), one.held_out)
        metrics = one.algorithm.diagnose(one.held_out)
        for h in (1, 16):
            assert least <= metrics[f"model/gradient_cosine_{h}"] <= 1.0001
            assert metrics[f"model/gradient_length_{h}"] >= 0  # 0 before anything is learned
            assert -1 <= metrics[f"model/return_rank_{h}"] <= 1
        assert (name == "mini-oracle") == bool(abs(metrics["model/gradient_length_16"] - 1) < 1e-2)


def test_a_gradient_that_is_not_finite_is_refused_and_counted():
    algorithm = built("shac-quick", "train.num_envs=16", "train.horizon=16", "evaluation.episodes=2").algorithm
    run_epochs(algorithm, 1)
    before = [parameter.clone() for parameter in algorithm.actor.parameters()]
    algorithm.collector.obs[0] = torch.nan
    run_epochs(algorithm, 1)
    assert int(algorithm.nonfinite["actor"]) == 1
    assert all(torch.equal(a, b) for a, b in zip(before, algorithm.actor.parameters(), strict=True))
