"""Real episode returns and lengths, counted beside training without a synchronisation or a Python loop."""

from __future__ import annotations

import torch
from torch import Tensor

from flowmbpo.data_types import State
from flowmbpo.envs.contract import Env, Step

WINDOW = 100  # finished episodes over which R and length are averaged
STEPS = 32  # that are counted together: few operations a step


class EpisodeRecorder:
    """An environment that also remembers the undiscounted return and length of its last `WINDOW` finished episodes."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.num_envs, self.obs_dim, self.action_dim = env.num_envs, env.obs_dim, env.action_dim
        self.device, self.episode_length = env.device, env.episode_length
        self.forward_velocity_index = env.forward_velocity_index
        zeros = torch.zeros(env.num_envs, device=env.device)
        # Of the last steps, one tensor each: returns so far, and whether the episode ended.
        self._so_far = [zeros.clone() for _ in range(STEPS)]
        self._ended = [torch.zeros_like(zeros, dtype=torch.bool) for _ in range(STEPS)]
        self._held = 0
        self._return, self._length = zeros, zeros.clone()
        # One slot more than the window: environments whose episode goes on write there.
        self._returns = torch.zeros(WINDOW + 1, device=env.device)
        self._lengths = torch.zeros(WINDOW + 1, device=env.device)
        self._finished = torch.zeros((), dtype=torch.long, device=env.device)

    def reset(self) -> Tensor:
        """New episodes everywhere; of the old ones nothing is remembered."""
        self._held = 0
        for counted in (self._return, self._length, self._finished):
            counted.zero_()
        return self.env.reset()

    def reseed(self, seed: int) -> None:
        self.env.reseed(seed)

    def step(self, actions: Tensor) -> Step:
        """Step the environment; rewards are those it really gave."""
        step = self.env.step(actions)
        so_far, ended = self._so_far[self._held], self._ended[self._held]
        torch.add(self._return, step.reward, out=so_far)
        torch.logical_or(step.terminated, step.truncated, out=ended)
        self._return = so_far.masked_fill(ended, 0.0)
        self._held += 1
        if self._held == STEPS:
            self._count()
        return step

    def _count(self) -> None:
        """Take in the steps that are held."""
        if not self._held:
            return
        ended = torch.stack(self._ended[: self._held])
        time = torch.arange(1, self._held + 1, device=ended.device).unsqueeze(1)
        last = torch.where(ended, time, 0).cummax(0).values  # end before each step, or with it; 0 where none
        before = torch.cat((torch.zeros_like(last[:1]), last[:-1]))
        lengths = time - before + torch.where(before == 0, self._length, 0.0)
        self._length = self._held - last[-1] + torch.where(last[-1] == 0, self._length, 0.0)
        order = ended.flatten().cumsum(0)
        newest = ended.flatten() & (order > order[-1] - WINDOW)
        slots = torch.where(newest, (self._finished + order - 1) % WINDOW, WINDOW)
        self._returns[slots] = torch.stack(self._so_far[: self._held]).flatten()
        self._lengths[slots] = lengths.flatten()
        self._finished += order[-1]
        self._held = 0

    def statistics(self) -> dict[str, float]:
        """Mean return and length over the window; empty before the first episode has ended. Synchronises."""
        self._count()
        count = min(int(self._finished), WINDOW)
        if count == 0:
            return {}
        return {
            "train/episode_reward": self._returns[:count].mean().item(),
            "train/episode_length": self._lengths[:count].mean().item(),
        }

    def state_dict(self) -> State:
        self._count()
        own = {key: value for key, value in vars(self).items() if isinstance(value, Tensor)}
        return {"env": self.env.state_dict(), **own}

    def load_state_dict(self, state: State) -> None:
        self.env.load_state_dict(state["env"])
        self._held = 0
        for key, value in vars(self).items():
            if isinstance(value, Tensor):
                value.copy_(state[key])
