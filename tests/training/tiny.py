"""Experiments small enough for tests, and a watcher and a tracker that only remember."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flowmbpo.runs.journal import RunStatus
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking.metrics import check_names
from flowmbpo.tracking.tracker import status_after
from flowmbpo.training.progress import Progress


def tiny(env: str = "pointmass", kind: str = "mlp", **train: Any) -> Experiment:
    """A complete experiment with networks of a few units; epochs of 16 steps in 4 environments."""
    model = {"kind": kind, "units": (16,), "encoder_units": (16,), "latent_dim": 16}
    if kind == "flow":
        model |= {"integrator": "heun", "substeps": 2}
    return Experiment.model_validate(
        {
            "name": "tiny",
            "env": {"kind": env, "episode_length": 20},
            "world_model": model,
            "actor": {"units": (16,)},
            "critic": {"units": (16,), "passes": 2, "minibatches": 2},
            "train": {
                "max_epochs": 8,
                "num_envs": 4,
                "wm_batch_size": 8,
                "wm_updates": 2,
                "wm_first_updates": 4,
                "replay_capacity": 4 * 40,  # wraps around within three epochs
                "checkpoint_interval": 4,
                "log_interval": 2,
                **train,
            },
            "evaluation": {"episodes": 4, "interval": 4},
        }
    )


@dataclass
class QuietWatcher:
    """Remembers what it is told."""

    points: list[Progress] = field(default_factory=list)
    messages: list[tuple[str, bool]] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)

    def started(self, run_id: str, name: str, seed: int) -> None:
        pass

    def progress(self, progress: Progress) -> None:
        self.points.append(progress)

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def message(self, text: str, warning: bool = False) -> None:
        self.messages.append((text, warning))

    def ended(self) -> None:
        pass


@dataclass
class MemoryTracker:
    """Keeps everything in lists: a `Tracker`."""

    run_id: str = "memory"
    seconds: float = 0.0
    points: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    checkpoints: list[tuple[Path, int, int, dict[str, float]]] = field(default_factory=list)
    artifacts: list[tuple[Path, str]] = field(default_factory=list)
    tag_values: dict[str, str] = field(default_factory=dict)
    status: RunStatus = "RUNNING"

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        check_names(metrics)
        self.points.append((step, dict(metrics)))

    def checkpoint(
        self,
        path: Path,
        *,
        epoch: int,
        step: int,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        check_names(metrics or {})
        self.checkpoints.append((path, epoch, step, dict(metrics or {})))

    def artifact(self, path: Path, folder: str = "") -> None:
        self.artifacts.append((path, folder))

    def tags(self, tags: Mapping[str, str]) -> None:
        self.tag_values.update(tags)

    def finish(self, status: RunStatus) -> None:
        self.status = status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.status == "RUNNING":
            self.finish(status_after(kind))
