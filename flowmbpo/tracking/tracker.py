"""The contract between training and tracking: what a training loop may say about a run. No MLflow, no files here.

Checkpoints do not depend on tracking: a tracker is told about them after they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from flowmbpo.runs.journal import RunStatus


class Tracker(Protocol):
    """A context manager: leaving it normally ends the run as FINISHED, with an exception as FAILED, with
    KeyboardInterrupt or SystemExit (a signal) as KILLED, unless `finish` has said so before."""

    @property
    def run_id(self) -> str: ...

    @property
    def seconds(self) -> float:
        """Wall time that the training thread has spent in here so far."""
        ...

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics at `step` real environment steps. Raises ValueError for a name outside the catalogue."""
        ...

    def checkpoint(
        self,
        path: Path,
        *,
        epoch: int,
        step: int,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """A deployable checkpoint folder was written. `metrics` are its `eval/*` results, linked to it; `tags` say how
        they were obtained."""
        ...

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file that belongs to the run, shown under `folder` of its artifacts."""
        ...

    def tags(self, tags: Mapping[str, str]) -> None: ...

    def finish(self, status: RunStatus) -> None:
        """End the run now with this status."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def status_after(kind: type[BaseException] | None) -> RunStatus:
    """The status of a run whose training ended with an exception of this type (None: with none)."""
    if kind is None:
        return "FINISHED"
    return "FAILED" if issubclass(kind, Exception) else "KILLED"
