"""One run from start to end: builds, trains, tracks, and says how it ended. What training does is in `trainer`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs import checkpoint
from flowmbpo.runs.files import BrokenFile
from flowmbpo.runs.journal import DEVICE_TAG, PHASE_TAG, TARGET_TAG, THREADS_TAG, all_tags
from flowmbpo.runs.layout import RUNS, RunFiles
from flowmbpo.runs.lock import RunLock
from flowmbpo.spec.identity import run_name, spec_hash
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking import code_state
from flowmbpo.tracking.records import number
from flowmbpo.tracking.run_tracker import RunDescription, RunTracker, resume_run, start_run
from flowmbpo.tracking.store import resolve_store
from flowmbpo.training import builder, loading
from flowmbpo.training.checkpoint_writer import CheckpointWriter
from flowmbpo.training.clock import PhaseClock
from flowmbpo.training.compatibility import (
    check_changes,
    continue_on,
    continue_with_threads,
    not_compared,
    overrides_of,
    pretrained,
    recorded_tags,
)
from flowmbpo.training.devices import choose_device, describe, limit_threads
from flowmbpo.training.progress import Watcher
from flowmbpo.training.result import RunResult
from flowmbpo.training.signals import StopRequest, watch_signals
from flowmbpo.training.trainer import Trainer


@dataclass(frozen=True)
class RunOptions:
    """Where and how long a run trains; not part of the experiment. `pictures` make files, by what they show, from the
    folder of a run that has done its work, and the device."""

    device: str
    tracking_uri: str | None
    epochs: int | None
    time_limit: float | None
    pictures: Mapping[str, Callable[[RunFiles, str], Path]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UserError."""
        epochs, limit = self.epochs, self.time_limit
        if epochs is not None and not (isinstance(epochs, int) and epochs >= 1):
            raise UserError(f"epochs {epochs!r}: allowed are whole numbers from 1")
        if limit is not None and not (isinstance(limit, int | float) and limit > 0):
            raise UserError(f"time limit {limit!r}: allowed are seconds, more than 0")


def train(
    experiment: Experiment, seed: int, options: RunOptions, watcher: Watcher, overrides: Sequence[str] = ()
) -> RunResult:
    """Train `experiment` with `seed` from the start. `overrides` is what `--set` made of the registry's entry.

    A failure of the work (diverged, disk full) is a result with status FAILED; the user's mistakes raise UserError.
    """
    device = choose_device(options.device)
    limit_threads(experiment.resources.cpus)
    store = resolve_store(options.tracking_uri)
    about = RunDescription(
        name=experiment.name,
        seed=seed,
        spec=experiment.model_dump(mode="json"),
        spec_hash=spec_hash(experiment),
        device=describe(device),
    )
    watcher.message(f"{run_name(experiment.name, seed)} on {describe(device)}: preparing (kernels compile once)")
    if not code_state.installed().commit:
        watcher.message(f"the commit of the code is unknown: {code_state.installed().reason}", warning=True)
    with watch_signals() as stop:
        built = builder.build(experiment, seed, device)
        tracker = start_run(store, about, RUNS)
        checkpoints = CheckpointWriter(RunFiles.of(tracker.run_id), experiment, seed, tracker, overrides)
        target = options.epochs or experiment.train.max_epochs
        if target > experiment.train.max_epochs:
            watcher.message(
                f"its spec ends at epoch {experiment.train.max_epochs} (train.max_epochs), before epoch {target}",
                warning=True,
            )
        return _Session(built, seed, options, watcher, stop, tracker, checkpoints, target).run()


def resumable(run_id: str) -> RunFiles:
    """The files of a run of this directory that has something to continue from; the beginning of its id is enough.
    Raises UserError."""
    files = RunFiles.find(run_id)
    if not files.root.is_dir():
        raise UserError(
            f"there is no run {run_id} here ({files.root} does not exist); resume a run in the directory where it was "
            "started, or in one with a copy of its folder. `flowmbpo runs` lists the runs"
        )
    if not files.resume_epochs():
        raise UserError(f"run {files.root.name} has no resumable state in {files.resume}; start it again")
    return files


def resume(
    run_id: str,
    options: RunOptions,
    watcher: Watcher,
    *,
    registry: Path | None,
    accept_changes: bool,
    registered: bool = True,
) -> RunResult:
    """Continue the run `run_id` of this directory, bit for bit where it was.

    Raises UserError, before anything is built or changed, when there is nothing to continue, when another process
    trains the run, and, unless `accept_changes`, when its registry entry or the code has changed. One that is not
    `registered`, as a search's trial, has no entry to compare with.
    """
    files = resumable(run_id)
    run_id = files.root.name
    store = resolve_store(options.tracking_uri)
    lock = RunLock(files.root)
    with watch_signals() as stop, ExitStack() as stack:
        lock.acquire()  # before the state is read: whoever trains the run may be replacing it
        stack.callback(lock.release)
        state = _intact_state(run_id, files, watcher)
        try:
            experiment, seed = loading.experiment_of(state), int(state.manifest["seed"])
        except (BrokenFile, KeyError, TypeError, ValueError) as error:
            raise UserError(f"run {run_id} cannot be continued by this version: {error}") from error
        for change in check_changes(files, state, experiment, registry, registered=registered, accept=accept_changes):
            watcher.message(f"changed since the run began: {change}", warning=True)
        for unknown in not_compared(state.manifest.get("code", {})):
            watcher.message(f"could not be compared with when the run began: {unknown}", warning=True)
        tags = all_tags(files.journal)
        if options.epochs and options.epochs < state.epoch:
            raise UserError(
                f"run {run_id} has done {state.epoch} epochs, more than --epochs {options.epochs}; "
                "give a larger number, or none"
            )
        target = options.epochs or number(tags.get(TARGET_TAG)) or experiment.train.max_epochs
        limit_threads(experiment.resources.cpus)
        if said := continue_with_threads(number(tags.get(THREADS_TAG)), accept_changes):
            watcher.message(said, warning=accept_changes)
        device, said = continue_on(tags.get(DEVICE_TAG, ""), options.device)
        if said:
            watcher.message(said, warning=True)
        watcher.message(f"resuming {run_name(experiment.name, seed)} after epoch {state.epoch}")
        if state.epoch >= target < experiment.train.max_epochs:
            watcher.message(
                f"epoch {target} was its target, so there is nothing left to train; --epochs N continues "
                f"it up to epoch {experiment.train.max_epochs} of its spec",
                warning=True,
            )
        built = builder.build(experiment, seed, device, pretrained=pretrained(state))
        tracker = resume_run(store, run_id, RUNS, lock)
        checkpoints = CheckpointWriter(files, experiment, seed, tracker, overrides_of(state))
        return _Session(built, seed, options, watcher, stop, tracker, checkpoints, target).run(state)


