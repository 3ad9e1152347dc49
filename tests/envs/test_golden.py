"""One control step, and twenty, against recordings of the reference simulator in float32 and float64.

The float64 recordings are the truth; the error of the reference's own float32 against them is the yardstick. The files
are not part of the repository: these tests skip where ../shared is absent.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flowmbpo.envs import AntEnv

ALLOWED = 2.0  # times the reference's own float32 error


@pytest.fixture(params=[("single_step_train.npz", 16), ("single_step_mm1_train.npz", 1)], ids=["cached", "fresh"])
def transitions(request, shared_dir: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The recording, and what our environment makes of its inputs."""
    name, interval = request.param
    recorded = dict(np.load(shared_dir / "golden" / name))
    env = AntEnv(len(recorded["joint_q"]), early_termination=False, mass_matrix_interval=interval)
    q, qd, last, action = (torch.from_numpy(recorded[k]) for k in ("joint_q", "joint_qd", "prev_action", "action"))
    own = {"obs": env.set_state(q, qd, last).numpy().copy()}
    step = env.step(action)
    next_q, next_qd = env.get_state()
    own |= {"next_joint_q": next_q.numpy(), "next_joint_qd": next_qd.numpy()}
    own |= {"next_obs": step.obs.numpy().copy(), "reward": step.reward.numpy().copy()}
    env = AntEnv(len(recorded["joint_q"]), mass_matrix_interval=interval)
    env.set_state(q, qd, last)
    step = env.step(action)
    own |= {"termination": step.terminated.numpy().copy(), "before_reset": step.obs_before_reset.numpy().copy()}
    return recorded, own


def test_single_steps_are_as_precise_as_the_reference(transitions):
    """Median and 99th percentile, of single numbers and of the worst number of each environment, per category."""
    recorded, own = transitions
    category = recorded["category"]
    for key in ("next_joint_q", "next_joint_qd", "next_obs"):
        error = np.abs(own[key] - recorded[f"{key}_f64"])
        yardstick = np.abs(recorded[key] - recorded[f"{key}_f64"])
        for index, name in enumerate(recorded["category_names"]):
            ours, theirs = error[category == index], yardstick[category == index]
            for percentile in (50, 99):
                for reduce in (lambda x: x, lambda x: x.max(axis=1)):
                    limit = ALLOWED * np.percentile(reduce(theirs), percentile)
                    assert np.percentile(reduce(ours), percentile) <= limit, (key, name, percentile)


def test_observation_reward_and_termination(transitions):
    recorded, own = transitions
    scale = 1 + np.abs(recorded["obs"]).max(axis=1, keepdims=True) + np.abs(recorded["joint_q"][:, :3]).max()
    assert (np.abs(own["obs"] - recorded["obs"]) <= 5e-7 * scale).all()
    np.testing.assert_allclose(own["reward"], recorded["reward"], rtol=1e-6, atol=3e-6)
    assert recorded["termination"].any()
    np.testing.assert_array_equal(own["termination"], recorded["termination"].astype(bool))
    np.testing.assert_array_equal(own["before_reset"], own["next_obs"])


def test_twenty_steps_stay_on_the_recorded_path(shared_dir):
    """Median, 99th percentile and maximum over 32 sequences of 20 steps."""
    recorded = np.load(shared_dir / "golden" / "rollout_train.npz")
    env = AntEnv(recorded["joint_q"].shape[1], early_termination=False)
    env.set_state(torch.from_numpy(recorded["joint_q"][0]), torch.from_numpy(recorded["joint_qd"][0]))
    ours: dict[str, list[np.ndarray]] = {"joint_q": [], "joint_qd": [], "obs": [], "reward": []}
    for action in recorded["action"][:20]:
        step = env.step(torch.from_numpy(action))
        q, qd = env.get_state()
        for key, value in (("joint_q", q), ("joint_qd", qd), ("obs", step.obs), ("reward", step.reward)):
            ours[key].append(value.numpy().copy())
    for key, values in ours.items():
        when = slice(0, 20) if key == "reward" else slice(1, 21)
        truth = recorded[f"{key}_f64"][when]
        error = np.abs(np.array(values) - truth).reshape(20, 32, -1).max(axis=2)
        yardstick = np.abs(recorded[key][when] - truth).reshape(20, 32, -1).max(axis=2)
        for percentile in (50, 99, 100):
            assert np.percentile(error, percentile) <= 1.5 * np.percentile(yardstick, percentile), (key, percentile)
