"""What training needs of a learning algorithm and of a policy; for readers and type checkers, without behaviour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.data_types import State

Statistics = dict[str, Tensor]
"""Detached 0-d tensors by the metric's name."""


class Policy(Protocol):
    """A deterministic policy for a batch of environments."""

    def begin(self, num_envs: int) -> None:
        """Forget whatever was remembered of earlier episodes."""
        ...

    def act(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, A) in [-1, 1] for observations (B, O), and the model's predicted rewards (B,)."""
        ...


class Algorithm(Protocol):
    """What the loop needs of a learning algorithm."""

    env_steps_per_epoch: int

    @property
    def unfinished(self) -> str:
        """The phase that was interrupted, and that `phases` therefore begin with; empty between epochs."""
        ...

    def interrupt_with(self, tick: Callable[[int, int], bool]) -> None:
        """`tick` is called inside long phases with what is done of how much; False interrupts the phase."""
        ...

    @property
    def nonfinite(self) -> Mapping[str, Tensor]:
        """Refused updates and bad values so far, by where they arose."""
        ...

    def begin_epoch(self, epoch: int) -> str:
        """Set the learning rates of `epoch`, counted from 0. Returns words where another policy takes over with it,
        whose returns are not those of the one before."""
        ...

    def counters(self) -> dict[str, float]: ...
    @property
    def phases(self) -> Sequence[tuple[str, Callable[[], Statistics]]]: ...
    def diagnose(self, held_out: HeldOut) -> Statistics: ...
    def policy(self) -> Policy: ...
    def deployable_state(self) -> State: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> None: ...
