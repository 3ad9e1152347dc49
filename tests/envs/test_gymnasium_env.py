"""The Gymnasium adapter against Gymnasium's own rules for vector environments."""

from __future__ import annotations

from importlib.metadata import entry_points

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import flowmbpo.envs.gymnasium_env
from flowmbpo.envs import AntEnv

IDS = ("flowmbpo/Ant-v0", "flowmbpo/PointMass-v0")


@pytest.fixture(params=IDS)
def env(request):
    made = gymnasium.make_vec(request.param, num_envs=4, episode_length=3)
    yield made
    made.close()


def test_registered_on_import_by_id():
    assert flowmbpo.envs.gymnasium_env.__name__
    assert set(IDS) <= set(gymnasium.registry)


def test_spaces_and_metadata(env):
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    obs, info = env.reset(seed=1)
    assert info == {}
    assert obs in env.observation_space
    obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    assert obs in env.observation_space
    assert reward.shape == terminated.shape == truncated.shape == (4,)
    assert terminated.dtype == truncated.dtype == np.bool_


def test_ended_episode_leaves_its_last_observation_in_info(env):
    env.reset(seed=1)
    action = np.full(env.action_space.shape, 0.5, dtype=np.float32)
    for _ in range(2):
        _, _, terminated, truncated, info = env.step(action)
        assert not terminated.any()
        assert not truncated.any()
        assert "final_obs" not in info
    obs, _, terminated, truncated, info = env.step(action)
    assert truncated.all()
    assert not terminated.any()
    assert info["_final_obs"].all()
    assert not np.array_equal(obs, info["final_obs"])
    assert info["final_obs"][0] in env.single_observation_space


def test_seed_decides_the_start_and_arrays_are_copies(env):
    first, _ = env.reset(seed=5)
    kept = first.copy()
    env.step(env.action_space.sample())
    np.testing.assert_array_equal(first, kept)
    other, _ = env.reset(seed=6)
    again, _ = env.reset(seed=5)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_returns_what_the_ant_returns():
    adapted = gymnasium.make_vec("flowmbpo.envs.gymnasium_env:flowmbpo/Ant-v0", num_envs=3, seed=2)
    own = AntEnv(3, seed=2)
    np.testing.assert_array_equal(adapted.reset()[0], own.reset().numpy())
    action = adapted.action_space.sample()
    step = own.step(torch.from_numpy(action))
    obs, reward, *_ = adapted.step(action)
    np.testing.assert_array_equal(obs, step.obs.numpy())
    np.testing.assert_array_equal(reward, step.reward.numpy())


def test_the_entry_point_registers_for_other_libraries():
    (found,) = (point for point in entry_points(group="gymnasium.envs") if point.value.startswith("flowmbpo."))
    found.load()()
    assert {"flowmbpo/Ant-v0", "flowmbpo/PointMass-v0"} <= set(gymnasium.registry)
