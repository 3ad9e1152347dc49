"""What every environment of the house offers; a description for readers and type checkers, without behaviour."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch


class Step(NamedTuple):
    """One step of all environments. The tensors are the environment's own and valid until its next call.

    obs (num_envs, obs_dim): observation to act on next; of the new episode where one has just ended.
    reward (num_envs,).
    terminated (num_envs,), bool: the task ended the episode; nothing can be earned after it.
    truncated (num_envs,), bool: the episode was cut at `episode_length`; what follows still has value.
    obs_before_reset (num_envs, obs_dim): the observation that the step led to, before any reset.
    """

    obs: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    obs_before_reset: torch.Tensor


@runtime_checkable
class Env(Protocol):
    """A batch of environments that reset themselves. Everything is float32 on `device`."""

    num_envs: int
    obs_dim: int
    action_dim: int
    device: torch.device
    episode_length: int
    forward_velocity_index: int | None  # of the observation, where the task is to move forward

    def reset(self) -> torch.Tensor:
        """Begin a new episode everywhere; returns the observations (num_envs, obs_dim)."""
        ...

    def reseed(self, seed: int) -> None:
        """Start the random streams again from `seed`; running episodes go on."""
        ...

    def step(self, actions: torch.Tensor) -> Step:
        """Apply `actions` (num_envs, action_dim), clipped to [-1, 1]."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Copies of all that decides what happens next, random streams included."""
        ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue exactly where `state_dict` was taken."""
        ...


def check_whole(name: str, value: int, low: int, high: int | None = None) -> None:
    """ValueError where an argument is no whole number of the allowed range."""
    allowed = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")
