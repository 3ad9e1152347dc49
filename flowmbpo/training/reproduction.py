"""Trains a run again and compares every point and every weight with what it left. Not here: how that is shown."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from flowmbpo.data_types import Document
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs import checkpoint, journal
from flowmbpo.runs.files import BrokenFile
from flowmbpo.runs.journal import DEVICE_TAG, RECORDED_TAG, THREADS_TAG, all_tags, read_entries
from flowmbpo.runs.layout import RUNS, RunFiles
from flowmbpo.runs.lock import HOST_TAG, hostname
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking.records import number
from flowmbpo.training import session
from flowmbpo.training.compatibility import code_changes, continue_with_threads, not_compared, recorded_changes
from flowmbpo.training.loading import experiment_of
from flowmbpo.training.progress import Watcher

_MEASURED = ("perf/", "system/")  # time and the machine, which no second run has again


@dataclass(frozen=True)
class Recipe:
    """What a run needs to be trained again, and how this machine and this code differ from then."""

    files: RunFiles
    experiment: Experiment
    seed: int
    epochs: int
    threads: int | None
    device: str
    code: dict[str, str]
    changes: list[str]
    unknown: list[str]

    def document(self) -> Document:
        """JSON-able data; the spec is in the run's own params."""
        return {
            "run_id": self.files.root.name,
            "name": self.experiment.name,
            "seed": self.seed,
            "epochs": self.epochs,
            "threads": self.threads,
            "device": self.device,
            "code": self.code,
            "changes": self.changes,
            "unknown": self.unknown,
        }


@dataclass(frozen=True)
class Outcome:
    """`points` and `checkpoints` compared; `different` ones as (metric, step, then, now) and epochs."""

    points: int
    checkpoints: int
    different: list[tuple[str, int, float | None, float | None]]
    different_checkpoints: list[int]

    @property
    def equal(self) -> bool:
        return not (self.different or self.different_checkpoints)


def recipe_of(run_id: str) -> Recipe:
    """The recipe of a run whose folder is here. Raises UserError when it cannot be read."""
    files = RunFiles.find(run_id)
    if not files.journal.is_file():
        raise UserError(f"{files.root} holds no run; a run is reproduced in the directory where it was started")
    found, problems = checkpoint.newest(files.checkpoints, files.checkpoint_epochs(), "checkpoint")
    if found is None:
        raise UserError(f"run {files.root.name} has no intact checkpoint: {'; '.join(problems) or 'none was written'}")
    try:
        experiment, seed = experiment_of(found), int(found.manifest["seed"])
    except (BrokenFile, KeyError, TypeError, ValueError) as error:
        raise UserError(f"run {files.root.name} cannot be trained by this version: {error}") from error
    tags, code = all_tags(files.journal), found.manifest.get("code", {})
    status = journal.last_status(files.journal)
    if status == "RUNNING":
        raise UserError(f"run {files.root.name} is not over yet")
    host = tags.get(HOST_TAG, "")
    elsewhere = [f"machine: {host} -> {hostname()}, another CPU may round differently"] if host != hostname() else []
    return Recipe(
        files=files,
        experiment=experiment,
        seed=seed,
        epochs=found.epoch,
        threads=number(tags.get(THREADS_TAG)),
        device=tags.get(DEVICE_TAG, "cpu"),
        code={name: str(version) for name, version in code.items()},
        changes=code_changes(code) + recorded_changes(experiment, tags.get(RECORDED_TAG, "")),
        unknown=not_compared(code) + elsewhere,
    )


def repeat(recipe: Recipe, watcher: Watcher) -> Outcome:
    """Train the run again in a temporary folder with a store of its own, with as many threads, and compare.

    Raises WorkFailed when the training fails, SystemExit when a signal ends it.
    """
    if said := continue_with_threads(recipe.threads, accept_changes=False):
        watcher.message(said)
    device = "cpu" if recipe.device.startswith("cpu") else "cuda"
    options = session.RunOptions(device=device, tracking_uri=None, epochs=recipe.epochs, time_limit=None)
    then = recipe.files.root.absolute()
    experiment = recipe.experiment
    if pretrain := experiment.train.pretrain:  # named as seen from here
        there = pretrain.model_copy(update={"data": str(Path(pretrain.data).absolute())})
        experiment = experiment.model_copy(update={"train": experiment.train.model_copy(update={"pretrain": there})})
    with tempfile.TemporaryDirectory(prefix="flowmbpo-reproduce-") as folder, contextlib.chdir(folder):
        result = session.train(experiment, recipe.seed, options, watcher)
        if result.status == "KILLED":
            watcher.message("interrupted: nothing was compared, and nothing of the repetition is kept", warning=True)
            raise SystemExit(result.exit_code)
        if result.status != "FINISHED":
            raise WorkFailed(f"the repetition ended as {result.status}: {result.message}")
        return compare(RunFiles(then), RunFiles(Path(folder) / RUNS / result.run_id))


def compare(then: RunFiles, now: RunFiles) -> Outcome:
    """Every point that the first run logged, and the weights of every checkpoint that both have."""
    old, new = points(then), points(now)
    different = [(metric, step, value, new.get((metric, step))) for (metric, step), value in old.items()]
    epochs = sorted(set(then.checkpoint_epochs()) & set(now.checkpoint_epochs()))
    return Outcome(
        points=len(old),
        checkpoints=len(epochs),
        different=[entry for entry in different if entry[3] is None or repr(entry[2]) != repr(entry[3])],
        different_checkpoints=[epoch for epoch in epochs if _digest(then, epoch) != _digest(now, epoch)],
    )


def points(files: RunFiles) -> dict[tuple[str, int], float]:
    """What a run logged, by metric and environment steps, without measurements of time and of the machine."""
    return {
        (metric, entry.step): value
        for entry, _ in read_entries(files.journal)
        if isinstance(entry, journal.Metrics | journal.Checkpoint)
        for metric, value in entry.metrics.items()
        if not metric.startswith(_MEASURED)
    }


def _digest(files: RunFiles, epoch: int) -> str:
    return str(checkpoint.verify(files.checkpoint(epoch), "checkpoint").manifest["files"][checkpoint.TENSORS]["sha256"])
