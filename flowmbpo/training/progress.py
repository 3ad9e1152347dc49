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
    eta_seconds: float
    metrics: Mapping[str, float]


class StopTraining(BaseException):
    """A watcher may raise it to end the run, which then is KILLED: it is no failure of the work."""


class Watcher(Protocol):
    """Receives progress and messages of one run; `phase` tells now and then how far a long part of an epoch is."""

    def started(self, run_id: str, name: str, seed: int) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def phase(self, text: str) -> None: ...

    def message(self, text: str, warning: bool = False) -> None: ...
    def ended(self) -> None: ...
