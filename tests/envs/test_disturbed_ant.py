"""The disturbed Ant: off, it is the Ant of before; on, each disturbance is what its name says, and reproducible."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from flowmbpo.envs import AntEnv, DisturbedAnt, make_env
from flowmbpo.envs.disturbed_ant import VELOCITIES

EVERYTHING = {
    "torque_noise": 0.1,
    "payload": 60.0,
    "action_delay": 2,
    "observation_noise": 0.05,
    "hidden_velocities": True,
    "observation_stack": 3,
}


def actions(num_envs: int, steps: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [2.2 * torch.rand(num_envs, 8, generator=generator) - 1.1 for _ in range(steps)]


def digest(env: AntEnv, steps: int = 150) -> str:
    seen = hashlib.sha256(env.reset().numpy().tobytes())
    for action in actions(env.num_envs, steps):
        for tensor in env.step(action):
            seen.update(tensor.numpy().tobytes())
    return seen.hexdigest()[:16]


def processor_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()


@pytest.mark.skipif("avx512f" not in processor_flags(), reason="recorded on a processor with AVX-512")
@pytest.mark.parametrize(
    ("arguments", "recorded"),
    [
        ({"num_envs": 40, "seed": 3, "episode_length": 60}, "2f5dc2b33fcc6759"),
        ({"num_envs": 17, "seed": 5, "mass_matrix_interval": 1, "stochastic_init": False}, "478d3dc3ee61aa3f"),
    ],
)
def test_undisturbed_rollouts_are_those_recorded_at_version_0_1(arguments, recorded):
    assert digest(make_env("ant", **arguments)) == digest(AntEnv(**arguments)) == recorded


def test_a_payload_of_nothing_changes_no_bit(monkeypatch):
    plain = digest(AntEnv(20, seed=1))
    monkeypatch.setattr(AntEnv, "loaded", True)
    assert digest(AntEnv(20, seed=1)) == plain


def test_payload_is_drawn_anew_for_each_episode_and_not_within():
    env = DisturbedAnt(2000, payload=50.0, episode_length=3)
    env.reset()
    drawn = []
    for count, action in enumerate(actions(2000, 6)):
        drawn.append(env.state_dict()["payload"])
        assert bool(env.step(action).truncated.all()) == (count % 3 == 2)
    assert torch.equal(drawn[0], drawn[2])
    assert torch.corrcoef(torch.stack((drawn[2], drawn[3])))[0, 1].abs() < 0.1
    assert drawn[0].mean().item() == pytest.approx(25.0, abs=2.0)
    assert 0 < drawn[0].min() < 0.5 < 49.5 < drawn[0].max() < 50


def test_a_delayed_action_is_one_of_the_last_and_the_observation_tells_the_commanded_one():
    env, twin = DisturbedAnt(600, action_delay=2, seed=4), AntEnv(600)
    env.reset()
    given = [action.clamp(-1, 1) for action in actions(600, 5)]
    for action in given[:-1]:
        env.step(action)
    state = env.get_state()
    obs = env.step(given[-1]).obs
    assert torch.equal(obs[:, 29:], given[-1])
    outcomes = []
    for action in reversed(given[-3:]):
        twin.set_state(*state)
        outcomes.append((twin.step(action).obs[:, :29] - obs[:, :29]).abs().amax(1) < 1e-3)
    shares = torch.stack(outcomes).float().mean(1)
    assert torch.stack(outcomes).any(0).all()
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.08)


def test_before_the_first_action_of_an_episode_a_delayed_one_is_zero():
    env, twin = DisturbedAnt(400, action_delay=1, seed=4, episode_length=2), AntEnv(400)
    env.reset()
    first, second, third = actions(400, 3)
    env.step(first), env.step(second)  # a new episode begins
    state = env.get_state()
    obs = env.step(third).obs
    twin.set_state(*state)
    still = (twin.step(torch.zeros(400, 8)).obs[:, :29] - obs[:, :29]).abs().amax(1) < 1e-3
    assert still.float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_torque_noise_has_its_deviation_and_is_not_observed():
    env = DisturbedAnt(4000, torque_noise=0.2, seed=1)
    env.reset()
    action = 0.1 * actions(4000, 1)[0]
    assert torch.equal(env.step(action).obs[:, 29:], action)
    noise = env._actions[:4000] - action
    assert noise.mean().abs() < 0.005
    torch.testing.assert_close(noise.std(0), torch.full((8,), 0.2), rtol=0.06, atol=0.0)
    assert (torch.corrcoef(noise.T) - torch.eye(8)).abs().max() < 0.1


def test_observation_noise_blurs_all_but_the_actions_and_not_the_task():
    env, clear = DisturbedAnt(4000, observation_noise=0.05, seed=1), AntEnv(4000, seed=1)
    clear.reset()
    first = env.reset().clone()
    for action in actions(4000, 3):
        seen, true = env.step(action), clear.step(action)
    error = seen.obs - true.obs
    assert torch.equal(error[:, 29:], torch.zeros(4000, 8))
    torch.testing.assert_close(error[:, :29].std(0), torch.full((29,), 0.05), rtol=0.06, atol=0.0)
    assert error.mean().abs() < 0.001
    assert torch.equal(seen.reward, true.reward)
    assert torch.equal(seen.terminated, true.terminated)
    assert not torch.equal(first - clear.reset(), error)


def test_hidden_velocities_leave_the_rest_and_a_stack_shows_the_newest_first():
    env, clear = DisturbedAnt(50, hidden_velocities=True, observation_stack=3, episode_length=4), AntEnv(50)
    rest = [k for k in range(37) if k not in VELOCITIES]
    assert env.obs_dim == 3 * len(rest) == 69
    assert env.forward_velocity_index is None
    frames = [clear.reset()[:, rest].clone()] * 3
    assert torch.equal(env.reset(), torch.cat(frames, 1))
    for count, action in enumerate(actions(50, 4)):
        step = env.step(action)
        frames = [clear.step(action).obs[:, rest].clone(), *frames[:2]]
        if count < 3:
            assert torch.equal(step.obs, torch.cat(frames, 1))
    assert step.truncated.all()
    begun = step.obs.unflatten(1, (3, 23))
    assert torch.equal(begun[:, :1].expand_as(begun), begun)
    assert torch.equal(step.obs_before_reset.unflatten(1, (3, 23))[:, 1:], torch.stack(frames[1:], 1))


def test_everything_at_once_is_alike_in_any_batch_and_after_a_resume():
    def rollout(num_envs: int) -> torch.Tensor:
        env = DisturbedAnt(num_envs, seed=3, episode_length=40, **EVERYTHING)
        seen = [env.reset()[0].clone()]
        for own, rest in zip(actions(1, 90), actions(num_envs, 90, seed=num_envs), strict=True):
            rest[0] = own[0]
            step = env.step(rest)
            seen.append(torch.cat((step.obs[0], step.obs_before_reset[0], step.reward[:1])))
        return torch.cat(seen)

    alone = rollout(1)
    for num_envs in (17, 300):
        assert torch.equal(alone, rollout(num_envs))

    env = DisturbedAnt(30, seed=3, episode_length=40, **EVERYTHING)
    env.reset()
    for action in actions(30, 25):
        env.step(action)
    resumed = DisturbedAnt(30, seed=8, episode_length=40, **EVERYTHING)
    resumed.load_state_dict(env.state_dict())
    for action in actions(30, 60, seed=1):
        for a, b in zip(env.step(action), resumed.step(action), strict=True):
            assert torch.equal(a, b)
    env.reseed(5), resumed.reseed(5)
    assert torch.equal(env.reset(), resumed.reset())
    assert digest(env, 5) == digest(resumed, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"torque_noise": -0.1}, "torque_noise is -0.1; allowed: 0"),
        ({"payload": float("nan")}, "payload is nan; allowed: 0"),
        ({"action_delay": 9}, "action_delay is 9; allowed: a whole number from 0 to 8"),
        ({"observation_stack": 0}, "observation_stack is 0; allowed: a whole number from 1 to 16"),
    ],
)
def test_wrong_disturbances_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DisturbedAnt(2, **arguments)
