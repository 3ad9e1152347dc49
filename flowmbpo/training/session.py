"""One run from start to end: builds, trains, tracks, and says how it ended. What training does is in `trainer`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowmbpo import __version__
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.spec.identity import run_name, spec_hash
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking.run_tracker import RunDescription, RunTracker, resume_run, start_run
from flowmbpo.tracking.store import resolve_store
from flowmbpo.training import builder, checkpoint
from flowmbpo.training.devices import choose_device, describe, synchronizer
from flowmbpo.training.keeper import Keeper
from flowmbpo.training.progress import Watcher
from flowmbpo.training.result import RunResult
from flowmbpo.training.run_files import RUNS, RunFiles
from flowmbpo.training.signals import StopRequest, watch_signals
from flowmbpo.training.tensor_files import BrokenFile
from flowmbpo.training.trainer import Trainer


@dataclass(frozen=True)
class Surroundings:
    """Where and how long a run trains; not part of the experiment. `finishing` makes pictures from a run's folder."""

    device: str
    tracking_uri: str | None
    epochs: int | None
    time_limit: float | None
    finishing: Callable[[RunFiles, str], list[Path]] = lambda files, device: []


def train(experiment: Experiment, seed: int, where: Surroundings, watcher: Watcher) -> RunResult:
    """Train `experiment` with `seed` from the start.

    A failure of the work (diverged, disk full) is a result with status FAILED; the user's mistakes raise UserError.
    """
    device = choose_device(where.device)
    store = resolve_store(where.tracking_uri)
    about = RunDescription(
        name=experiment.name,
        seed=seed,
        spec=experiment.model_dump(mode="json"),
        spec_hash=spec_hash(experiment),
        device=describe(device),
    )
    watcher.message(f"{run_name(experiment.name, seed)} on {describe(device)}: preparing (kernels compile once)")
    with watch_signals() as stop:
        built = builder.build(experiment, seed, device)
        tracker = start_run(store, about, RUNS)
        return _train(experiment, seed, where, watcher, stop, device, built, tracker, None)


def resume(run_id: str, where: Surroundings, watcher: Watcher, *, accept_changes: bool) -> RunResult:
    """Continue the run `run_id` of this directory, bit for bit where it was."""
    files = RunFiles.of(run_id)
    if not files.root.is_dir():
        raise UserError(f"{files.root} does not exist: resume a run in the directory where it was started")
    state, problems = checkpoint.newest(files.resume, files.resume_epochs(), "resume")
    for problem in problems:
        watcher.message(f"passed over a broken state: {problem}", warning=True)
    if state is None:
        raise UserError(f"run {run_id} has no resumable state in {files.resume}")
    experiment = builder.experiment_of(state)
    seed = int(state.manifest["seed"])
    if state.manifest["version"] != __version__ and not accept_changes:
        raise UserError(
            f"run {run_id} was trained by flowmbpo {state.manifest['version']}, this is {__version__}: the rest may "
            "differ. --accept-changes continues all the same"
        )
    device = choose_device(where.device)
    store = resolve_store(where.tracking_uri)
    watcher.message(f"resuming {run_name(experiment.name, seed)} after epoch {state.epoch}")
    with watch_signals() as stop:
        built = builder.build(experiment, seed, device)
        tracker = resume_run(store, run_id, RUNS)
        return _train(experiment, seed, where, watcher, stop, device, built, tracker, state)


def _train(
    experiment: Experiment,
    seed: int,
    where: Surroundings,
    watcher: Watcher,
    stop: StopRequest,
    device: str,
    built: builder.Built,
    tracker: RunTracker,
    state: checkpoint.Checkpoint | None,
) -> RunResult:
    begin = time.monotonic()
    files = RunFiles.of(tracker.run_id)
    last = experiment.train.max_epochs
    trainer = Trainer(
        experiment=experiment,
        algorithm=built.algorithm,
        env=built.env,
        evaluator=built.evaluator,
        tracker=tracker,
        keeper=Keeper(files, experiment, seed, tracker),
        watcher=watcher,
        stop=stop,
        stop_epoch=min(where.epochs or last, last),
        time_limit=where.time_limit,
        synchronize=synchronizer(device),
    )
    message = ""
    failure: WorkFailed | None = None
    watcher.started(tracker.run_id, experiment.name, seed)
    try:
        with tracker:
            if state:
                trainer.load_state_dict(_load(state))
            trainer.train()
            if stop:
                message = f"stopped by {stop.name}; everything needed to continue is saved"
                tracker.finish("KILLED")
            else:
                for path in where.finishing(files, device):
                    tracker.artifact(path)
    except WorkFailed as error:
        failure, message = error, str(error)
    finally:
        watcher.ended()
    if tracker.undelivered:
        watcher.message("the tracking store lacks part of this run; `flowmbpo sync` delivers it", warning=True)
    return RunResult(
        run_id=tracker.run_id,
        name=experiment.name,
        seed=seed,
        status="FAILED" if failure else "KILLED" if stop else "FINISHED",
        epochs=trainer.epoch,
        env_steps=trainer.env_steps,
        peak_reward=trainer.peak_reward,
        final_reward=trainer.final_reward,
        eval_reward=trainer.keeper.best_reward if trainer.keeper.best_reward > float("-inf") else None,
        wall_seconds=time.monotonic() - begin,
        checkpoints=[str(files.checkpoint(epoch)) for epoch in files.checkpoint_epochs()],
        directory=str(files.root),
        exit_code=1 if failure else stop.exit_code,
        message=message,
    )


def _load(state: checkpoint.Checkpoint) -> dict[str, object]:
    try:
        return state.load()
    except BrokenFile as error:
        raise WorkFailed(f"the resumable state cannot be read: {error}") from error
