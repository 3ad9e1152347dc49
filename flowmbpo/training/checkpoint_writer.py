"""Writes a run's checkpoints and resumable states and reports them to the tracker; not when to write, nor the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowmbpo import __version__
from flowmbpo.errors import WorkFailed
from flowmbpo.runs import checkpoint
from flowmbpo.runs.layout import RunFiles, epoch_folder
from flowmbpo.spec.identity import spec_hash
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking.records import RATING_TAG
from flowmbpo.tracking.tracker import Tracker
from flowmbpo.training.compatibility import code_versions
from flowmbpo.training.evaluator import Evaluation


class CheckpointWriter:
    """The checkpoints of one run."""

    def __init__(
        self, files: RunFiles, experiment: Experiment, seed: int, tracker: Tracker, overrides: Sequence[str] = ()
    ) -> None:
        self.files = files
        self.experiment = experiment
        self.tracker = tracker
        self.best_reward = float("-inf")
        files.root.mkdir(parents=True, exist_ok=True)
        self._about = {
            "run_id": tracker.run_id,
            "name": experiment.name,
            "seed": seed,
            "spec_hash": spec_hash(experiment),
            "version": __version__,
            "code": code_versions(),
            "overrides": list(overrides),
            "experiment": experiment.model_dump(mode="json"),
        }

    def write(self, state: Mapping[str, object], epoch: int, env_steps: int, evaluation: Evaluation | None) -> None:
        """Write a deployable checkpoint; with an evaluation it may be the best one."""
        self._check_folder()
        metrics = evaluation.metrics if evaluation else {}
        about = {**self._about, "epoch": epoch, "env_steps": env_steps, "evaluation": metrics}
        path = checkpoint.save(self.files.checkpoint(epoch), state, kind="checkpoint", about=about)
        if evaluation and evaluation.mean_reward > self.best_reward:
            self.best_reward = evaluation.mean_reward
        checkpoint.keep(self.files, self.experiment.train.checkpoint_interval, epoch)
        tags = {}
        if evaluation:
            tags = {**evaluation.how.tags(), RATING_TAG: repr(evaluation.mean_reward)}
        self.tracker.checkpoint(path, epoch=epoch, step=env_steps, metrics=metrics, tags=tags)

    def write_resumable(self, state: Mapping[str, object], epoch: int, env_steps: int, unfinished: str = "") -> None:
        """Write a resumable state, perhaps from inside an `unfinished` phase; earlier ones go once it is complete."""
        self._check_folder()
        about = {**self._about, "epoch": epoch, "env_steps": env_steps, "unfinished": unfinished}
        checkpoint.save(self.files.resume / epoch_folder(epoch), state, kind="resume", about=about)
        checkpoint.keep(self.files, self.experiment.train.checkpoint_interval, epoch)

    def _check_folder(self) -> None:
        """A run whose folder is gone must not quietly begin another one under the same name: its journal is lost."""
        if not self.files.root.is_dir():
            raise WorkFailed(
                f"{self.files.root} has vanished during training (deleted, or its disk is gone). Put back a copy of it "
                "to continue with `flowmbpo run --resume`"
            )
