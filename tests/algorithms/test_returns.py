"""Returns by hand: ends at the first, a middle and the last step, terminated and truncated.

Everywhere gamma = 0.5, rewards 1, 2, 4 and next values 10, 20, 40, so that every sum is exact in binary.
"""

import pytest
import torch

from flowmbpo.algorithms.returns import segment_returns, td_lambda

REWARDS = torch.tensor([[1.0], [2.0], [4.0]])
VALUES = torch.tensor([[10.0], [20.0], [40.0]])
GOES_ON = torch.ones(3, 1)


def at(*steps):
    flags = torch.zeros(3, 1, dtype=torch.bool)
    flags[list(steps)] = True
    return flags


def test_segment_without_an_end_bootstraps_once_with_the_right_power():
    # 1 + 2/2 + 4/4 + 40/8
    assert segment_returns(REWARDS, GOES_ON, VALUES, gamma=0.5) == 8.0


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        ([0], [], 1 + (2 + 4 / 2 + 40 / 4)),  # first: 1 alone, then a segment of two
        ([], [0], 1 + 10 / 2 + (2 + 4 / 2 + 40 / 4)),
        ([1], [], (1 + 2 / 2) + (4 + 40 / 2)),
        ([], [1], (1 + 2 / 2 + 20 / 4) + (4 + 40 / 2)),
        ([2], [], 1 + 2 / 2 + 4 / 4),  # last, terminated: rewards count, the value does not
        ([], [2], 1 + 2 / 2 + 4 / 4 + 40 / 8),
        ([0, 2], [1], 1 + (2 + 20 / 2) + 4),
    ],
)
def test_segments_end_where_episodes_do(terminated, truncated, expected):
    ended = at(*terminated, *truncated)
    goes_on = 1.0 - at(*terminated).float()
    assert segment_returns(REWARDS, goes_on, VALUES, gamma=0.5, ended=ended).item() == expected


def test_termination_at_the_last_step_keeps_the_horizon_rewards():
    """16 rewards of 1 at gamma 0.99 are worth 14.85, not 0, when the episode ends exactly at the horizon."""
    rewards, ended = torch.ones(16, 1), torch.zeros(16, 1, dtype=torch.bool)
    ended[-1] = True
    found = segment_returns(rewards, 1.0 - ended.float(), torch.full((16, 1), 99.0), gamma=0.99, ended=ended)
    assert found.item() == pytest.approx(14.8542, abs=1e-3)


def test_predicted_survival_weighs_everything_after_it():
    goes_on = torch.tensor([[0.5], [1.0], [0.25]])
    # 1 + (1/2)(1/2) 2 + (1/2)(1/4) 4 + (1/2)(1/4)(1/8) 40
    assert segment_returns(REWARDS, goes_on, VALUES, gamma=0.5).item() == 1 + 0.5 + 0.5 + 0.625


def test_columns_are_independent():
    ended = torch.cat((at(1), at(), at(0)), dim=1)
    goes_on = 1.0 - ended.float()
    three = [t.expand(3, 3) for t in (REWARDS, VALUES)]
    together = segment_returns(three[0], goes_on, three[1], gamma=0.5, ended=ended)
    alone = [segment_returns(REWARDS, goes_on[:, [i]], VALUES, gamma=0.5, ended=ended[:, [i]]).item() for i in range(3)]
    assert together.tolist() == alone


def test_gradient_reaches_only_the_values_that_count():
    values = VALUES.clone().requires_grad_()
    segment_returns(REWARDS, GOES_ON, values, gamma=0.5, ended=at(0)).sum().backward()
    assert values.grad.flatten().tolist() == [0.5, 0.0, 0.25]


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        (0.0, [1 + 10 / 2, 2 + 20 / 2, 4 + 40 / 2]),
        (1.0, [1 + 2 / 2 + 4 / 4 + 40 / 8, 2 + 4 / 2 + 40 / 4, 4 + 40 / 2]),
        (0.5, [1 + 0.5 * (5 + 0.5 * 13), 13.0, 24.0]),  # second: 2 + (20/2 + 24/2) / 2 = 13
    ],
)
def test_td_lambda_by_hand(lam, expected):
    assert td_lambda(REWARDS, GOES_ON, VALUES, gamma=0.5, td_lambda=lam).flatten().tolist() == expected


def test_td_lambda_does_not_look_into_the_next_episode():
    truncated = td_lambda(REWARDS, GOES_ON, VALUES, gamma=0.5, td_lambda=1.0, ended=at(1))
    assert truncated.flatten().tolist() == [1 + 2 / 2 + 20 / 4, 2 + 20 / 2, 24.0]
    terminated = td_lambda(REWARDS, 1.0 - at(1).float(), VALUES, gamma=0.5, td_lambda=1.0, ended=at(1))
    assert terminated.flatten().tolist() == [1 + 2 / 2, 2.0, 24.0]


@pytest.mark.parametrize("last", [True, False])
def test_td_lambda_at_a_terminated_edge(last):
    step = 2 if last else 0
    found = td_lambda(REWARDS, 1.0 - at(step).float(), VALUES, gamma=0.5, td_lambda=0.0, ended=at(step))
    assert found[step] == REWARDS[step]
