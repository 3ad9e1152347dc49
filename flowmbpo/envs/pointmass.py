"""A point mass on a line that is paid for sitting at the origin: the smallest task with a known best return.

Pure torch, milliseconds to simulate. Not a benchmark: it exists so that a test of the whole training loop can assert a
return instead of the absence of an exception.
"""

from __future__ import annotations

import torch

from flowmbpo.envs.contract import Step

START_HALF_WIDTH = 1.0
SPEED = 0.1  # largest move per step, in the unit of the line


class PointMassEnv:
    """Move a point on a line towards zero.

    Action (1), clipped to [-1, 1]: the point moves by 0.1 x action. Observation (2): position, and the action just
    applied (0 after a reset). Reward of the state held before the step, as in the Ant: 1 - |position|. The episode is
    truncated after `episode_length` steps; it terminates where |position| exceeds 3, out of reach of a sensible policy.
    Start: position uniform in (-1, 1).

    Best return: walking straight to zero at full speed is optimal, because the reward falls with distance and the
    future depends on nothing else. From p the distances seen are |p|, |p| - 0.1, ..., so with n = floor(|p| / 0.1)
    the best return of T > n steps is T - sum_{k=0..n} (|p| - 0.1 k); `best_return` computes it for any start.
    """

    obs_dim = 2
    action_dim = 1
    forward_velocity_index: int | None = None  # the point's velocity is not observed

    def __init__(
        self,
        num_envs: int,
        device: str | torch.device = "cpu",
        seed: int = 0,
        stochastic_init: bool = True,
        episode_length: int = 50,
        early_termination: bool = True,
    ) -> None:
        for name, value in (("num_envs", num_envs), ("episode_length", episode_length)):
            if value < 1:
                raise ValueError(f"{name} is {value}; allowed: at least 1")
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.episode_length = episode_length
        self.early_termination = early_termination
        self.stochastic_init = stochastic_init
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._position = torch.zeros(num_envs, device=self.device)
        self._steps = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._obs = torch.zeros(num_envs, self.obs_dim, device=self.device)

    def reset(self) -> torch.Tensor:
        """Begin a new episode everywhere; returns the observations (num_envs, 2)."""
        self._position.copy_(self._start())
        self._steps.zero_()
        self._obs = torch.stack((self._position, torch.zeros_like(self._position)), dim=1)
        return self._obs

    def reseed(self, seed: int) -> None:
        """Start the random stream again from `seed`; running episodes go on."""
        self._generator.manual_seed(seed)

    def step(self, actions: torch.Tensor) -> Step:
        """Move every point by `actions` (num_envs, 1)."""
        if actions.shape != (self.num_envs, self.action_dim):
            raise ValueError(
                f"actions have shape {tuple(actions.shape)}; expected ({self.num_envs}, {self.action_dim})"
            )
        action = actions[:, 0].detach().to(self._position).clamp(-1.0, 1.0)
        reward = 1.0 - self._position.abs()
        self._position += SPEED * action
        self._steps += 1
        terminated = self._position.abs() > 3.0
        if not self.early_termination:
            terminated = torch.zeros_like(terminated)
        truncated = self._steps >= self.episode_length
        before = torch.stack((self._position, action), dim=1)
        done = terminated | truncated
        # drawn for all environments at every step: the stream does not depend on who is done, and nothing is waited for
        self._position = torch.where(done, self._start(), self._position)
        self._steps = torch.where(done, 0, self._steps)
        self._obs = torch.stack((self._position, torch.where(done, 0.0, action)), dim=1)
        return Step(self._obs, reward, terminated, truncated, before)

    def best_return(self, start: torch.Tensor) -> torch.Tensor:
        """The largest undiscounted return of an episode that starts at position `start` (any shape)."""
        steps = torch.arange(self.episode_length, device=start.device)
        distances = (start.abs().unsqueeze(-1) - SPEED * steps).clamp(min=0.0)
        return self.episode_length - distances.sum(-1)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Copies of positions, step counters, observation and the random stream."""
        return {
            "position": self._position.clone(),
            "steps": self._steps.clone(),
            "obs": self._obs.clone(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue exactly where `state_dict` was taken."""
        own = {"position": self._position, "steps": self._steps, "obs": self._obs}
        for name, tensor in own.items():
            if name not in state or state[name].shape != tensor.shape:
                raise ValueError(f"saved environment state: {name!r} is missing or not of shape {tuple(tensor.shape)}")
            tensor.copy_(state[name])
        self._generator.set_state(state["generator"].cpu())

    def _start(self) -> torch.Tensor:
        if not self.stochastic_init:
            return torch.ones_like(self._position) * START_HALF_WIDTH
        unit = torch.rand(self.num_envs, generator=self._generator, device=self.device)
        return START_HALF_WIDTH * (2.0 * unit - 1.0)
