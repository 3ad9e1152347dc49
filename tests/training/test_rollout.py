"""Recordings of policies: the same episode that the evaluation counts, with the poses of the simulator."""

import numpy as np
import pytest
import torch

from flowmbpo.envs import make_env
from flowmbpo.envs.scenes import SCENES
from flowmbpo.physics import ant_pose
from flowmbpo.runs import checkpoint
from flowmbpo.runs.files import BrokenFile
from flowmbpo.training import builder, loading
from flowmbpo.training.rollout import episode_of_checkpoint, rollout
from tests.training.tiny import tiny


class Constant:
    """The same action for ever."""

    def __init__(self, action):
        self.action = torch.tensor(action)
        self.begun = 0

    def begin(self, num_envs):
        self.begun += 1

    def act(self, obs):
        return self.action.expand(len(obs), -1), torch.zeros(len(obs))


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of an untrained tiny experiment."""

    def save(env):
        experiment = tiny(env)
        state = builder.build(experiment, 3, "cpu").algorithm.deployable_state()
        about = {"epoch": 4, "env_steps": 256, "seed": 3, "experiment": experiment.model_dump(mode="json")}
        return checkpoint.save(tmp_path / env / "epoch-000004", state, kind="checkpoint", about=about)

    return save


def test_a_point_on_its_way():
    env = make_env("pointmass", num_envs=1, episode_length=8, stochastic_init=False)  # starts at 1
    policy = Constant([-1.0])
    found = rollout(policy, env, SCENES["pointmass"](), steps=100, title="point")
    np.testing.assert_allclose(found.poses[:, 0, 0], 1.0 - 0.1 * np.arange(8), atol=1e-6)
    np.testing.assert_allclose(found.reward, 0.1 * np.arange(8), atol=1e-6)
    assert (found.outcome, found.steps, policy.begun) == ("time limit", 8, 1)
    assert found.details == (("episode", "complete, 8 steps"),)
    assert np.isnan(found.speed).all()


def test_it_can_be_cut_and_ends_with_the_episode():
    env = make_env("pointmass", num_envs=1, episode_length=100, stochastic_init=False)
    cut = rollout(Constant([-1.0]), env, SCENES["pointmass"](), steps=5, title="point")
    assert (cut.outcome, cut.steps) == ("recording ended", 5)
    gone = rollout(Constant([1.0]), env, SCENES["pointmass"](), steps=100, title="point")
    assert gone.outcome == "terminated"  # past 3, from 1, by 0.1 a step
    assert gone.steps in (20, 21)


def test_the_ant_as_the_simulator_has_it():
    env, watched = (make_env("ant", num_envs=1, seed=5) for _ in range(2))
    found = rollout(Constant([0.5] * 8), env, SCENES["ant"](), steps=12, title="ant")
    obs = watched.reset()
    for step in range(found.steps):
        joint_q = watched.get_state()[0][0].numpy()
        np.testing.assert_allclose(found.poses[step], ant_pose.link_poses(joint_q), atol=1e-6)
        assert found.speed[step] == obs[0, 5].item()
        after = watched.step(torch.full((1, 8), 0.5))
        assert found.reward[step] == after.reward[0].item()
        obs = after.obs
    assert len(found.feet) == 4
    assert found.dt == pytest.approx(1 / 60)


def test_the_ants_feet_touch_when_the_simulator_says_so():
    """A falling Ant is slowed by nothing until the first foot touches: its vertical speed shows when."""
    env = make_env("ant", num_envs=1, stochastic_init=False)
    found = rollout(Constant([0.0] * 8), env, SCENES["ant"](), steps=40, title="ant")
    height = found.poses[:, 0, 1].astype(np.float64)
    first = int(np.argmax(found.clearance().min(axis=1) < 0))
    assert 5 < first < 20
    acceleration = np.diff(height, 2) * 3600
    assert (np.abs(acceleration[: first - 3] + 9.81) < 1.0).all()
    assert acceleration[first : first + 6].max() > 0


@pytest.mark.parametrize("env", ["pointmass", "ant"])
def test_it_is_the_first_episode_of_the_evaluation(saved, env):
    folder = saved(env)
    found = episode_of_checkpoint(folder, "cpu")
    opened = checkpoint.verify(folder, "checkpoint")
    experiment = loading.experiment_of(opened)
    evaluator = builder.build_evaluator(experiment, 1, experiment.evaluation.seed, "cpu")
    evaluation = evaluator(loading.load_policy(opened, "cpu"))
    assert found.cumulative_reward[-1] == pytest.approx(evaluation.mean_reward, rel=1e-5)
    assert found.steps == evaluation.metrics["eval/mean_length"]
    assert found.title == "tiny/seed-3"
    assert found.details[:2] == (("checkpoint", "epoch 4"), ("start", f"seed {experiment.evaluation.seed}"))


def test_another_seed_starts_elsewhere_and_steps_cut(saved):
    folder = saved("pointmass")
    first, second = (episode_of_checkpoint(folder, "cpu", seed, 3) for seed in (1, 2))
    assert first.steps == second.steps == 3
    assert not np.array_equal(first.poses[0], second.poses[0])
    again = episode_of_checkpoint(folder, "cpu", 1, 3)
    np.testing.assert_array_equal(again.poses, first.poses)


def test_a_broken_checkpoint_is_named(saved):
    folder = saved("pointmass")
    (folder / "state.json").write_text("{}")
    with pytest.raises(BrokenFile, match=r"state\.json"):
        episode_of_checkpoint(folder, "cpu")
