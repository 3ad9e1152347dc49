"""Real episode returns and lengths, counted beside training without a synchronisation or a Python loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WINDOW = 100  # finished episodes over which R and length are averaged


class EpisodeRecorder:
    """An environment that also remembers the undiscounted return and length of its last `WINDOW` finished episodes.

    Everything else is passed through to the environment it wraps.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        zeros = torch.zeros(env.num_envs, device=env.device)
        self._return, self._length = zeros, zeros.clone()
        # One slot more than the window: environments whose episode goes on write there.
        self._returns = torch.zeros(WINDOW + 1, device=env.device)
        self._lengths = torch.zeros(WINDOW + 1, device=env.device)
        self._finished = torch.zeros((), dtype=torch.long, device=env.device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def step(self, actions: Tensor) -> Any:
        """Step the environment; rewards are those it really gave."""
        step = self.env.step(actions)
        done = step.terminated | step.truncated
        self._return += step.reward
        self._length += 1
        order = done.cumsum(0)
        slots = torch.where(done, (self._finished + order - 1) % WINDOW, WINDOW)
        self._returns[slots] = self._return
        self._lengths[slots] = self._length
        self._finished += order[-1]
        self._return.masked_fill_(done, 0.0)
        self._length.masked_fill_(done, 0.0)
        return step

    def statistics(self) -> dict[str, float]:
        """Mean return and length over the window; empty before the first episode has ended. Synchronises."""
        count = min(int(self._finished), WINDOW)
        if count == 0:
            return {}
        return {
            "train/episode_reward": self._returns[:count].mean().item(),
            "train/episode_length": self._lengths[:count].mean().item(),
        }

    def state_dict(self) -> dict[str, Any]:
        own = {key: value for key, value in vars(self).items() if isinstance(value, Tensor)}
        return {"env": self.env.state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env.load_state_dict(state["env"])
        for key, value in vars(self).items():
            if isinstance(value, Tensor):
                value.copy_(state[key])
