"""Experiments small enough for tests, and a watcher that only remembers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flowmbpo.spec.schema import Experiment
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
