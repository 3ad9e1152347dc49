"""Replay against a plain list of episodes: what is valid, what comes out, how often, and what survives a wrap."""

import pytest
import torch

from flowmbpo.algorithms.replay import Choice, Replay
from flowmbpo.envs.contract import Step

CPU = torch.device("cpu")


class Tape:
    """Environments whose observation is (environment, episode, step) and whose episodes end at random."""

    def __init__(self, num_envs, seed, end_probability=0.15):
        self.num_envs, self.end_probability = num_envs, end_probability
        self.generator = torch.Generator().manual_seed(seed)
        self.episode, self.step_count = torch.zeros(num_envs), torch.zeros(num_envs)
        self.transitions = []  # per step: list of (environment, episode, step)

    @property
    def obs(self):
        return torch.stack((torch.arange(self.num_envs).float(), self.episode, self.step_count), dim=1)

    def feed(self, replay, steps):
        for _ in range(steps):
            obs = self.obs
            draw = torch.rand(self.num_envs, generator=self.generator)
            terminated, truncated = draw < self.end_probability, draw > 1 - self.end_probability / 2
            self.transitions.append([tuple(row) for row in obs.int().tolist()])
            before_reset = obs + torch.tensor([0.0, 0.0, 1.0])
            ended = terminated | truncated
            self.episode, self.step_count = self.episode + ended, torch.where(ended, 0.0, self.step_count + 1)
            reward = obs[:, 1] * 1000 + obs[:, 2]
            # the environment's own tensors change afterwards, as the real ones do
            step = Step(self.obs, reward, terminated, truncated, before_reset)
            replay.add(obs, obs[:, 2:] + 0.5, step)
            reward.fill_(-1.0)
            before_reset.fill_(-1.0)


def make(capacity, num_envs):
    return Replay(capacity=capacity, num_envs=num_envs, obs_dim=3, action_dim=1, device=CPU)


def expected_starts(tape, replay, length):
    """All (environment, episode, step) from which `length` transitions are still in the ring, by brute force."""
    found = set()
    for env in range(tape.num_envs):
        column = [row[env] for row in tape.transitions]
        rows = []  # as the ring should hold them, oldest first, with a boundary after each episode
        for index, transition in enumerate(column):
            rows.append(transition)
            following = column[index + 1] if index + 1 < len(column) else None
            if following is None or following[1] != transition[1]:
                rows.append(None)
        if tape.step_count[env] == 0:  # the newest episode has begun but not moved: its first observation has a row
            rows.append(None)
        rows = rows[-replay.rows :]
        for index, row in enumerate(rows):
            window = rows[index : index + length]
            if row is not None and len(window) == length and None not in window:
                found.add(row)
    return found


def start_observations(replay, length):
    """The observation at every valid start, as ranked by the choice that samples them."""
    valid = replay.starts(length)._running.diff(prepend=torch.zeros(1, dtype=torch.int32)).bool()
    return replay._obs.flatten(0, 1)[valid]


def test_episodes_that_were_left_end_where_they_stood():
    tape, replay = Tape(3, seed=1, end_probability=0.0), make(3 * 40, 3)
    tape.feed(replay, 5)
    replay.end_episodes()
    tape.episode, tape.step_count = tape.episode + 1, torch.zeros(3)
    tape.feed(replay, 5)
    for length in (1, 2):
        found = {tuple(row) for row in start_observations(replay, length).int().tolist()}
        assert found == expected_starts(tape, replay, length)
    drawn = replay.sample(500, 1, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.obs[1] - drawn.obs[0], torch.tensor([0.0, 0.0, 1.0]).expand(500, -1))


@pytest.mark.parametrize("length", [1, 2, 3, 5])
@pytest.mark.parametrize("steps", [1, 4, 11, 12, 13, 40, 97])
def test_valid_starts_are_exactly_those_inside_one_episode(length, steps):
    tape, replay = Tape(7, seed=steps), make(7 * 12, 7)
    tape.feed(replay, steps)
    starts = [tuple(row) for row in start_observations(replay, length).int().tolist()]
    assert replay.starts(length).count == len(starts)
    assert len(starts) == len(set(starts))
    assert set(starts) == expected_starts(tape, replay, length)


@pytest.mark.parametrize("steps", [6, 50, 200])
def test_sequences_are_consecutive_and_carry_their_own_action_and_reward(steps):
    tape, replay = Tape(5, seed=1), make(5 * 16, 5)
    tape.feed(replay, steps)
    batch = replay.sample(400, 3, torch.Generator().manual_seed(0))
    assert batch.obs.shape == (4, 400, 3)
    assert batch.actions.shape == (3, 400, 1)
    assert (batch.obs[:, :, :2] == batch.obs[0, :, :2]).all()  # one environment, one episode
    assert (batch.obs.diff(dim=0)[:, :, 2] == 1).all()
    assert (batch.actions[:, :, 0] == batch.obs[:-1, :, 2] + 0.5).all()
    assert (batch.rewards == batch.obs[:-1, :, 1] * 1000 + batch.obs[:-1, :, 2]).all()
    assert not batch.terminated[:-1].any()  # only a sequence's last transition can end the episode


