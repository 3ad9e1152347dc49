"""What every environment must do, whatever its task: ours, and those of installed packages."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from flowmbpo.envs import ENVIRONMENTS, Env, make_env
from flowmbpo.spec.schema import ENV_EXTENSIONS

EPISODE = 6


DISTURBANCES = {
    "torque_noise": 0.1,
    "payload": 60.0,
    "action_delay": 2,
    "observation_noise": 0.05,
    "hidden_velocities": True,
    "observation_stack": 3,
}


@pytest.fixture(params=[*sorted(ENVIRONMENTS), "disturbed", *ENV_EXTENSIONS])
def make(request):
    kind, disturbances = ("ant", DISTURBANCES) if request.param == "disturbed" else (request.param, {})

    def build(num_envs: int = 5, seed: int = 0, **arguments):
        return make_env(kind, num_envs=num_envs, seed=seed, episode_length=EPISODE, **disturbances, **arguments)

    return build


def random_actions(env: Env, seed: int = 0) -> torch.Tensor:
    return 2 * torch.rand(env.num_envs, env.action_dim, generator=torch.Generator().manual_seed(seed)) - 1


def test_satisfies_the_protocol(make):
    env = make()
    assert isinstance(env, Env)
    assert env.num_envs == 5
    assert env.episode_length == EPISODE
    assert env.forward_velocity_index is None or 0 <= env.forward_velocity_index < env.obs_dim


def test_shapes_and_types(make):
    env = make()
    obs = env.reset()
    step = env.step(random_actions(env))
    for tensor in (obs, step.obs, step.obs_before_reset):
        assert tensor.shape == (5, env.obs_dim)
        assert tensor.dtype == torch.float32
        assert tensor.isfinite().all()
    assert step.reward.shape == (5,)
    assert step.reward.dtype == torch.float32
    assert step.terminated.dtype == step.truncated.dtype == torch.bool


def test_truncates_exactly_at_the_episode_length_and_starts_again(make):
    env = make()
    env.reset()
    for episode in range(3):
        for count in range(1, EPISODE + 1):
            step = env.step(torch.zeros(5, env.action_dim))
            assert not step.terminated.any()
            assert bool(step.truncated.all()) == (count == EPISODE), (episode, count)
            changed = (step.obs != step.obs_before_reset).any(dim=1)
            assert torch.equal(changed, step.truncated)


def test_same_seed_same_bits(make):
    first, second, other = make(seed=3), make(seed=3), make(seed=4)
    assert torch.equal(first.reset(), second.reset())
    assert not torch.equal(first.reset(), other.reset())
    second.reset()
    for k in range(2 * EPISODE):
        for a, b in zip(first.step(random_actions(first, k)), second.step(random_actions(second, k)), strict=True):
            assert torch.equal(a, b)


def test_actions_are_clipped(make):
    low, high = make(), make()
    low.reset(), high.reset()
    action = random_actions(low).sign()
    assert torch.equal(low.step(action).obs, high.step(5 * action).obs)


def test_resumes_bit_equal_across_resets(make):
    env, resumed = make(seed=1), make(seed=2)
    env.reset(), resumed.reset()
    for k in range(4):
        env.step(random_actions(env, k))
    resumed.load_state_dict(env.state_dict())
    for k in range(2 * EPISODE):
        for a, b in zip(env.step(random_actions(env, k)), resumed.step(random_actions(env, k)), strict=True):
            assert torch.equal(a, b)


def test_saved_state_is_a_copy_of_plain_tensors(make):
    env = make()
    env.reset()
    saved = env.state_dict()
    kept = {name: tensor.clone() for name, tensor in saved.items()}
    env.step(random_actions(env))
    for name, tensor in saved.items():
        assert torch.equal(tensor, kept[name])


def test_reseeding_repeats_the_starts(make):
    env = make(seed=7)
    first = env.reset().clone()
    env.reset()
    env.reseed(7)
    assert torch.equal(env.reset(), first)


def test_wrong_action_shape_is_refused(make):
    env = make()
    with pytest.raises(ValueError, match="actions have shape"):
        env.step(torch.zeros(5, env.action_dim + 1))


def test_unknown_kind_names_the_nearest():
    with pytest.raises(ValueError, match="allowed: ant, pointmass; did you mean 'pointmass'"):
        make_env("point-mass")


def test_importing_the_room_loads_neither_torch_nor_warp():
    code = "import sys, flowmbpo.envs; sys.exit(bool({'torch', 'warp'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
