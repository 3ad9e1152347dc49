"""The Ant in plain float64 NumPy, one environment at a time: an independent check of the fused kernels.

Nothing here is shared with the code under test except the masses and lengths of `flowmbpo.physics.ant`. A general
articulated body about the *world* origin in *world* axes with a dense mass matrix, the way docs/physics.md states it,
where the kernels use torso-centred axes, leg symmetry and block elimination.
"""

from __future__ import annotations

import math

import numpy as np

from flowmbpo.physics import ant

PARENT = (-1, 0, 1, 0, 3, 0, 5, 0, 7)
CORNER = ((1, 1), (-1, 1), (-1, -1), (1, -1))
ANKLE_AXIS = ((-1, 1, 0), (1, 1, 0), (-1, 1, 0), (1, 1, 0))
LINKS = ant.links()
UP = np.array([0.0, 1.0, 0.0])


def _geometry() -> tuple[list[np.ndarray], list[np.ndarray], list[tuple[int, np.ndarray, float]]]:
    """Joint offsets and axes of links 1 to 8, and the 25 contact candidates (link, local point, radius)."""
    offsets, axes = [np.zeros(3)], [np.zeros(3)]
    points = [(0, np.zeros(3), 0.25)]
    for leg, corner in enumerate(CORNER):
        step = np.array([0.2 * corner[0], 0.2 * corner[1], 0.0])
        offsets += [step, step]
        axes += [np.array([0.0, 0.0, 1.0]), np.array(ANKLE_AXIS[leg]) / math.sqrt(2)]
        points += [(0, np.zeros(3), 0.08), (0, step, 0.08)]
        points += [(2 * leg + 1, np.zeros(3), 0.08), (2 * leg + 1, step, 0.08)]
        points += [(2 * leg + 2, np.zeros(3), 0.08), (2 * leg + 2, 2 * step, 0.08)]
    return offsets, axes, points


OFFSETS, AXES, POINTS = _geometry()


def skew(a: np.ndarray) -> np.ndarray:
    return np.array([[0, -a[2], a[1]], [a[2], 0, -a[0]], [-a[1], a[0], 0]])


def rotation(q: np.ndarray) -> np.ndarray:
    u, w = q[:3], q[3]
    return (2 * w * w - 1) * np.eye(3) + 2 * w * skew(u) + 2 * np.outer(u, u)


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    vector = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
    return np.append(vector, a[3] * b[3] - a[:3] @ b[:3])


