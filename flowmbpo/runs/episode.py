"""One recorded episode as plain arrays: what moved, what it earned. No simulator, no policy and no picture here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Outcome = Literal["terminated", "time limit", "recording ended"]


@dataclass(frozen=True)
class Episode:
    """T control steps of one environment. Arrays are float32 unless said; metres, seconds, world axes y-up.

    Every body is made of capsules: all points within a radius of a segment (a sphere has a segment of no length).
    """

    title: str
    dt: float  # s per control step
    capsule_link: np.ndarray  # (C,) int: the link whose axes the ends are given in
    capsule_ends: np.ndarray  # (C, 2, 3) start and end of the segment
    capsule_radius: np.ndarray  # (C,)
    capsule_part: tuple[str, ...]  # (C,) "torso", "stub 1", "upper 1", "foot 1", ...
    poses: np.ndarray  # (T, L, 7) origin and quaternion (x, y, z, w) of each link before step t
    reward: np.ndarray  # (T,) reward of step t, which scores the state shown at t
    speed: np.ndarray  # (T,) m/s along +x; NaN where the task has no speed
    outcome: Outcome
    details: tuple[tuple[str, str], ...] = field(default=())  # what else a viewer should know: (label, value)

    def __post_init__(self) -> None:
        steps, capsules = len(self.poses), len(self.capsule_link)
        assert self.poses.ndim == 3, self.poses.shape
        assert self.poses.shape[2] == 7, self.poses.shape
        assert steps > 0, "an episode has at least one step"
        assert self.reward.shape == self.speed.shape == (steps,)
        assert self.capsule_ends.shape == (capsules, 2, 3)
        assert len(self.capsule_part) == len(self.capsule_radius) == capsules

    @property
    def steps(self) -> int:
        return len(self.poses)

    @property
    def cumulative_reward(self) -> np.ndarray:
        """R so far, (T,): the undiscounted sum of the rewards of steps 0..t."""
        return np.cumsum(self.reward, dtype=np.float64).astype(np.float32)

    @property
    def feet(self) -> tuple[int, ...]:
        """Indices of the capsules whose far end is a foot."""
        return tuple(index for index, part in enumerate(self.capsule_part) if part.startswith("foot"))

    def segments(self) -> np.ndarray:
        """World positions of both ends of every capsule, (T, C, 2, 3)."""
        pose = self.poses[:, self.capsule_link]  # (T, C, 7)
        u, w = pose[..., None, 3:6], pose[..., None, 6:7]
        v = self.capsule_ends[None]
        turned = (2 * w * w - 1) * v + 2 * w * np.cross(u, v) + 2 * u * (u * v).sum(-1, keepdims=True)
        return np.asarray(pose[..., None, :3] + turned, dtype=np.float32)

    def clearance(self) -> np.ndarray:
        """Height of each foot's lowest point over the ground, (T, F); negative in contact (the ground is soft)."""
        feet = list(self.feet)
        return self.segments()[:, feet, 1, 1] - self.capsule_radius[feet]
