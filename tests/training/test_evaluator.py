"""Evaluation by hand: the environment's rewards, first episodes only, the model's guess beside them."""

from types import SimpleNamespace

import pytest
import torch

from flowmbpo.training.evaluator import Evaluator


class Ladder:
    """Environment i falls after i + 1 steps (the last is truncated at 4), pays 2 a step and starts again at once."""

    num_envs, episode_length, forward_velocity_index = 4, 4, 0

    def __init__(self) -> None:
        self.count = 0

    def reset(self) -> torch.Tensor:
        return self.observe()

    def observe(self) -> torch.Tensor:
        return torch.full((self.num_envs, 3), 1.5)  # 1.5 m/s

    def step(self, _actions):
        self.count += 1
        lengths = torch.arange(1, self.num_envs + 1)
        ended = self.count % lengths == 0
        truncated = ended & (lengths == self.episode_length)
        return SimpleNamespace(
            obs=self.observe(), reward=torch.full((4,), 2.0), terminated=ended & ~truncated, truncated=truncated
        )

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class Boaster:
    """A policy whose model promises 1,000 a step."""

    def begin(self, num_envs: int) -> None:
        pass

    def act(self, obs):
        return torch.zeros(len(obs), 1), torch.full((len(obs),), 1000.0)


def test_it_sums_the_environments_reward_and_never_the_models():
    found = Evaluator(Ladder(), seed=0)(Boaster())
    assert found.mean_reward == pytest.approx(2 * (1 + 2 + 3 + 4) / 4)
    assert found.metrics["eval/model_predicted_reward"] == pytest.approx(1000 * (1 + 2 + 3 + 4) / 4)
    assert found.metrics["eval/mean_reward"] == found.mean_reward


def test_lengths_falls_speed_and_spread():
    found = Evaluator(Ladder(), seed=0)(Boaster()).metrics
    assert found["eval/mean_length"] == pytest.approx(2.5)
    assert found["eval/fall_share"] == pytest.approx(3 / 4)  # the truncated one did not fall
    assert found["eval/forward_speed"] == pytest.approx(1.5)
    assert (found["eval/min_reward"], found["eval/median_reward"], found["eval/max_reward"]) == (2.0, 5.0, 8.0)
    assert found["eval/std_reward"] == pytest.approx(5.0**0.5)


def test_every_evaluation_starts_from_the_same_state():
    evaluator = Evaluator(Ladder(), seed=0)
    assert evaluator(Boaster()) == evaluator(Boaster())