def test_terminated_marks_the_transition_that_ended_the_episode():
    replay = make(20, 1)
    for count in range(3):
        obs = torch.tensor([[0.0, 0.0, float(count)]])
        last = torch.tensor([count == 2])
        step = Step(obs + last, torch.ones(1), last, torch.tensor([False]), obs + torch.tensor([0.0, 0.0, 1.0]))
        replay.add(obs, torch.zeros(1, 1), step)
    batch = replay.sample(1, 3, torch.Generator())
    assert batch.terminated.flatten().tolist() == [False, False, True]
    assert batch.obs[:, 0, 2].tolist() == [0.0, 1.0, 2.0, 3.0]  # the last observation is the one before the reset


def test_every_start_is_equally_likely():
    """Episodes of 3 steps must not be drawn more often than their share (chi-square, 99.9%)."""
    tape, replay = Tape(4, seed=3, end_probability=0.3), make(4 * 64, 4)
    tape.feed(replay, 60)
    starts = start_observations(replay, 2)
    draws = 200 * len(starts)
    batch = replay.sample(draws, 2, torch.Generator().manual_seed(0))
    key = torch.tensor([10_000.0, 100.0, 1.0])
    counts = (batch.obs[0] @ key).unique(return_counts=True)[1]
    assert len(counts) == len(starts)
    chi_square = ((counts - 200.0).square() / 200.0).sum()
    freedom = len(starts) - 1
    assert chi_square < freedom + 3.1 * (2 * freedom) ** 0.5


def test_recent_observations_are_acted_on_and_not_old():
    tape, replay = Tape(6, seed=5), make(6 * 40, 6)
    tape.feed(replay, 100)
    obs = replay.sample_recent(2000, 8, torch.Generator().manual_seed(0)).int().tolist()
    acted_on = {transition for row in tape.transitions[-8:] for transition in row}
    assert {tuple(row) for row in obs} <= acted_on
    newest = set(tape.transitions[-1])
    assert newest <= {tuple(row) for row in obs}


@pytest.mark.parametrize("valid", [[True], [False, True, False], [True] * 5, [False] * 6 + [True, True]])
def test_a_choice_draws_every_true_position_and_no_other(valid):
    choice = Choice(torch.tensor(valid))
    drawn = choice.draw(500, torch.Generator().manual_seed(0))
    assert choice.count == sum(valid)
    assert drawn.unique().tolist() == [index for index, value in enumerate(valid) if value]


def test_a_choice_knows_when_there_is_nothing():
    assert Choice(torch.zeros(4, dtype=torch.bool)).empty
    assert not Choice(torch.tensor([False, True])).empty


def test_a_ring_can_lose_its_last_sequence_and_says_so():
    tape, replay = Tape(2, seed=0, end_probability=0.0), make(2 * 8, 2)
    tape.feed(replay, 8)
    assert replay.sample(4, 3, torch.Generator()).rewards.isfinite().all()
    tape.end_probability = 1.0
    tape.feed(replay, 8)
    with pytest.raises(ValueError, match="no sequence of 3 transitions"):
        replay.sample(4, 3, torch.Generator())


def test_recent_observations_right_after_every_episode_ended():
    tape, replay = Tape(3, seed=0, end_probability=0.0), make(3 * 8, 3)
    tape.feed(replay, 4)
    tape.end_probability = 1.0
    tape.feed(replay, 1)
    obs = replay.sample_recent(200, 2, torch.Generator().manual_seed(0)).int().tolist()
    assert {tuple(row) for row in obs} == set(tape.transitions[-1])


def test_nothing_to_sample_is_an_error_that_says_so():
    replay = make(20, 2)
    with pytest.raises(ValueError, match="no sequence of 3 transitions"):
        replay.sample(1, 3, torch.Generator())
    with pytest.raises(ValueError, match="does not fit into 10 rows"):
        replay.sample(1, 10, torch.Generator())
    with pytest.raises(ValueError, match="holds no transition"):
        make(3, 2)


def test_state_comes_back_exactly_and_goes_on_alike():
    tape, first, second = Tape(3, seed=8), make(3 * 10, 3), make(3 * 10, 3)
    tape.feed(first, 25)
    second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})
    for replay in (first, second):
        other = Tape(3, seed=9)
        other.feed(replay, 4)
    samples = [replay.sample(50, 2, torch.Generator().manual_seed(2)) for replay in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*samples, strict=True))


def test_buffers_are_allocated_once():
    tape, replay = Tape(3, seed=0), make(30, 3)
    addresses = {name: tensor.data_ptr() for name, tensor in replay.state_dict().items() if name != "_head"}
    tape.feed(replay, 50)
    assert addresses == {name: t.data_ptr() for name, t in replay.state_dict().items() if name != "_head"}
    assert len(replay) <= 30
