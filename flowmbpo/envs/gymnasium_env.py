"""Our environments as Gymnasium environments, many at a time or one, numpy in and numpy out.

Not used by our own training, which keeps torch tensors on their device. `flowmbpo.envs` makes them known to Gymnasium.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
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

    def __init__(self, kind: str, num_envs: int = 1, seed: int | None = None, **arguments: Any) -> None:
        """Without a `seed` every environment made is another one, as everywhere in Gymnasium. Further arguments are
        those of the environment's class: `device`, `episode_length`, ..."""
        self._env = make_env(kind, num_envs=num_envs, seed=secrets.randbits(63) if seed is None else seed, **arguments)
        self.num_envs = num_envs
        self._obs = np.zeros((num_envs, self._env.obs_dim), dtype=np.float32)
        unbounded = np.full(self._env.obs_dim, np.inf, dtype=np.float32)
        one = np.ones(self._env.action_dim, dtype=np.float32)
        self.single_observation_space = Box(-unbounded, unbounded)
        self.single_action_space = Box(-one, one)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, object] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Begin a new episode, in all environments or where `options["reset_mask"]` (num_envs,), bool, is set.

        `seed` restarts the random streams, which belong to the batch, as in Gymnasium's own batched environments: of a
        list of seeds, one per environment, the same list gives the same batch, and one other number another one.
        """
        mask = _checked_mask(options, self.num_envs)
        if isinstance(seed, list | tuple | np.ndarray):
            seed = _of_list(seed, self.num_envs)
        super().reset(seed=seed)
        if seed is not None:
            self._env.reseed(int(seed))
        if mask is None:
            self._obs = _numpy(self._env.reset())
        else:
            self._obs = np.where(mask[:, None], self._reset_where(mask), self._obs)
        return self._obs.copy(), {}

    def _reset_where(self, mask: np.ndarray) -> np.ndarray:
        """All begin a new episode, and those outside `mask` are put back where they were."""
        chosen = torch.from_numpy(mask).to(self._env.device)
        before = self._env.state_dict()
        obs = _numpy(self._env.reset())
        after = self._env.state_dict()
        for name, value in after.items():
            if len(value) == self.num_envs and value.dtype != torch.uint8:  # bytes are the state of a generator
                after[name] = torch.where(chosen.reshape(-1, *(1,) * (value.ndim - 1)), value, before[name])
        self._env.load_state_dict(after)
        return obs

    def step(self, actions: object) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Apply actions (num_envs, action_dim) in [-1, 1]."""
        given = torch.as_tensor(np.asarray(actions, dtype=np.float32), device=self._env.device)
        step = self._env.step(given)
        terminated, truncated = _numpy(step.terminated), _numpy(step.truncated)
        done = terminated | truncated
        info: dict[str, np.ndarray] = {}
        if done.any():
            info = {"final_obs": _numpy(step.obs_before_reset), "_final_obs": done}
        self._obs = _numpy(step.obs)
        return self._obs.copy(), _numpy(step.reward), terminated, truncated, info


class TorchEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One environment of `kind`; a batch costs hardly more, so prefer `gymnasium.make_vec`. After the end: `reset`."""

    def __init__(self, kind: str, seed: int | None = None, **arguments: Any) -> None:
        self._batch = TorchVectorEnv(kind, 1, seed, **arguments)
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Begin a new episode; `seed` restarts the random streams."""
        super().reset(seed=seed)
        obs, info = self._batch.reset(seed=seed, options=options)
        return obs[0], info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, np.ndarray]]:
        """Apply an action (action_dim,) in [-1, 1]."""
        obs, reward, terminated, truncated, info = self._batch.step(np.asarray(action)[None])
        return info.get("final_obs", obs)[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}


def _checked_mask(options: dict[str, object] | None, num_envs: int) -> np.ndarray | None:
    """The mask in `options`. Raises ValueError for a wrong one and for options that are not known."""
    given = dict(options or {})
    mask = given.pop("reset_mask", None)
    if given:
        raise ValueError(f"options {sorted(given)} are not known; allowed: 'reset_mask'")
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape != (num_envs,) or not mask.any():
        raise ValueError(
            f"options['reset_mask'] is {mask.dtype} of shape {mask.shape}; "
            f"allowed: bool of shape ({num_envs},), with at least one True"
        )
    return mask


def _of_list(seeds: Sequence[int | None] | np.ndarray, num_envs: int) -> int | None:
    """One seed that every entry of `seeds` has a part in; None when any is None: those streams may be anything."""
    if len(seeds) != num_envs:
        raise ValueError(f"seed is a list of {len(seeds)}; allowed: one whole number, or a list of {num_envs}")
    known = [int(seed) for seed in seeds if seed is not None]
    if len(known) < num_envs:
        return secrets.randbits(63)
    return int(np.random.SeedSequence(known).generate_state(1, np.uint64)[0] >> 1)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return np.array(tensor.cpu().numpy())
