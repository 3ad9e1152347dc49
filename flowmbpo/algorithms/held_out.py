"""The episodes of an evaluation, kept for measuring a world model on what it was never trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowmbpo.algorithms.replay import Choice, Sequences, cut

if TYPE_CHECKING:
    from flowmbpo.envs.contract import Step

STEPS, EPISODES = 1000, 128  # at most; 24 MB of the Ant


class HeldOut:
    """The first episode of each of `num_envs` environments since `begin`, up to `STEPS` steps of `EPISODES` of them."""

    def __init__(
        self, *, episode_length: int, num_envs: int, obs_dim: int, action_dim: int, device: torch.device
    ) -> None:
        self.steps, self.num_envs = min(episode_length, STEPS), min(num_envs, EPISODES)
        self._obs = torch.zeros(self.steps + 1, self.num_envs, obs_dim, device=device)
        self._actions = torch.zeros(self.steps, self.num_envs, action_dim, device=device)
        self._rewards = torch.zeros(self.steps, self.num_envs, device=device)
        self._terminated = torch.zeros(self.steps, self.num_envs, dtype=torch.bool, device=device)
        self._lengths = torch.zeros(self.num_envs, dtype=torch.long, device=device)
        self._taken = 0

    def begin(self, obs: Tensor) -> None:
        """Forget what was kept; all environments start from `obs` `[N, O]`."""
        self._obs[0] = obs[: self.num_envs]
        self._lengths.zero_()
        self._taken = 0

    def add(self, actions: Tensor, step: Step, alive: Tensor) -> None:
        """One step of all environments; `alive` `[N]` is 1 where it belongs to the first episode."""
        t, n = self._taken, self.num_envs
        if t == self.steps:
            return
        self._obs[t + 1] = step.obs_before_reset[:n]
        self._actions[t] = actions[:n]
        self._rewards[t] = step.reward[:n]
        self._terminated[t] = step.terminated[:n]
        self._lengths += alive[:n].long()
        self._taken += 1

    def sample(self, batch: int, length: int, generator: torch.Generator) -> Sequences | None:
        """`batch` sequences of `length` transitions, uniformly over those within one episode; None without any.

        Synchronises.
        """
        times = torch.arange(self.steps, device=self._lengths.device)
        starts = Choice(times[:, None] + length <= self._lengths)
        if starts.empty:
            return None
        offsets = torch.arange(length + 1, device=times.device) * self.num_envs
        positions = starts.draw(batch, generator) + offsets[:, None]
        return cut(self._obs, self._actions, self._rewards, self._terminated, positions)
