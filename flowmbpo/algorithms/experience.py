"""The real steps of one epoch, time-major and preallocated; what the critic's real targets are computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from flowmbpo.envs.contract import Step


class Experience:
    """`horizon` steps of `num_envs` environments.

    obs, next_obs `[T, N, O]`: before each step, and after it (before any reset). actions `[T, N, A]`.
    rewards `[T, N]`; terminated, ended `[T, N]`, bool: `ended` is terminated or truncated.
    """

    def __init__(self, *, horizon: int, num_envs: int, obs_dim: int, action_dim: int, device: torch.device) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(horizon, num_envs, *shape, dtype=dtype, device=device)

        self.obs, self.next_obs, self.actions = zeros(obs_dim), zeros(obs_dim), zeros(action_dim)
        self.rewards = zeros()
        self.terminated, self.ended = zeros(dtype=torch.bool), zeros(dtype=torch.bool)

    def record(self, t: int, obs: Tensor, actions: Tensor, step: Step) -> None:
        """Copy step `t`: the environment's own tensors change with its next step."""
        self.obs[t] = obs
        self.actions[t] = actions
        self.rewards[t] = step.reward
        self.next_obs[t] = step.obs_before_reset
        self.terminated[t] = step.terminated
        torch.logical_or(step.terminated, step.truncated, out=self.ended[t])

    @property
    def continues(self) -> Tensor:
        """1 where the step did not terminate its episode `[T, N]`, float32."""
        return 1.0 - self.terminated.float()

    def nonfinite(self) -> Tensor:
        """Number of steps with a reward or observation that is not finite: a 0-d tensor."""
        fine = torch.isfinite(self.next_obs).all(-1) & torch.isfinite(self.rewards)
        return (~fine).sum()
