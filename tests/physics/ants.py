"""Making, setting and reading Ants in tests."""

from __future__ import annotations

import numpy as np
import torch

from flowmbpo.envs import AntEnv
from flowmbpo.physics import ant


def free_ant(num_envs: int, **arguments: object) -> AntEnv:
    """Ants that are never reset, so that physics can be watched undisturbed."""
    return AntEnv(num_envs, episode_length=10**9, early_termination=False, **arguments)  # type: ignore[arg-type]


def start_pose(num_envs: int, height: float = ant.START_HEIGHT) -> tuple[np.ndarray, np.ndarray]:
    """joint_q and joint_qd of Ants at rest in the start pose."""
    q = np.tile([0.0, height, 0.0, *ant.START_QUATERNION, *ant.START_ANGLES], (num_envs, 1))
    return q, np.zeros((num_envs, ant.NUM_QD))


def random_states(num_envs: int, seed: int, height: float, speed: float) -> tuple[np.ndarray, np.ndarray]:
    """Ants in any orientation around `height`, hinges within and a little outside their limits."""
    random = np.random.default_rng(seed)
    q, qd = start_pose(num_envs)
    q[:, :3] = random.uniform(-1, 1, (num_envs, 3))
    q[:, 1] = height + random.uniform(-0.3, 0.3, num_envs)
    quaternion = random.normal(size=(num_envs, 4))
    q[:, 3:7] = quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)
    q[:, 7:] += random.uniform(-0.8, 0.8, (num_envs, 8))
    return q, speed * random.uniform(-1, 1, qd.shape)


def put(env: AntEnv, q: np.ndarray, qd: np.ndarray) -> None:
    env.set_state(torch.from_numpy(q).float(), torch.from_numpy(qd).float())


def state_of(env: AntEnv) -> tuple[np.ndarray, np.ndarray]:
    """The state in float64."""
    q, qd = env.get_state()
    return q.double().numpy(), qd.double().numpy()
