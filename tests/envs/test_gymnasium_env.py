"""The Gymnasium adapter against Gymnasium's own rules for vector environments."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from flowmbpo.envs import AntEnv

IDS = ("flowmbpo/Ant-v0", "flowmbpo/PointMass-v0")


@pytest.fixture(params=IDS)
def env(request):
    made = gymnasium.make_vec(request.param, num_envs=4, episode_length=3)
    yield made
    made.close()


@pytest.mark.parametrize("imports", ["flowmbpo.envs, gymnasium", "gymnasium, flowmbpo.envs"])
def test_one_import_is_enough(imports):
    code = f"import {imports}; gymnasium.make_vec('flowmbpo/PointMass-v0', num_envs=2).reset()"
    subprocess.run([sys.executable, "-c", code], check=True)


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


@pytest.mark.parametrize("name", IDS)
@pytest.mark.filterwarnings("ignore:.*infinity.*")  # Gymnasium's checker would like bounds
def test_one_environment_follows_gymnasiums_rules_for_one(name):
    env = gymnasium.make(name, episode_length=2)
    check_env(env.unwrapped, skip_render_check=True)
    batch = gymnasium.make_vec(name, num_envs=1, episode_length=2)
    obs, opened = env.reset(seed=3)[0], batch.reset(seed=3)[0]
    np.testing.assert_array_equal(obs, opened[0])
    action = np.full(env.action_space.shape, 0.5, dtype=np.float32)
    for _ in range(2):
        obs, _, terminated, truncated, _ = env.step(action)
        info = batch.step(action[None])[-1]
    assert (terminated, truncated) == (False, True)
    np.testing.assert_array_equal(obs, info["final_obs"][0])  # the episode's last, not the next one's first


def test_environments_made_without_a_seed_differ():
    first, second = (gymnasium.make_vec(IDS[1], num_envs=4).reset()[0] for _ in range(2))
    assert not np.array_equal(first, second)


def test_a_list_of_seeds_decides_the_batch(env):
    first = env.reset(seed=[1, 2, 3, 4])[0]
    assert not np.array_equal(env.reset(seed=[1, 2, 3, 5])[0], first)
    np.testing.assert_array_equal(env.reset(seed=[1, 2, 3, 4])[0], first)
    assert not np.array_equal(env.reset(seed=[1, 2, 3, None])[0], env.reset(seed=[1, 2, 3, None])[0])
    with pytest.raises(ValueError, match="a list of 4"):
        env.reset(seed=[1, 2])


def test_a_mask_resets_only_the_environments_it_names(env):
    env.reset(seed=1)
    action = np.full(env.action_space.shape, 0.5, dtype=np.float32)
    held = env.step(action)[0]
    mask = np.array([True, False, False, True])
    obs, _ = env.reset(options={"reset_mask": mask})
    assert (obs[mask] != held[mask]).any(axis=1).all()
    np.testing.assert_array_equal(obs[~mask], held[~mask])
    assert not env.step(action)[3].any()
    truncated = env.step(action)[3]  # the third step of those that went on, the second of the others
    np.testing.assert_array_equal(truncated, ~mask)


def test_those_outside_the_mask_do_what_they_would_have_done():
    plain, masked = (gymnasium.make_vec(IDS[0], num_envs=3, seed=1, episode_length=2) for _ in range(2))
    action = np.full(plain.action_space.shape, 0.3, dtype=np.float32)
    for env in (plain, masked):
        env.reset(seed=4)
        env.step(action)
    masked.reset(options={"reset_mask": np.array([True, False, False])})
    for _ in range(3):  # through a reset of their own
        np.testing.assert_array_equal(plain.step(action)[0][1:], masked.step(action)[0][1:])


@pytest.mark.parametrize(
    "options",
    [{"reset_mask": [1, 0, 0, 0]}, {"reset_mask": np.zeros(4, bool)}, {"reset_mask": np.ones(3, bool)}, {"mask": 1}],
)
def test_wrong_options_are_refused_and_change_nothing(env, options):
    env.reset(seed=1)
    held = env.step(np.zeros(env.action_space.shape, dtype=np.float32))[0]
    with pytest.raises(ValueError, match="allowed"):
        env.reset(options=options)
    np.testing.assert_array_equal(env._obs, held)


def test_returns_what_the_ant_returns():
    adapted = gymnasium.make_vec("flowmbpo.envs:flowmbpo/Ant-v0", num_envs=3, seed=2)
    own = AntEnv(3, seed=2)
    np.testing.assert_array_equal(adapted.reset()[0], own.reset().numpy())
    action = adapted.action_space.sample()
    step = own.step(torch.from_numpy(action))
    obs, reward, *_ = adapted.step(action)
    np.testing.assert_array_equal(obs, step.obs.numpy())
    np.testing.assert_array_equal(reward, step.reward.numpy())
