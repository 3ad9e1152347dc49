"""Where the Ant's links and shapes are for given joint positions: plain NumPy, for pictures and for checks.

The simulator does not use this; it takes the same numbers from `ant`. World axes are y-up, quaternions (x, y, z, w).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowmbpo.physics import ant

NUM_LINKS = 1 + 2 * ant.NUM_LEGS


class Capsule(NamedTuple):
    """All points within `radius` (m) of the segment from `start` to `end`, in the axes of `link`; a sphere if equal."""

    link: int
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float
    part: str


def leg_direction(leg: int) -> np.ndarray:
    """Unit vector (3,) along leg 0..3 in its zero pose, in link axes."""
    return ant.yaw_matrix(ant.LEG_YAW[leg])[:, 0]


def capsules() -> list[Capsule]:
    """The 13 shapes: torso sphere, then stub, upper link and foot of each leg."""
    origin = (0.0, 0.0, 0.0)
    shapes = [Capsule(0, origin, origin, ant.TORSO_RADIUS, "torso")]
    for leg in range(ant.NUM_LEGS):
        direction = leg_direction(leg)
        for link, length, part in (
            (0, ant.STUB_LENGTH, "stub"),
            (1 + 2 * leg, ant.UPPER_LENGTH, "upper"),
            (2 + 2 * leg, ant.FOOT_LENGTH, "foot"),
        ):
            x, y, z = (float(value) for value in length * direction)
            shapes.append(Capsule(link, origin, (x, y, z), ant.LIMB_RADIUS, f"{part} {leg + 1}"))
    return shapes


def link_poses(joint_q: np.ndarray) -> np.ndarray:
    """Forward kinematics: joint_q (..., 15) to origin and quaternion of each link, (..., 9, 7), in world axes.

    P_i = P_k + R(Q_k) d_i and Q_i = Q_k * (a_i sin(angle/2), cos(angle/2)) for the child i of link k.
    """
    q = np.asarray(joint_q, dtype=np.float64)
    if q.shape[-1] != ant.NUM_Q:
        raise ValueError(f"joint_q has {q.shape[-1]} entries, expected {ant.NUM_Q}")
    poses = np.empty((*q.shape[:-1], NUM_LINKS, 7))
    poses[..., 0, :] = q[..., :7]
    for leg in range(ant.NUM_LEGS):
        direction = leg_direction(leg)
        up = np.array([0.0, 0.0, 1.0])
        joints = (
            (0, 1 + 2 * leg, ant.STUB_LENGTH, up),
            (1 + 2 * leg, 2 + 2 * leg, ant.UPPER_LENGTH, ant.ANKLE_SIGN[leg] * np.cross(up, direction)),
        )
        for hinge, (parent, child, length, axis) in enumerate(joints):
            half = 0.5 * q[..., 7 + 2 * leg + hinge, None]
            turn = np.concatenate([axis * np.sin(half), np.cos(half)], axis=-1)
            poses[..., child, :3] = poses[..., parent, :3] + rotate(poses[..., parent, 3:], length * direction)
            poses[..., child, 3:] = multiply(poses[..., parent, 3:], turn)
    return poses


def rotate(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """R(q) v for quaternions (..., 4) and vectors (..., 3)."""
    u, w = quaternion[..., :3], quaternion[..., 3:]
    vector = np.broadcast_to(vector, u.shape)
    return (2 * w * w - 1) * vector + 2 * w * np.cross(u, vector) + 2 * u * (u * vector).sum(-1, keepdims=True)


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton product of quaternions (..., 4)."""
    u, w, v, s = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    return np.concatenate([w * v + s * u + np.cross(u, v), w * s - (u * v).sum(-1, keepdims=True)], axis=-1)
