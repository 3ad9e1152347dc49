"""The differentiable control step: its values are those of the environment, its derivatives those of the reference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import warp as wp
from torch import Tensor

from flowmbpo.envs import AntEnv, ant_gradients, ant_observation, ant_step
from tests.physics import reference_ant as reference
from tests.physics.ants import random_states

ALLOWED = 2.0  # times the error of the reference's own float32 adjoint


def tangential(gradient: np.ndarray, joint_q: np.ndarray) -> np.ndarray:
    """Without the radial part of the quaternion's derivatives, which depends on how one leaves the unit sphere."""
    quaternion = joint_q[..., 3:7]
    along = (gradient[..., 3:7] * quaternion).sum(-1, keepdims=True) / (quaternion**2).sum(-1, keepdims=True)
    gradient = gradient.copy()
    gradient[..., 3:7] -= along * quaternion
    return gradient


def states(count: int, seed: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Landing and tumbling Ants with actions, ready to be differentiated."""
    q, qd = random_states(count, seed=seed, height=0.5, speed=2.0)
    action = np.random.default_rng(seed).uniform(-1, 1, (count, 8))
    q, qd, action = (torch.from_numpy(x).float().requires_grad_() for x in (q, qd, action))
    return q, qd, action


@pytest.fixture(scope="module")
def recorded(request) -> dict[str, np.ndarray]:
    return dict(np.load(request.getfixturevalue("shared_dir") / "golden" / "gradient_train.npz"))


@pytest.mark.parametrize("loss", ["qqd", "obs", "h4"])
def test_as_true_as_the_reference(recorded, loss):
    """Median and 99th percentile of the relative error against the adjoint of the reference in float64."""

    def given(name: str) -> Tensor:
        return torch.from_numpy(recorded[name]).float()

    q, qd = given("joint_q").requires_grad_(), given("joint_qd").requires_grad_()
    action = given("actions_h4" if loss == "h4" else "action").requires_grad_()
    if loss == "h4":
        value, next_q, next_qd = torch.zeros(()), q, qd
        obs = ant_observation(q, qd, torch.zeros(len(q), 8))
        for t in range(4):
            reward = obs[:, 5] + 0.1 * obs[:, 27] + obs[:, 28] + obs[:, 0]
            next_q, next_qd, obs = ant_step(next_q, next_qd, action[t])
            value = value + (obs * given("cot_obs_h4")[t]).sum() + (reward * given("cot_rew_h4")[t]).sum()
    else:
        next_q, next_qd, obs = ant_step(q, qd, action)
        value = (obs * given("cot_obs")).sum()
        if loss == "qqd":
            value = (next_q * given("cot_q")).sum() + (next_qd * given("cot_qd")).sum()
    for name, own in zip(("q", "qd", "action"), torch.autograd.grad(value, (q, qd, action)), strict=True):
        key = f"grad_{loss}_{name}"
        found = [own.double().numpy(), recorded[key].astype(float), recorded[f"{key}_f64"]]
        if name == "q":
            found = [tangential(gradient, recorded["joint_q"]) for gradient in found]
        if name == "action" and loss == "h4":
            found = [gradient.transpose(1, 0, 2).reshape(len(q), -1) for gradient in found]
        ours, theirs, truth = found
        length = np.linalg.norm(truth, axis=1).clip(1e-9)
        for percentile in (50, 99):
            error, yardstick = (
                np.percentile(np.linalg.norm(gradient - truth, axis=1) / length, percentile)
                for gradient in (ours, theirs)
            )
            assert error <= ALLOWED * yardstick, (key, percentile)


@pytest.mark.parametrize("interval", [1, 5, 16])
def test_finite_differences_of_the_dense_world_frame_program(interval):
    """Central differences in float64 along random directions; contacts that switch inside the stencil may disagree."""
    count, step = 21, 1e-6
    q, qd, action = states(count)
    next_q, next_qd, _ = ant_step(q, qd, action, interval)
    random = np.random.default_rng(0)
    cotangents = random.normal(size=(count, 29)) * np.array([1.0] * 15 + [0.1] * 14)
    value = (torch.cat((next_q, next_qd), 1) * torch.from_numpy(cotangents).float()).sum()
    gradients = np.concatenate([g.double().numpy() for g in torch.autograd.grad(value, (q, qd, action))], 1)
    start = np.concatenate([x.detach().double().numpy() for x in (q, qd, action)], 1)
    errors = []
    for i in range(count):
        direction = random.normal(size=37)
        direction[:15] = tangential(direction[:15], start[i, :15])

        def along(distance: float, i: int = i, direction: np.ndarray = direction) -> float:
            x = start[i] + distance * direction
            return float(cotangents[i] @ np.concatenate(reference.control_step(x[:15], x[15:29], x[29:], interval)))

        difference = (along(step) - along(-step)) / (2 * step)
        scale = np.linalg.norm(gradients[i]) * np.linalg.norm(direction)
        errors.append(abs(gradients[i] @ direction - difference) / scale)
    assert np.median(errors) < 1e-6
    assert np.percentile(errors, 90) < 1e-4


@pytest.mark.parametrize(("count", "interval"), [(1, 16), (16, 16), (37, 5), (200, 1)])
def test_values_are_those_of_the_environment(count, interval):
    q, qd, action = (x.detach() for x in states(count))
    env = AntEnv(count, early_termination=False, mass_matrix_interval=interval)
    torch.testing.assert_close(ant_observation(q, qd, action), env.set_state(q, qd, action), atol=1e-6, rtol=1e-6)
    next_q, next_qd, obs = ant_step(q, qd, action, interval)
    want = env.step(action).obs
    want_q, want_qd = env.get_state()
    for own, expected in ((next_q, want_q), (next_qd, want_qd), (obs, want)):
        torch.testing.assert_close(own, expected, atol=2e-5, rtol=2e-5)


def test_an_ant_does_not_depend_on_its_neighbours_or_on_the_number_of_threads():
    q, qd, action = states(200)

    def gradients(first: int, last: int) -> list[Tensor]:
        parts = [x[first:last] for x in (q, qd, action)]
        _, _, obs = ant_step(*parts)
        return [g[first:last] for g in torch.autograd.grad(obs.sin().sum(), (q, qd, action))]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = gradients(0, 200)
        torch.set_num_threads(3)
        for one, other in zip(whole, gradients(0, 200), strict=True):
            assert torch.equal(one, other)
        for one, other in zip(whole, gradients(64, 131), strict=True):
            torch.testing.assert_close(one[64:131], other, atol=1e-6, rtol=1e-5)
    finally:
        torch.set_num_threads(threads)


def test_state_as_observation_differentiates_like_coordinates():
    """Three steps from above the origin. What an Ant sees of a target 10 km away after them differs by 1e-8."""
    q, qd, action = (x.detach() for x in states(20))
    q[:, [0, 2]] = 0.0
    actions = [action.clone().requires_grad_() for _ in range(3)]
    weights = torch.linspace(-1, 1, 37)
    obs = ant_observation(q, qd, torch.zeros_like(action))
    for a in actions:
        obs = ant_gradients.simulate(torch.cat((obs, a), 1), "observation", 16)
    for a in actions:
        q, qd, want = ant_step(q, qd, a)
    torch.testing.assert_close(obs, want, atol=1e-4, rtol=1e-4)
    found, expected = (torch.autograd.grad((x * weights).sum(), actions) for x in (obs, want))
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4 * float(other.abs().max()), rtol=1e-3)


def test_a_buffer_that_is_overwritten_later_does_no_harm():
    """The environment writes into its own memory, unseen by Torch."""
    env = AntEnv(16)
    buffer = env.reset()
    action = torch.zeros(16, 8, requires_grad=True)

    def gradient(obs: Tensor, disturb: bool) -> Tensor:
        result = ant_gradients.simulate(torch.cat((obs, action), 1), "observation", 16)
        if disturb:
            env.step(torch.ones(16, 8))
        return torch.autograd.grad(result.sum(), action)[0]

    want = gradient(buffer.clone(), disturb=False)
    assert torch.equal(gradient(buffer, disturb=True), want)


def test_second_derivatives_are_refused():
    q, qd, action = states(2)
    _, _, obs = ant_step(q, qd, action)
    (first,) = torch.autograd.grad(obs.square().sum(), action, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, qd, a: (q[:, :14], qd, a), r"joint_q has shape \(3, 14\); expected \(3, 15\)"),
        (lambda q, qd, a: (q, qd[:2], a), r"joint_qd has shape \(2, 14\); expected \(3, 14\)"),
        (lambda q, qd, a: (q, qd, a.double()), r"action is torch.float64"),
        (lambda q, qd, a: (q, qd.where(torch.arange(3)[:, None] < 2, torch.nan), a), r"joint_qd .* not finite.* row 2"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = change(*(x.detach() for x in states(3)))
    with pytest.raises(ValueError, match=message):
        ant_step(*arguments)
    with pytest.raises(ValueError, match=message.replace("action", "last_action")):
        ant_observation(*arguments)


def test_interval_is_checked():
    with pytest.raises(ValueError, match="mass_matrix_interval is 17"):
        ant_step(*states(1), mass_matrix_interval=17)


def test_who_needs_no_gradients_does_not_load_them():
    program = (
        "import sys, torch; from flowmbpo.envs import AntEnv; AntEnv(2).step(torch.zeros(2, 8));"
        "print([m for m in ('flowmbpo.envs.ant_gradients', 'flowmbpo.physics.differentiable') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(("layout", "arch"), [("coordinates", 89), ("observation", 90)])
def test_compiles_for_a_gpu_that_is_not_here(layout, arch, tmp_path: Path):
    for kernel in (ant_gradients.kernels(layout, "cuda").step(), ant_gradients.kernels(layout, "cuda").vjp()):
        folder = tmp_path / kernel.key
        wp.compile_aot_module(kernel.module, arch=arch, module_dir=folder)
        assert any(path.suffix == ".cubin" and path.stat().st_size > 10_000 for path in folder.iterdir())
