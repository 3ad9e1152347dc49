"""Real steps: the last epoch's, time-major and preallocated, and who takes them and writes them down.

Not here: which actions are taken and what is learned from the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowmbpo.algorithms.replay import Replay
from flowmbpo.data_types import State

if TYPE_CHECKING:
    from flowmbpo.envs.contract import Env, Step


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
        copied = (self.obs, self.actions, self.rewards, self.next_obs, self.terminated, self.ended)
        self._rows = list(zip(*(tensor.unbind(0) for tensor in copied), strict=True))

    def add(self, t: int, obs: Tensor, actions: Tensor, step: Step) -> Tensor:
        """Copy step `t`: the environment's own tensors change with its next step. Returns which ended `[N]`, new."""
        ended = step.terminated | step.truncated
        given = (obs, actions, step.reward, step.obs_before_reset, step.terminated, ended)
        torch._foreach_copy_(self._rows[t], given)
        return ended

    @property
    def continues(self) -> Tensor:
        """1 where the step did not terminate its episode `[T, N]`, float32."""
        return 1.0 - self.terminated.float()

    def nonfinite(self) -> Tensor:
        """Number of steps with a reward or observation that is not finite: a 0-d tensor."""
        differences = (self.next_obs - self.next_obs).sum(-1) + (self.rewards - self.rewards)
        return (differences != 0).sum()  # of an infinity with itself: not a number, which differs from everything


class Collector:
    """Steps the environment; keeps the epoch's experience, the replay and the observations to act on next."""

    def __init__(self, env: Env, *, horizon: int, replay_capacity: int, replays: bool) -> None:
        """Resets `env`. Where nobody `replays`, nothing is written to the replay, which is half of a small epoch."""
        self.env = env
        self.horizon = horizon
        sizes: dict[str, Any] = {
            "num_envs": env.num_envs,
            "obs_dim": env.obs_dim,
            "action_dim": env.action_dim,
            "device": env.device,
        }
        self.experience = Experience(horizon=horizon, **sizes)
        self.replay = Replay(capacity=replay_capacity, **sizes)
        self._replays = replays
        self.obs = env.reset().clone()

    def restart(self) -> None:
        """Begin new episodes everywhere, after others used the environments."""
        self.replay.end_episodes()
        self.obs.copy_(self.env.reset())

    def step(self, t: int, actions: Tensor) -> Tensor:
        """Take step `t` of the epoch; returns (a copy of) which episodes ended with it `[N]`, bool."""
        step = self.env.step(actions)
        ended = self.experience.add(t, self.obs, actions, step)
        if self._replays:
            self.replay.add(self.obs, actions, step)
        self.obs.copy_(step.obs)
        return ended

    def state_dict(self) -> State:
        """Between epochs: what the epoch's experience held has been used by then."""
        return {"replay": self.replay.state_dict(), "obs": self.obs}

    def load_state_dict(self, state: State) -> None:
        self.replay.load_state_dict(state["replay"])
        self.obs.copy_(state["obs"])
