"""The simulator's measurement: its fields agree with each other, and wrong arguments are refused."""

from __future__ import annotations

import pytest

from flowmbpo.training.benchmark_simulator import measure_simulator


def test_measures_what_it_says():
    result = measure_simulator(num_envs=20, seconds=0.2)
    assert result["device"] == "cpu"
    assert result["num_envs"] == 20
    assert result["env_steps_per_second"] > 0
    assert result["env_steps_per_second_mean"] <= result["env_steps_per_second"]
    assert result["microseconds_per_env_step"] == pytest.approx(1e6 / result["env_steps_per_second"])


def test_gradients_are_measured_on_request():
    result = measure_simulator(num_envs=20, seconds=0.2, gradients=True)
    assert 0 < result["gradient_forward_ms"] < result["gradient_both_ms"]
    assert result["gradient_ratio"] == pytest.approx(result["gradient_both_ms"] / result["gradient_forward_ms"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 20, "seconds": 0.0}, "seconds is 0.0; allowed: any positive number"),
        ({"num_envs": 20, "seconds": float("nan")}, "seconds is nan"),
        ({"num_envs": 0, "seconds": 1.0}, "num_envs is 0; allowed: a whole number of at least 1"),
    ],
)
def test_refuses_impossible_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        measure_simulator(**arguments)