def cross_motion(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate((np.cross(a[:3], b[:3]), np.cross(a[3:], b[:3]) + np.cross(a[:3], b[3:])))


def cross_force(a: np.ndarray, f: np.ndarray) -> np.ndarray:
    return np.concatenate((np.cross(a[:3], f[:3]) + np.cross(a[3:], f[3:]), np.cross(a[:3], f[3:])))


class Pose:
    """Positions, rotations, motion vectors, velocities and world-origin inertias of all links in one state."""

    def __init__(self, q: np.ndarray, qd: np.ndarray) -> None:
        positions, quaternions = [q[:3]], [q[3:7]]
        self.motion = [np.eye(6)]
        velocities, drift = [qd[:6]], [np.zeros(6)]
        for i in range(1, 9):
            k, angle = PARENT[i], q[6 + i]
            r = rotation(quaternions[k])
            axis = r @ AXES[i]
            positions.append(positions[k] + r @ OFFSETS[i])
            half = np.append(AXES[i] * math.sin(angle / 2), math.cos(angle / 2))
            quaternions.append(multiply(quaternions[k], half))
            s = np.concatenate((axis, np.cross(positions[i], axis)))
            self.motion.append(s)
            joint = s * qd[5 + i]
            velocities.append(velocities[k] + joint)
            drift.append(drift[k] + cross_motion(velocities[i], joint))
        self.p, self.v, self.a = positions, velocities, drift
        self.r = [rotation(quaternion) for quaternion in quaternions]
        self.com = [p + r @ link.com for p, r, link in zip(positions, self.r, LINKS, strict=True)]
        self.inertia = []
        for r, c, link in zip(self.r, self.com, LINKS, strict=True):
            cx = skew(c)
            top = np.hstack((r @ link.inertia @ r.T + link.mass * cx @ cx.T, link.mass * cx))
            self.inertia.append(np.vstack((top, np.hstack((link.mass * cx.T, link.mass * np.eye(3))))))

    def mass_matrix(self) -> np.ndarray:
        h = np.diag([0.0] * 6 + [ant.ARMATURE] * 8)
        for i in range(9):
            jacobian = np.zeros((6, 14))
            jacobian[:, :6] = np.eye(6)
            link = i
            while link > 0:
                jacobian[:, 5 + link] = self.motion[link]
                link = PARENT[link]
            h += jacobian.T @ self.inertia[i] @ jacobian
        return h

    def contacts(self) -> list[tuple[int, np.ndarray, float, np.ndarray]]:
        """(link, point, depth, velocity) of every candidate below the ground."""
        found = []
        for link, local, radius in POINTS:
            x = self.p[link] + self.r[link] @ local - radius * UP
            if x[1] < 0:
                found.append((link, x, -x[1], self.v[link][3:] + np.cross(self.v[link][:3], x)))
        return found

    def momentum(self) -> np.ndarray:
        """Total momentum: angular about the world's origin, then linear."""
        return sum(i @ v for i, v in zip(self.inertia, self.v, strict=True))

    def energy(self, q: np.ndarray, qd: np.ndarray) -> float:
        """Kinetic energy, weight, and what contact springs and joint limits store."""
        total = 0.5 * qd @ self.mass_matrix() @ qd
        total += sum(link.mass * ant.GRAVITY * c[1] for link, c in zip(LINKS, self.com, strict=True))
        total += sum(0.5 * ant.CONTACT_KE * depth**2 for _, _, depth, _ in self.contacts())
        return total + sum(0.5 * limit_torque(q[7 + j], j) ** 2 / ant.LIMIT_STIFFNESS for j in range(8))


def limit_torque(angle: float, j: int) -> float:
    low, high = -ant.HIP_LIMIT, ant.HIP_LIMIT
    if j % 2:
        low, high = sorted(ant.ANKLE_SIGN[j // 2] * bound for bound in (ant.ANKLE_LOWER, ant.ANKLE_UPPER))
    return ant.LIMIT_STIFFNESS * (max(low - angle, 0.0) - max(angle - high, 0.0))


def generalised_force(pose: Pose, q: np.ndarray, qd: np.ndarray, action: np.ndarray) -> np.ndarray:
    wrench = []
    for link, c, inertia, v, a in zip(LINKS, pose.com, pose.inertia, pose.v, pose.a, strict=True):
        weight = np.array([0.0, -link.mass * ant.GRAVITY, 0.0])
        wrench.append(inertia @ a + cross_force(v, inertia @ v) - np.concatenate((np.cross(c, weight), weight)))
    for index, x, depth, u in pose.contacts():
        sliding = u - u[1] * UP
        speed = np.linalg.norm(sliding)
        force = depth * (ant.CONTACT_KE + ant.CONTACT_KD * max(-u[1], 0.0)) * UP
        if speed > 0:
            cap = min(ant.CONTACT_KF * speed, ant.CONTACT_MU * ant.CONTACT_KE * depth)
            force = force - cap * sliding / speed
        wrench[index] = wrench[index] - np.concatenate((np.cross(x, force), force))
    for i in range(8, 0, -1):
        wrench[PARENT[i]] = wrench[PARENT[i]] + wrench[i]
    tau = np.concatenate((-wrench[0], np.zeros(8)))
    for j in range(8):
        motor = ant.ACTION_STRENGTH * np.clip(action[j], -1, 1)
        resisted = ant.JOINT_DAMPING * qd[6 + j]
        tau[6 + j] = -pose.motion[1 + j] @ wrench[1 + j] + motor - resisted + limit_torque(q[7 + j], j)
    return tau


def control_step(
    q: np.ndarray, qd: np.ndarray, action: np.ndarray, interval: int = ant.SUBSTEPS
) -> tuple[np.ndarray, np.ndarray]:
    """joint_q (15) and joint_qd (14) after 1/60 s."""
    q, qd = q.astype(np.float64).copy(), qd.astype(np.float64).copy()
    h, mass = ant.SUBSTEP, np.eye(14)
    for k in range(ant.SUBSTEPS):
        pose = Pose(q, qd)
        if k % interval == 0:
            mass = pose.mass_matrix()
        qd = qd + h * np.linalg.solve(mass, generalised_force(pose, q, qd, action))
        w, v = qd[:3], qd[3:6]
        turned = q[3:7] + 0.5 * h * multiply(np.append(w, 0.0), q[3:7])
        q = np.concatenate((q[:3] + h * (v + np.cross(w, q[:3])), turned / np.linalg.norm(turned), q[7:] + h * qd[6:]))
    return q, qd
