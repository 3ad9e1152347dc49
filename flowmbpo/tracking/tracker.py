"""The contract between training and tracking: what a training loop may say about a run. No MLflow, no files here.

Checkpoints do not depend on tracking: a tracker is told about them after they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from flowmbpo.runs.journal import RunStatus


class Tracker(Protocol):
    """What a run is told of its training; see `RunTracker`."""

    @property
    def run_id(self) -> str: ...

    @property
    def seconds(self) -> float:
        """Wall time that the training thread has spent in here so far."""
        ...

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def checkpoint(
        self,
        path: Path,
        *,
        epoch: int,
        step: int,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None: ...

    def tags(self, tags: Mapping[str, str]) -> None: ...


def status_after(kind: type[BaseException] | None) -> RunStatus:
    """The status of a run whose training ended with an exception of this type (None: with none)."""
    if kind is None:
        return "FINISHED"
    return "FAILED" if issubclass(kind, Exception) else "KILLED"
