"""What each environment looks like: its shapes, and where they are. For recordings; learning never asks.

A new environment that should be shown in replays gets a function and a line in `SCENES`; one of another package has
a method `scene() -> Scene`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from flowmbpo.errors import UserError
from flowmbpo.physics import ant, ant_pose
from flowmbpo.physics.ant_pose import Capsule

if TYPE_CHECKING:
    from flowmbpo.envs.ant import AntEnv

_POINT_RADIUS = 0.08


class Scene(NamedTuple):
    """`poses(env, obs)` gives origin and quaternion (x, y, z, w) of each link, (num_envs, L, 7), in a y-up world."""

    capsules: list[Capsule]
    dt: float  # s per control step
    poses: Callable[[Any, Tensor], np.ndarray]


def _ant() -> Scene:
    def poses(env: AntEnv, obs: Tensor) -> np.ndarray:
        return ant_pose.link_poses(env.get_state()[0].cpu().numpy())

    return Scene(ant_pose.capsules(), ant.SUBSTEPS * ant.SUBSTEP, poses)


def _pointmass() -> Scene:
    """A ball on the x axis. The task has no clock; a tenth of a second a step is comfortable to watch."""

    def poses(env: object, obs: Tensor) -> np.ndarray:
        pose = np.tile([0.0, _POINT_RADIUS, 0.0, 0.0, 0.0, 0.0, 1.0], (len(obs), 1, 1))
        pose[:, 0, 0] = obs[:, 0].cpu().numpy()
        return pose

    origin = (0.0, 0.0, 0.0)
    return Scene([Capsule(0, origin, origin, _POINT_RADIUS, "point")], 0.1, poses)


SCENES: dict[str, Callable[[], Scene]] = {"ant": _ant, "pointmass": _pointmass}


def scene_of(kind: str, env: object) -> Scene:
    """The scene of an environment of this kind. Raises UserError where it has none."""
    make = SCENES.get(kind) or getattr(env, "scene", None)
    if make is None:
        raise UserError(f"the environment {kind!r} does not say what it looks like (a method `scene`)")
    return make()