def refuse_changes(run_id: str, registry: Path | None) -> None:
    """Raises UserError where `resume` would, because of the spec, the code or the data, without `accept_changes`."""
    files = resumable(run_id)
    state, _ = checkpoint.newest(files.resume, files.resume_epochs(), "resume")
    if state:
        check_changes(files, state, loading.experiment_of(state), registry, accept=False)


def _intact_state(run_id: str, files: RunFiles, watcher: Watcher) -> checkpoint.Checkpoint:
    """The newest state that is whole. Raises UserError when none is."""
    state, problems = checkpoint.newest(files.resume, files.resume_epochs(), "resume")
    if state is None:
        raise UserError(f"run {run_id} has no intact resumable state: " + "; ".join(problems))
    for problem in problems:
        watcher.message(f"passed over a broken state: {problem}", warning=True)
    return state


@dataclass(frozen=True)
class _Session:
    """Everything of one run, ready to train up to epoch `target`."""

    built: builder.Built
    seed: int
    options: RunOptions
    watcher: Watcher
    stop: StopRequest
    tracker: RunTracker
    checkpoints: CheckpointWriter
    target: int

    def run(self, state: checkpoint.Checkpoint | None = None) -> RunResult:
        """Train, from `state` where the run is continued; say how it ended."""
        trainer = self._trainer()
        failure: WorkFailed | None = None
        self.watcher.started(self.tracker.run_id, self.checkpoints.experiment.name, self.seed)
        try:
            with self.tracker:
                self.tracker.tags(
                    {
                        TARGET_TAG: str(trainer.stop_epoch),
                        THREADS_TAG: str(torch.get_num_threads()),
                        PHASE_TAG: "",
                        **({} if state else recorded_tags(self.checkpoints.experiment)),
                        **self.options.tags,
                    }
                )
                if state:
                    _restore(trainer, state)
                gc.freeze()  # what exists now stays: the cycle collector need not look through it again and again
                trainer.train()
                if not self.stop:
                    self._make_pictures()
                if self.stop:
                    self.tracker.finish("KILLED")
        except WorkFailed as error:
            failure = error
        finally:
            self.watcher.ended()
        if self.tracker.delivery.undelivered:
            refused = self.tracker.delivery.refused
            lacks = f"has refused {refused} entries of this run" if refused else "lacks part of this run"
            self.watcher.message(
                f"the tracking store {lacks}; they are kept, and `flowmbpo sync` delivers them", warning=True
            )
        return self._result(trainer, failure)

    def _trainer(self) -> Trainer:
        experiment = self.checkpoints.experiment
        return Trainer(
            experiment=experiment,
            algorithm=self.built.algorithm,
            env=self.built.env,
            evaluator=self.built.evaluator,
            held_out=self.built.held_out,
            tracker=self.tracker,
            checkpoints=self.checkpoints,
            watcher=self.watcher,
            stop=self.stop,
            stop_epoch=min(self.target, experiment.train.max_epochs),
            time_limit=self.options.time_limit,
            clock=PhaseClock(self.built.env.device.type),
        )

    def _make_pictures(self) -> None:
        """None of them is worth a run that has done its work: whatever goes wrong with one is reported, and costs only
        it."""
        for name, make in self.options.pictures.items():
            try:
                self.tracker.artifact(make(self.checkpoints.files, self.built.env.device.type))
            except Exception as error:
                self.watcher.message(f"no {name}: {error or type(error).__name__}", warning=True)

    def _result(self, trainer: Trainer, failure: WorkFailed | None) -> RunResult:
        files, best = self.checkpoints.files, self.checkpoints.best_reward
        stopped = f"stopped by {self.stop.name}; everything needed to continue is saved" if self.stop else ""
        return RunResult(
            run_id=self.tracker.run_id,
            name=self.checkpoints.experiment.name,
            seed=self.seed,
            status="FAILED" if failure else "KILLED" if self.stop else "FINISHED",
            epochs=trainer.epoch,
            env_steps=trainer.env_steps,
            peak_reward=trainer.peak_reward,
            final_reward=trainer.final_reward,
            eval_reward=best if best > float("-inf") else None,
            wall_seconds=trainer.elapsed,
            checkpoints=[str(files.checkpoint(epoch)) for epoch in files.checkpoint_epochs()],
            directory=str(files.root),
            exit_code=1 if failure else self.stop.exit_code,
            message=str(failure) if failure else stopped,
        )


def _restore(trainer: Trainer, state: checkpoint.Checkpoint) -> None:
    try:
        trainer.load_state_dict(state.load())
    except BrokenFile as error:
        raise WorkFailed(f"the resumable state cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WorkFailed(f"{state.path} does not fit this version's learner or environment: {error}") from error
