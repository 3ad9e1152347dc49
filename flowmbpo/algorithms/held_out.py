"""Whole episodes, kept step by step: those of an evaluation, for measuring a world model on what it was never trained
on, and recorded ones, for training it before the first real step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowmbpo.algorithms.replay import Choice, Sequences, cut

if TYPE_CHECKING:
    from flowmbpo.envs.contract import Env, Step


class HeldOut:
    """The first episode of each of the first `num_envs` environments since `begin`, up to `steps` steps."""

    def __init__(self, *, steps: int, num_envs: int, obs_dim: int, action_dim: int, device: torch.device) -> None:
        self.steps, self.num_envs = steps, num_envs
        self._obs = torch.zeros(self.steps + 1, self.num_envs, obs_dim, device=device)
        self._actions = torch.zeros(self.steps, self.num_envs, action_dim, device=device)
        self._rewards = torch.zeros(self.steps, self.num_envs, device=device)
        self._terminated = torch.zeros(self.steps, self.num_envs, dtype=torch.bool, device=device)
        self._lengths = torch.zeros(self.num_envs, dtype=torch.long, device=device)
        self._taken = 0
        self._starts: dict[int, Choice] = {}  # of sequences, by their length, since the last change

    @classmethod
    def of(cls, env: Env, *, steps: int, episodes: int) -> HeldOut:
        """Room for `episodes` episodes of at most `steps` steps of such an environment."""
        return cls(steps=steps, num_envs=episodes, obs_dim=env.obs_dim, action_dim=env.action_dim, device=env.device)

    def begin(self, obs: Tensor) -> None:
        """Forget what was kept; all environments start from `obs` `[N, O]`."""
        self._obs[0] = obs[: self.num_envs]
        self._lengths.zero_()
        self._taken = 0
        self._starts.clear()

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
        self._starts.clear()

    def sample(self, batch: int, length: int, generator: torch.Generator) -> Sequences | None:
        """`batch` sequences of `length` transitions, uniformly over those within one episode; None without any.

        Synchronises.
        """
        starts = self._starts.get(length)
        if starts is None:
            starts = self._starts[length] = Choice(self._times[:, None] + length <= self._lengths)
        if starts.empty:
            return None
        offsets = torch.arange(length + 1, device=self._lengths.device) * self.num_envs
        positions = starts.draw(batch, generator) + offsets[:, None]
        return cut(self._obs, self._actions, self._rewards, self._terminated, positions)

    @property
    def _times(self) -> Tensor:
        return torch.arange(self.steps, device=self._lengths.device)

    @property
    def transitions(self) -> int:
        """How many were kept. Synchronises."""
        return int(self._lengths.sum())

    def kept(self) -> tuple[Tensor, Tensor]:
        """All observations acted on `[M, O]` and all rewards `[M]`, in no order that means anything. Synchronises."""
        inside = self._times[:, None] < self._lengths
        return self._obs[:-1][inside], self._rewards[inside]

    def state_dict(self) -> dict[str, Tensor]:
        """Time-major tensors obs `[T + 1, N, O]`, actions `[T, N, A]`, rewards, terminated `[T, N]`, lengths `[N]`."""
        return {name: getattr(self, f"_{name}") for name in ("obs", "actions", "rewards", "terminated", "lengths")}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`. Raises KeyError or ValueError for tensors of other names, shapes or types."""
        for name, own in self.state_dict().items():
            given = state[name]
            if given.shape != own.shape or given.dtype != own.dtype:
                raise ValueError(
                    f"{name} is {given.dtype} {tuple(given.shape)} where {own.dtype} {tuple(own.shape)} is needed"
                )
            own.copy_(given)
        self._taken = self.steps
        self._starts.clear()
