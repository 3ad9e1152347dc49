"""Episode statistics against hand-counted episodes, and the collapse monitor."""

from types import SimpleNamespace

import pytest
import torch

from flowmbpo.training.episodes import WINDOW, EpisodeRecorder
from flowmbpo.training.monitor import CollapseMonitor


class Scripted:
    """Environment i ends its episodes every `i + 2` steps and pays 1 + i a step."""

    obs_dim, action_dim, episode_length, forward_velocity_index = 1, 1, 1000, None

    def __init__(self, num_envs: int) -> None:
        self.num_envs, self.device, self.count = num_envs, "cpu", 0
        self.periods = torch.arange(num_envs) + 2

    def reset(self):
        self.count = 0
        return torch.zeros(self.num_envs, 1)

    def step(self, _actions):
        self.count += 1
        done = self.count % self.periods == 0
        odd = torch.arange(self.num_envs) % 2 == 0
        return SimpleNamespace(reward=1.0 + torch.arange(self.num_envs), terminated=done & odd, truncated=done & ~odd)

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_nothing_is_reported_before_an_episode_ended():
    recorder = EpisodeRecorder(Scripted(3))
    recorder.step(None)
    assert recorder.statistics() == {}


def test_hand_counted_returns():
    recorder = EpisodeRecorder(Scripted(2))  # env 0: length 2, return 2; env 1: length 3, return 6
    for _ in range(6):  # three episodes of env 0, two of env 1
        recorder.step(None)
    found = recorder.statistics()
    assert found["train/episode_reward"] == pytest.approx((3 * 2 + 2 * 6) / 5)
    assert found["train/episode_length"] == pytest.approx((3 * 2 + 2 * 3) / 5)


def test_a_reset_forgets_what_was_not_finished_and_what_was():
    recorder = EpisodeRecorder(Scripted(2))
    for _ in range(4):  # env 0 has just ended an episode, env 1 is one step into its second
        recorder.step(None)
    recorder.reset()
    assert recorder.statistics() == {}
    for _ in range(3):
        recorder.step(None)
    assert recorder.statistics() == {"train/episode_reward": (2 + 6) / 2, "train/episode_length": (2 + 3) / 2}


def test_only_the_last_window_counts():
    env = Scripted(1)
    recorder = EpisodeRecorder(env)
    for _ in range(2 * WINDOW):
        recorder.step(None)
    env.periods = torch.tensor([1])
    for _ in range(WINDOW):
        recorder.step(None)
    assert recorder.statistics() == {"train/episode_reward": 1.0, "train/episode_length": 1.0}


def test_counting_many_steps_together_changes_nothing():
    torch.manual_seed(0)
    rewards, ended = torch.randn(130, 7), torch.rand(130, 7) < 0.1
    steps = (
        SimpleNamespace(reward=r, terminated=e, truncated=torch.zeros(7).bool())
        for r, e in zip(rewards, ended, strict=True)
    )
    env = Scripted(7)
    env.step = lambda _actions: next(steps)
    recorder = EpisodeRecorder(env)
    finished, running, length = [], torch.zeros(7), torch.zeros(7)
    for t in range(130):
        recorder.step(None)
        running, length = running + rewards[t], length + 1
        finished += zip(running[ended[t]].tolist(), length[ended[t]].tolist(), strict=True)
        running[ended[t]] = length[ended[t]] = 0.0
        if t in (4, 50, 129):
            last = torch.tensor(finished[-WINDOW:])
            assert list(recorder.statistics().values()) == pytest.approx(last.mean(0).tolist(), rel=1e-6)


def test_state_round_trip_in_the_middle_of_episodes():
    first, second = EpisodeRecorder(Scripted(5)), EpisodeRecorder(Scripted(5))
    for _ in range(7):
        first.step(None)
    second.load_state_dict(first.state_dict())
    for _ in range(9):
        first.step(None)
        second.step(None)
    assert first.statistics() == second.statistics()


def test_collapse_is_announced_once_per_fall():
    monitor = CollapseMonitor(patience=3)
    announced = [monitor.observe(r) for r in [100, 20, 20, 20, 1200, 1100, 30, 30, 30, 30, 900, 30, 30, 30]]
    assert [i for i, value in enumerate(announced) if value] == [8, 13]


def test_noise_below_the_floor_is_no_collapse():
    monitor = CollapseMonitor(patience=1)
    assert not any(monitor.observe(r) for r in [250, 10, 10, 10])
