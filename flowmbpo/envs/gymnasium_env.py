"""Our environments as Gymnasium vector environments, numpy in and numpy out.

Not used by our own training, which keeps torch tensors on their device. Importing this module registers
`flowmbpo/Ant-v0` and `flowmbpo/PointMass-v0`; Gymnasium imports it by itself when asked for
`gymnasium.make_vec("flowmbpo.envs.gymnasium_env:flowmbpo/Ant-v0", num_envs=64)`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from flowmbpo.envs import make_env


class TorchVectorEnv(VectorEnv):
    """A batch of environments of `kind` behind Gymnasium's interface.

    An environment that ends is reset inside the same step (`AutoresetMode.SAME_STEP`): the returned observation opens
    the new episode, and the one that closed the old is row i of `info["final_obs"]`, valid where
    `info["_final_obs"][i]`. `terminated` and `truncated` are kept apart. Returned arrays are copies.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(self, kind: str, num_envs: int = 1, seed: int = 0, **arguments: Any) -> None:
        """Further arguments are those of the environment's class: `device`, `episode_length`, ..."""
        self._env = make_env(kind, num_envs=num_envs, seed=seed, **arguments)
        self.num_envs = num_envs
        unbounded = np.full(self._env.obs_dim, np.inf, dtype=np.float32)
        one = np.ones(self._env.action_dim, dtype=np.float32)
        self.single_observation_space = Box(-unbounded, unbounded)
        self.single_action_space = Box(-one, one)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a new episode everywhere; `seed`, one whole number for the batch, restarts the random streams."""
        if isinstance(seed, list):
            raise ValueError("seed is a list; allowed: one whole number, from which every environment gets its stream")
        super().reset(seed=seed)
        if seed is not None:
            self._env.reseed(seed)
        return _numpy(self._env.reset()), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Apply actions (num_envs, action_dim) in [-1, 1]."""
        given = torch.as_tensor(np.asarray(actions, dtype=np.float32), device=self._env.device)
        step = self._env.step(given)
        terminated, truncated = _numpy(step.terminated), _numpy(step.truncated)
        done = terminated | truncated
        info: dict[str, Any] = {}
        if done.any():
            info = {"final_obs": _numpy(step.obs_before_reset), "_final_obs": done}
        return _numpy(step.obs), _numpy(step.reward), terminated, truncated, info


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return np.array(tensor.cpu().numpy())


def register() -> None:
    """Make our environments known to `gymnasium.make_vec`; the package's `gymnasium.envs` entry point names this."""
    for name, kind in (("flowmbpo/Ant-v0", "ant"), ("flowmbpo/PointMass-v0", "pointmass")):
        if name not in gymnasium.registry:
            gymnasium.register(name, vector_entry_point=f"{__name__}:TorchVectorEnv", kwargs={"kind": kind})


register()
