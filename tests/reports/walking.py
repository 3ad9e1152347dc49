"""A synthetic walk: two diagonal pairs of legs take turns, the lowest foot always 1 cm in the ground."""

from __future__ import annotations

import dataclasses

import numpy as np

from flowmbpo.physics import ant, ant_pose
from flowmbpo.runs.episode import Episode

SPEED = 3.0  # m/s
DT = 1 / 60


def walk(steps: int = 240, title: str = "48M-flow-v2/seed-0") -> Episode:
    """An episode of `steps` control steps with reward 4 in each."""
    time = np.arange(steps) * DT
    phase = 2 * np.pi * 2.2 * time
    q = np.zeros((steps, ant.NUM_Q))
    q[:, 0] = SPEED * time
    q[:, 3:7] = ant.START_QUATERNION
    for leg in range(ant.NUM_LEGS):
        swing = phase + np.pi * (leg % 2)
        q[:, 7 + 2 * leg] = 0.4 * np.sin(swing) * (1 if leg < 2 else -1)
        q[:, 8 + 2 * leg] = ant.ANKLE_SIGN[leg] * (0.95 + 0.3 * np.cos(swing))
    capsules = ant_pose.capsules()
    episode = Episode(
        title=title,
        dt=DT,
        capsule_link=np.array([capsule.link for capsule in capsules]),
        capsule_ends=np.array([[capsule.start, capsule.end] for capsule in capsules], dtype=np.float32),
        capsule_radius=np.array([capsule.radius for capsule in capsules], dtype=np.float32),
        capsule_part=tuple(capsule.part for capsule in capsules),
        poses=ant_pose.link_poses(q).astype(np.float32),
        reward=np.full(steps, 4.0, dtype=np.float32),
        speed=np.full(steps, SPEED, dtype=np.float32),
        outcome="time limit",
        details=(("checkpoint", "epoch 500"), ("start", "seed 0")),
    )
    poses = episode.poses.copy()
    poses[:, :, 1] -= episode.clearance().min(axis=1)[:, None] + 0.01
    return dataclasses.replace(episode, poses=poses)


def ball(steps: int = 30) -> Episode:
    """A body without feet or speed: one ball that rolls along x."""
    poses = np.zeros((steps, 1, 7), dtype=np.float32)
    poses[:, 0, 0] = 0.05 * np.arange(steps)
    poses[:, 0, 1], poses[:, 0, 6] = 0.1, 1.0
    return Episode(
        title="ball",
        dt=0.1,
        capsule_link=np.zeros(1, dtype=int),
        capsule_ends=np.zeros((1, 2, 3), dtype=np.float32),
        capsule_radius=np.array([0.1], dtype=np.float32),
        capsule_part=("point",),
        poses=poses,
        reward=np.linspace(-1, 1, steps, dtype=np.float32),
        speed=np.full(steps, np.nan, dtype=np.float32),
        outcome="recording ended",
    )
