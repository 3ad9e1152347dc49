"""Recordings: geometry by hand on one tilted capsule."""

import math

import numpy as np
import pytest

from flowmbpo.runs.episode import Episode


def one_foot(**changes):
    """A foot of 2 m along its own x, radius 0.1; level at 1 m, then turned by 90 degrees to point down."""
    half = math.sqrt(0.5)
    arguments = {
        "title": "one foot",
        "dt": 0.5,
        "capsule_link": np.array([0]),
        "capsule_ends": np.array([[[0, 0, 0], [2, 0, 0]]], dtype=np.float32),
        "capsule_radius": np.array([0.1], dtype=np.float32),
        "capsule_part": ("foot 1",),
        "poses": np.array([[[0, 1, 0, 0, 0, 0, 1]], [[5, 2, 0, 0, 0, -half, half]]], dtype=np.float32),
        "reward": np.array([1.5, -0.25], dtype=np.float32),
        "speed": np.zeros(2, dtype=np.float32),
        "outcome": "time limit",
    }
    return Episode(**{**arguments, **changes})


def test_segments_and_clearance():
    episode = one_foot()
    np.testing.assert_allclose(episode.segments()[:, 0, 0], [[0, 1, 0], [5, 2, 0]], atol=1e-6)
    np.testing.assert_allclose(episode.segments()[:, 0, 1], [[2, 1, 0], [5, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(episode.clearance(), [[0.9], [-0.1]], atol=1e-6)


def test_rewards_add_up():
    np.testing.assert_array_equal(one_foot().cumulative_reward, [1.5, 1.25])


def test_long_sums_do_not_lose_small_rewards():
    """A million rewards of 0.1 in float32 would end 0.9% off."""
    count = 1_000_000
    episode = one_foot(
        poses=np.zeros((count, 1, 7), dtype=np.float32),
        reward=np.full(count, 0.1, dtype=np.float32),
        speed=np.zeros(count, dtype=np.float32),
    )
    assert episode.cumulative_reward[-1] == pytest.approx(100_000, rel=1e-6)


def test_arrays_that_do_not_belong_together_are_our_mistake():
    with pytest.raises(AssertionError):
        one_foot(reward=np.zeros(3, dtype=np.float32))
    with pytest.raises(AssertionError):
        one_foot(capsule_part=())
