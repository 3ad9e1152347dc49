"""The simulator against mechanics: free fall, momentum, energy, symmetries, and an independent NumPy program."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowmbpo.physics import ant
from tests.physics import reference_ant as reference
from tests.physics.ants import free_ant, put, random_states, start_pose, state_of


def zero(num_envs: int) -> torch.Tensor:
    return torch.zeros(num_envs, ant.NUM_ACTIONS)


@pytest.mark.parametrize("interval", [1, 5, 16])
@pytest.mark.parametrize(("height", "speed"), [(3.0, 3.0), (0.5, 1.0), (0.3, 8.0)])
def test_agrees_with_dense_world_frame_program(interval, height, speed):
    """Flying, landing and tumbling, in any orientation; every float32 operation of ours rounds at 6e-8."""
    q, qd = random_states(24, seed=7, height=height, speed=speed)
    q, qd = q.astype(np.float32).astype(float), qd.astype(np.float32).astype(float)
    action = np.random.default_rng(1).uniform(-1.3, 1.3, (24, 8)).astype(np.float32)
    env = free_ant(24, mass_matrix_interval=interval)
    put(env, q, qd)
    env.step(torch.from_numpy(action))
    own_q, own_qd = state_of(env)
    for i in range(24):
        want_q, want_qd = reference.control_step(q[i], qd[i], action[i], interval)
        np.testing.assert_allclose(own_q[i], want_q, atol=2e-5 * (1 + np.abs(want_qd).max()))
        np.testing.assert_allclose(own_qd[i], want_qd, atol=3e-5 * (1 + np.abs(want_qd).max()))


def test_free_fall_is_exact_for_the_integrator():
    """No torque acts on a resting start pose: after n substeps v = -g n h and the drop is g h^2 n (n + 1) / 2, up to
    the rounding of 480 additions in float32."""
    env = free_ant(3)
    put(env, *start_pose(3, height=50.0))
    for _ in range(30):
        env.step(zero(3))
    q, qd = state_of(env)
    n, h = 30 * ant.SUBSTEPS, ant.SUBSTEP
    np.testing.assert_allclose(qd[:, 4], -ant.GRAVITY * n * h, rtol=2e-5)
    np.testing.assert_allclose(q[:, 1], 50.0 - ant.GRAVITY * h * h * n * (n + 1) / 2, rtol=2e-6)
    np.testing.assert_allclose(q[:, 7:], start_pose(3)[0][:, 7:], atol=2e-5)
    np.testing.assert_allclose(q[:, 3:7], start_pose(3)[0][:, 3:7], atol=2e-6)


def momentum_drift(interval: int) -> tuple[float, float]:
    """Largest relative change of angular momentum about the centre of mass, and of linear momentum against -m g t,
    over 10 control steps of tumbling Ants whose motors work against each other."""
    q, qd = random_states(16, seed=3, height=60.0, speed=1.0)
    q[:, [0, 2]] = 0.0
    env = free_ant(16, mass_matrix_interval=interval)
    put(env, q, qd)

    def measure() -> tuple[np.ndarray, np.ndarray]:
        angular, linear = [], []
        for one_q, one_qd in zip(*state_of(env), strict=True):
            pose = reference.Pose(one_q, one_qd)
            total = pose.momentum()
            mass = sum(link.mass for link in reference.LINKS)
            com = sum(link.mass * c for link, c in zip(reference.LINKS, pose.com, strict=True)) / mass
            angular.append(total[:3] - np.cross(com, total[3:]))
            linear.append(total[3:] / mass)
        return np.array(angular), np.array(linear)

    angular, linear = measure()
    action = 0.4 * torch.rand(16, 8, generator=torch.Generator().manual_seed(0)) - 0.2
    for _ in range(10):
        env.step(action)
    angular_after, linear_after = measure()
    fall = np.array([0.0, -ant.GRAVITY * 10 / 60, 0.0])
    scale = np.linalg.norm(angular, axis=1).mean()
    return np.abs(angular_after - angular).max() / scale, np.abs(linear_after - linear - fall).max()


def test_momentum_is_conserved_in_flight():
    """Motors are internal, so neither momentum may change but by gravity. What remains is the integrator's first-order
    error with a fresh mass matrix; the cached one of the reference (interval 16) is visibly worse, as it should be."""
    angular, linear = momentum_drift(1)
    stale_angular, stale_linear = momentum_drift(16)
    assert angular < 0.01
    assert linear < 0.1  # m/s, of a motion of several m/s
    assert stale_angular > 5 * angular
    assert stale_linear > 5 * linear


def test_energy_never_grows_without_motors():
    """Contact springs store energy; damping, friction and joint damping only take it away."""
    q, qd = random_states(12, seed=5, height=0.9, speed=0.5)
    env = free_ant(12, mass_matrix_interval=1)
    put(env, q, qd)

    def energies() -> np.ndarray:
        states = zip(*state_of(env), strict=True)
        return np.array([reference.Pose(one_q, one_qd).energy(one_q, one_qd) for one_q, one_qd in states])

    first = before = energies()
    touched = np.zeros(12, bool)
    for _ in range(40):
        env.step(zero(12))
        after = energies()
        assert (after - before).max() < 0.002 * first.max()  # the integrator's own error
        touched |= [bool(reference.Pose(*state).contacts()) for state in zip(*state_of(env), strict=True)]
        before = after
    assert touched.all()
    assert (before < 0.8 * first).all()


def test_resting_ant_is_carried_by_its_contact_springs():
    env = free_ant(4)
    q, qd = random_states(4, seed=2, height=0.8, speed=0.1)
    q[:, 3:7] = start_pose(4)[0][:, 3:7]
    put(env, q, qd)
    for _ in range(900):
        env.step(zero(4))
    weight = ant.GRAVITY * sum(link.mass for link in reference.LINKS)
    for one_q, one_qd in zip(*state_of(env), strict=True):
        assert np.abs(one_qd).max() < 0.05
        force = sum(ant.CONTACT_KE * depth for _, _, depth, _ in reference.Pose(one_q, one_qd).contacts())
        assert force == pytest.approx(weight, rel=0.02)


def test_translation_changes_no_bit_of_the_motion():
    """10 km from the origin the Ant moves exactly as at the origin: only the heading observation knows where it is."""
    near, far = free_ant(20, seed=4), free_ant(20, seed=4)
    near.reset(), far.reset()
    moved = far.state_dict()
    moved["state"][:, 0] += 9_000.0
    moved["state"][:, 1] -= 4_000.0
    far.load_state_dict(moved)
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        action = 2 * torch.rand(20, 8, generator=generator) - 1
        a, b = near.step(action).obs, far.step(action).obs
        keep = [i for i in range(37) if i != 28]
        assert torch.equal(a[:, keep], b[:, keep])
    assert not torch.equal(a[:, 28], b[:, 28])


def test_turning_about_the_vertical_turns_the_motion():
    q, qd = random_states(16, seed=9, height=0.6, speed=1.0)
    angle = 1.1
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    half = np.array([0.0, np.sin(angle / 2), 0.0, np.cos(angle / 2)])
    turned_q, turned_qd = q.copy(), qd.copy()
    turned_q[:, :3] = q[:, :3] @ turn.T
    turned_q[:, 3:7] = [reference.multiply(half, one) for one in q[:, 3:7]]
    turned_qd[:, :3], turned_qd[:, 3:6] = qd[:, :3] @ turn.T, qd[:, 3:6] @ turn.T
    plain, turned = free_ant(16), free_ant(16)
    put(plain, q, qd)
    put(turned, turned_q, turned_qd)
    action = 2 * torch.rand(16, 8, generator=torch.Generator().manual_seed(2)) - 1
    for _ in range(5):
        plain.step(action)
        turned.step(action)
    (a_q, a_qd), (b_q, b_qd) = state_of(plain), state_of(turned)
    np.testing.assert_allclose(a_q[:, :3] @ turn.T, b_q[:, :3], atol=1e-4)
    np.testing.assert_allclose(a_q[:, 7:], b_q[:, 7:], atol=1e-3)
    np.testing.assert_allclose(a_qd[:, :3] @ turn.T, b_qd[:, :3], atol=5e-3)
    np.testing.assert_allclose(a_qd[:, 6:], b_qd[:, 6:], atol=2e-2)
