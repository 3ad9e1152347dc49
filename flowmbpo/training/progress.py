"""What a training loop tells whoever watches it; how it is shown is the watcher's business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Progress:
    """State of a run at one logged point. Rewards and lengths are real, over the last 100 finished episodes."""

    epoch: int
    max_epochs: int
    env_steps: int
    fraction: float  # of the run that is done: by epochs or by the time limit, whichever ends first
    elapsed_seconds: float
    eta_seconds: float | None  # not known before epochs of the usual kind were timed
    metrics: Mapping[str, float]


class Pace:
    """How long the epochs take that come after the model's many first updates: those before tell nothing of them."""

    def __init__(self, resting_epochs: int) -> None:
        self._resting = resting_epochs
        self._since: tuple[int, float] | None = None

    def eta(self, epoch: int, last: int, elapsed: float) -> float | None:
        """Seconds until epoch `last`, asked at every point; None at the first point and before."""
        if self._since is None and epoch >= self._resting:
            self._since = epoch, elapsed
        if epoch >= last:
            return 0.0
        if self._since is None or epoch == self._since[0]:
            return None
        begun, then = self._since
        return (last - epoch) * (elapsed - then) / (epoch - begun)


class StopTraining(BaseException):
    """A watcher may raise it to end the run, which then is KILLED: it is no failure of the work."""


class Watcher(Protocol):
    """Receives progress and messages of one run; `phase` tells now and then how far a long part of an epoch is."""

    def started(self, run_id: str, name: str, seed: int) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def phase(self, text: str) -> None: ...

    def message(self, text: str, warning: bool = False) -> None: ...
    def ended(self) -> None: ...
