"""Replay: a preallocated `[time, environment]` ring from which sequences inside one episode are cut.

Not here: what is learned from them. Each environment writes down its own column. A row holds an observation and the
transition that starts there; the observation that ends an episode takes a row without a transition (a *boundary*), and
so does the newest observation of an episode still going on. A sequence of L transitions is therefore any L + 1
consecutive rows of which the first L are no boundaries: it crosses neither an episode's end nor the write head, and
unfinished episodes count as soon as they are long enough.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

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


class Choice:
    """Uniform draws from the true elements of a mask; drawing does not tell the host how many there are."""

    def __init__(self, valid: Tensor) -> None:
        """`valid`: bool, any shape; a position counts its elements row by row."""
        self._running = valid.flatten().cumsum(0, dtype=torch.int32)

    @property
    def count(self) -> Tensor:
        """Number of true elements, a 0-d tensor."""
        return self._running[-1]

    @functools.cached_property
    def empty(self) -> bool:
        """Whether no element is true. Synchronises when first asked."""
        return not self.count

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """`batch` positions, with replacement; of a mask that is not empty."""
        large = torch.randint(2**62, (batch,), generator=generator, device=self._running.device)
        rank = (large % self.count).int()  # not uniform by one part in 10^12
        return torch.searchsorted(self._running, rank, right=True)


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
        # Found since the last write: where sequences start, by length; what was acted on recently, by number of rows.
        self._starts: dict[int, Choice] = {}
        self._recent: dict[int, Choice] = {}
        self._yes = torch.ones(num_envs, dtype=torch.bool, device=device)  # a number of the host would be copied over
        self._no = torch.zeros_like(self._yes)

    def add(self, obs: Tensor, actions: Tensor, step: Step) -> None:
        """Write what one step of all environments did: obs `[N, O]` it started from, actions `[N, A]`, its result."""
        self._forget_choices()
        columns, ended = self._columns, step.terminated | step.truncated
        here = (self._head, columns)
        self._obs[here] = obs
        self._actions[here] = actions
        self._rewards[here] = step.reward
        self._terminated[here] = step.terminated
        self._boundary[here] = self._no
        following = ((self._head + 1) % self.rows, columns)
        self._obs[following] = step.obs_before_reset
        self._boundary[following] = self._yes
        # Where the episode ended, its last observation keeps that row and the new episode begins in the one after.
        self._head = (self._head + 1 + ended) % self.rows
        self._obs[self._head, columns] = step.obs
        self._boundary[self._head, columns] = self._yes

    def end_episodes(self) -> None:
        """What is added next follows from nothing that is held: the newest observations keep their rows."""
        self._forget_choices()
        self._head = (self._head + 1) % self.rows
        self._boundary[self._head, self._columns] = self._yes

    def __len__(self) -> int:
        """Number of transitions held. Synchronises on CUDA."""
        return self._boundary.numel() - int(self._boundary.sum())

    def starts(self, length: int) -> Choice:
        """The positions `row * num_envs + environment` where a sequence of `length` transitions starts."""
        found = self._starts.get(length)
        if found is None:
            found = self._starts[length] = Choice(self._find_starts(length))
        return found

    def sample(self, batch: int, length: int, generator: torch.Generator) -> Sequences:
        """`batch` sequences of `length` transitions, uniformly over all valid start positions.

        Raises ValueError while there is none; the first call after a write synchronises to find out.
        """
        starts = self.starts(length)
        if starts.empty:
            raise ValueError(f"replay holds no sequence of {length} transitions within one episode")
        offsets = torch.arange(length + 1, device=self._head.device) * self.num_envs
        positions = (starts.draw(batch, generator) + offsets[:, None]) % self._boundary.numel()
        return cut(self._obs, self._actions, self._rewards, self._terminated, positions)

    def sample_recent(self, batch: int, steps: int, generator: torch.Generator) -> Tensor:
        """`batch` observations `[B, O]`, uniformly over those acted on in the last `steps` rows of each environment.

        `steps` is at least 2: the newest row may be the end of an episode, the one before it then is not.
        """
        recent = self._recent.get(steps)
        if recent is None:
            ages = torch.arange(1, min(steps, self.rows - 1) + 1, device=self._head.device)
            acted_on = ~self._boundary[(self._head - ages[:, None]) % self.rows, self._columns]
            recent = self._recent[steps] = Choice(acted_on)
        drawn = recent.draw(batch, generator)
        age, column = drawn // self.num_envs + 1, drawn % self.num_envs
        return self._obs[(self._head[column] - age) % self.rows, column]

    def _find_starts(self, length: int) -> Tensor:
        if length >= self.rows:
            raise ValueError(f"a sequence of {length} transitions does not fit into {self.rows} rows of replay")
        # Runs of transitions by doubling: a run of n from row t is a run of k from t and one of n - k from t + k.
        valid, run = ~self._boundary, 1
        while run < length:
            shift = min(run, length - run)
            valid = valid & valid.roll(-shift, 0)
            run += shift
        return valid

    def _forget_choices(self) -> None:
        self._starts.clear()
        self._recent.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors themselves, not copies: the buffer is the largest part of a resumable state."""
        return {name: getattr(self, name) for name in self._stored()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._forget_choices()
        for name in self._stored():
            getattr(self, name).copy_(state[name])

    @staticmethod
    def _stored() -> tuple[str, ...]:
        return ("_obs", "_actions", "_rewards", "_terminated", "_boundary", "_head")
