"""Replay: a preallocated `[time, environment]` ring from which sequences inside one episode are cut.

Not here: what is learned from them. Each environment writes down its own column. A row holds an observation and the
transition that starts there; the observation that ends an episode takes a row without a transition (a *boundary*), and
so does the newest observation of an episode still going on. A sequence of L transitions is therefore any L + 1
consecutive rows of which the first L are no boundaries: it crosses neither an episode's end nor the write head, and
unfinished episodes count as soon as they are long enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from flowmbpo.envs.contract import Step


class Sequences(NamedTuple):
    """Sub-sequences of L transitions: obs `[L + 1, B, O]`, actions `[L, B, A]`, rewards and terminated `[L, B]`."""

    obs: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor


def cut(obs: Tensor, actions: Tensor, rewards: Tensor, terminated: Tensor, positions: Tensor) -> Sequences:
    """Sequences from time-major `[T, N, ...]` tensors; positions: `[L + 1, B]` as `row * N + environment`."""
    starts = positions[:-1]
    return Sequences(
        obs.flatten(0, 1)[positions],
        actions.flatten(0, 1)[starts],
        rewards.flatten()[starts],
        terminated.flatten()[starts],
    )


class Replay:
    """The last transitions of `num_envs` environments, about `capacity` of them, 4 (O + A + 1) + 2 bytes each."""

    def __init__(self, *, capacity: int, num_envs: int, obs_dim: int, action_dim: int, device: torch.device) -> None:
        self.rows = capacity // num_envs
        if self.rows < 2:
            raise ValueError(
                f"replay_capacity {capacity} holds no transition of {num_envs} environments each; "
                f"at least {2 * num_envs} are needed"
            )
        self.num_envs = num_envs
        self._obs = torch.zeros(self.rows, num_envs, obs_dim, device=device)
        self._actions = torch.zeros(self.rows, num_envs, action_dim, device=device)
        self._rewards = torch.zeros(self.rows, num_envs, device=device)
        self._terminated = torch.zeros(self.rows, num_envs, dtype=torch.bool, device=device)
        self._boundary = torch.ones(self.rows, num_envs, dtype=torch.bool, device=device)
        self._head = torch.zeros(num_envs, dtype=torch.long, device=device)
        self._columns = torch.arange(num_envs, device=device)
        # Positions found since the last write: starts by length, recent ones by age.
        self._starts: dict[int, Tensor] = {}
        self._recent: dict[int, Tensor] = {}

    def add(self, obs: Tensor, actions: Tensor, step: Step) -> None:
        """Write what one step of all environments did: obs `[N, O]` it started from, actions `[N, A]`, its result."""
        self._forget_positions()
        columns, ended = self._columns, step.terminated | step.truncated
        here = (self._head, columns)
        self._obs[here] = obs
        self._actions[here] = actions
        self._rewards[here] = step.reward
        self._terminated[here] = step.terminated
        self._boundary[here] = False
        following = ((self._head + 1) % self.rows, columns)
        self._obs[following] = step.obs_before_reset
        self._boundary[following] = True
        # Where the episode ended, its last observation keeps that row and the new episode begins in the one after.
        self._head = (self._head + 1 + ended) % self.rows
        self._obs[self._head, columns] = step.obs
        self._boundary[self._head, columns] = True

    def starts(self, length: int) -> Tensor:
        """Every position `row * num_envs + environment` where a sequence of `length` transitions starts."""
        found = self._starts.get(length)
        if found is None:
            found = self._starts[length] = self._find_starts(length)
        return found

    def __len__(self) -> int:
        """Number of transitions held. Synchronises on CUDA."""
        return self._boundary.numel() - int(self._boundary.sum())

    def sample(self, batch: int, length: int, generator: torch.Generator) -> Sequences:
        """`batch` sequences of `length` transitions, uniformly over all valid start positions.

        Raises ValueError while there is none.
        """
        starts = self.starts(length)
        if not len(starts):
            raise ValueError(f"replay holds no sequence of {length} transitions within one episode yet")
        drawn = torch.randint(len(starts), (batch,), generator=generator, device=starts.device)
        offsets = torch.arange(length + 1, device=starts.device) * self.num_envs
        positions = (starts[drawn] + offsets[:, None]) % self._boundary.numel()
        return cut(self._obs, self._actions, self._rewards, self._terminated, positions)

    def sample_recent(self, batch: int, steps: int, generator: torch.Generator) -> Tensor:
        """`batch` observations `[B, O]`, uniformly over those acted on in the last `steps` rows of each environment."""
        positions = self._recent.get(steps)
        if positions is None:
            ages = torch.arange(1, min(steps, self.rows - 1) + 1, device=self._head.device)
            rows = (self._head - ages[:, None]) % self.rows
            positions = (rows * self.num_envs + self._columns)[~self._boundary[rows, self._columns]]
            self._recent[steps] = positions
        drawn = torch.randint(len(positions), (batch,), generator=generator, device=positions.device)
        return self._obs.flatten(0, 1)[positions[drawn]]

    def _find_starts(self, length: int) -> Tensor:
        if length >= self.rows:
            raise ValueError(f"a sequence of {length} transitions does not fit into {self.rows} rows of replay")
        # Runs of transitions by doubling: a run of n from row t is a run of k from t and one of n - k from t + k.
        valid, run = ~self._boundary, 1
        while run < length:
            shift = min(run, length - run)
            valid = valid & valid.roll(-shift, 0)
            run += shift
        return valid.flatten().nonzero().squeeze(1)

    def _forget_positions(self) -> None:
        self._starts.clear()
        self._recent.clear()

    def state_dict(self) -> dict[str, Any]:
        """The tensors themselves, not copies: the buffer is the largest part of a resumable state."""
        return {name: getattr(self, name) for name in self._stored()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._forget_positions()
        for name in self._stored():
            getattr(self, name).copy_(state[name])

    @staticmethod
    def _stored() -> tuple[str, ...]:
        return ("_obs", "_actions", "_rewards", "_terminated", "_boundary", "_head")
