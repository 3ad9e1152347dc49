"""Searches the values of an experiment with Optuna: trials are runs, judged by the real evaluation of their policies.

A trial trains the seeds 0 to K-1 and its value is the mean of their best evaluations. The winner is trained again with
the seeds K to 2K-1, which the search never saw: the best of many trials is partly luck, and only that number is honest.
Any number of processes may work on one search (`study`); one that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, TypedDict

from flowmbpo.data_types import JSON, Document
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.files import locked
from flowmbpo.runs.layout import RunFiles
from flowmbpo.spec.identity import spec_hash
from flowmbpo.spec.problems import RegistryError
from flowmbpo.spec.registry import Registry
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking.metrics import EVALUATED_REWARD
from flowmbpo.tracking.mlflow_sweep import sweep_run
from flowmbpo.tracking.store import Store, check_store
from flowmbpo.training import session
from flowmbpo.training.progress import Progress, StopTraining, Watcher
from flowmbpo.training.search_space import Space, decoded, suggest, with_values
from flowmbpo.training.study import JOURNAL, WHY, Worker, is_interrupted, open_study

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

_VALUES, _RUN = "values", "run"  # of a trial: of its seeds so far, and the run of the next one


class Interrupted(WorkFailed):
    """A signal ended a trial; the search can be continued. `exit_code` is the signal's."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("the search was interrupted; the same command continues it")
        self.exit_code = exit_code


@dataclass(frozen=True)
class Sweep:
    """What is searched. `space`: dotted key -> `{choices}` or `{low, high}` with `log` or `step`."""

    registry: Registry
    name: str
    space: Space
    seeds: int
    options: session.RunOptions
    watcher: Callable[[], Watcher]
    overrides: Sequence[str] = ()

    @property
    def study_name(self) -> str:
        """Another space, experiment or number of seeds is another search."""
        experiment = self.registry.resolve(self.name, self.overrides).spec
        about = [spec_hash(experiment), self.space, self.seeds, self.options.epochs]
        return f"{self.name}-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]}"

    def experiment(self, params: Mapping[str, JSON], name: str) -> Experiment:
        """With these values, under a name of its own: trials are no seeds of the experiment. Raises RegistryError."""
        spec = self.registry.resolve(self.name, with_values(self.overrides, params)).spec
        return spec.model_copy(update={"name": f"{self.name}-{name}", "aliases": ()})


class Row(TypedDict):
    number: int
    state: str
    value: float | None
    params: Document


@dataclass
class Found:
    """How a search stands. `searched` is the winner's value in the search, `reported` the mean over `winner_runs` (seed
    -> best evaluated R) that decides; each is None before it is known, or where a winner's run failed. `unfinished`
    trials or winner's runs have begun and not ended; the process of the `interrupted` among them is gone."""

    study: str
    trials: list[Row]
    params: Document
    searched: float | None
    winner_runs: dict[int, float | None]
    unfinished: int
    interrupted: int

    @property
    def reported(self) -> float | None:
        values = [value for value in self.winner_runs.values() if value is not None]
        return fmean(values) if values and len(values) == len(self.winner_runs) else None

    def document(self) -> Document:
        known = self.reported is not None and self.searched is not None
        gap = self.searched - self.reported if known else None  # type: ignore[operator]
        return {**vars(self), "reported": self.reported, "gap": gap}


def search(sweep: Sweep, store: Store, trials: int, say: Callable[[str], None], *, train: bool = True) -> Found:
    """Work on what nobody works on of `trials` trials and of the winner's runs; without `train` only look.

    Raises WorkFailed when no trial has a value or Optuna's file cannot be used, Interrupted after a signal.
    """
    check_store(store, write=train)
    folder = store.sqlite.parent if store.sqlite else Path.cwd()
    if not (train or (folder / JOURNAL).exists()):
        raise UserError(f"nothing has been searched yet: there is no {folder / JOURNAL}")
    study = open_study(folder, sweep.study_name)
    if train:
        try:
            with Worker(folder) as worker:
                _work(sweep, store, study, trials, worker, folder, say)
        except OSError as error:
            raise WorkFailed(f"the search cannot be kept in {folder}: {error}") from None
    return _found(sweep, study, trials, folder)


def _work(
    sweep: Sweep, store: Store, study: Study, trials: int, worker: Worker, folder: Path, say: Callable[[str], None]
) -> None:
    with locked(folder / JOURNAL):
        parent = sweep_run(store, f"{sweep.name}-sweep", study.study_name)
    while trial := worker.claim(study, trials):
        params = {key: suggest(trial, key, form) for key, form in sweep.space.items()}
        say(f"trial {trial.number} ({trial.number + 1} of {trials}): {json.dumps(params)}")
        tags = {**parent.child_tags, "flowmbpo.trial": str(trial.number)}
        options = replace(sweep.options, tags=tags, pictures={})
        try:
            experiment = sweep.experiment(params, "sweep")
        except RegistryError as error:  # each value is allowed, but not together
            _tell(trial, None, error.problems[0].message)
            continue
        _tell(trial, *_train(sweep, _Run(sweep.watcher(), worker, trial, experiment), range(sweep.seeds), options))
    found = _found(sweep, study, trials, folder)
    if found.searched is None:
        return
    winner = sweep.experiment(found.params, "tuned")
    winners = open_study(folder, _winners(study, winner))
    while trial := worker.claim(winners, sweep.seeds):
        seed = sweep.seeds + trial.number
        say(f"the winner again, seed {seed}, which the search never saw")
        run = _Run(sweep.watcher(), worker, trial, winner, prunes=False)
        _tell(trial, *_train(sweep, run, range(seed, seed + 1), replace(sweep.options, tags={})))
    found = _found(sweep, study, trials, folder)
    if not found.unfinished:
        parent.finish(found.params, found.reported)


def _winners(study: Study, winner: Experiment) -> str:
    """The study whose trials are the winner's runs."""
    return f"{study.study_name}-winner-{spec_hash(winner)}"


def _tell(trial: Trial, value: float | None, why: str) -> None:
    from optuna.trial import TrialState

    if value is None:
        trial.set_user_attr(WHY, why)
        trial.study.tell(trial, state=TrialState.PRUNED)
    else:
        trial.study.tell(trial, value)


def _train(sweep: Sweep, run: _Run, seeds: range, options: session.RunOptions) -> tuple[float | None, str]:
    """Mean over the seeds of the best evaluation, or None and why: the trial was pruned or failed. Goes on where an
    earlier process was."""
    trial, experiment = run.trial, run.experiment
    for seed in seeds[len(run.values) :]:
        try:
            result = _continued(sweep, run, options) or session.train(experiment, seed, options, run)
        except StopTraining:
            return None, "pruned"
        if result.exit_code > 2:
            run.worker.give_back(trial)
            raise Interrupted(result.exit_code)
        if result.eval_reward is None or result.status != "FINISHED":
            return None, result.message or result.status
        run.values.append(result.eval_reward)
        trial.set_user_attr(_VALUES, run.values)
        trial.set_user_attr(_RUN, "")
    return fmean(run.values), ""


def _continued(sweep: Sweep, run: _Run, options: session.RunOptions) -> session.RunResult | None:
    """The run that an earlier process had begun, trained to its end; None where there is nothing to go on from."""
    run_id = run.trial.user_attrs.get(_RUN)
    if not run_id or not RunFiles.of(run_id).resume_epochs():
        return None
    try:
        return session.resume(run_id, options, run, registry=None, accept_changes=True, registered=False)
    except UserError as error:
        run.message(f"it begins anew: {error}", warning=True)
        return None


class _Run:
    """A trial's run as its watcher: passes everything on, says that it lives, and stops where the median of earlier
    trials was better."""

    def __init__(
        self, shown: Watcher, worker: Worker, trial: Trial, experiment: Experiment, *, prunes: bool = True
    ) -> None:
        self.shown, self.worker, self.trial, self.experiment = shown, worker, trial, experiment
        self.values: list[float] = list(trial.user_attrs.get(_VALUES, ()))  # of the seeds before
        self._prunes = prunes
        self._last: float | None = None

    def started(self, run_id: str, name: str, seed: int) -> None:
        self.trial.set_user_attr(_RUN, run_id)
        self.shown.started(run_id, name, seed)

    def progress(self, progress: Progress) -> None:
        self.shown.progress(progress)
        self.worker.beat(self.trial)
        value = progress.metrics.get(EVALUATED_REWARD)
        if not self._prunes or value is None or value == self._last:
            return
        self._last = float(value)
        step = len(self.values) * self.experiment.train.max_epochs + progress.epoch
        if step not in self.trial.study.trials[self.trial.number].intermediate_values:
            self.trial.report(fmean([*self.values, self._last]), step)
        if self.trial.should_prune():
            raise StopTraining

    def phase(self, text: str) -> None:
        self.shown.phase(text)
        self.worker.beat(self.trial)

    def message(self, text: str, warning: bool = False) -> None:
        self.shown.message(text, warning)

    def ended(self) -> None:
        self.shown.ended()


def _found(sweep: Sweep, study: Study, trials: int, folder: Path) -> Found:
    known = study.trials
    rows = [_row(sweep, trial) for trial in known]
    found = Found(study.study_name, rows, {}, None, {}, *_unfinished(known))
    if found.unfinished or len(known) < trials:
        return found
    valued = [(row["value"], row["params"]) for row in found.trials if row["value"] is not None]
    if not valued:
        raise WorkFailed("no trial came to a result; `flowmbpo runs` shows how they ended")
    found.searched, found.params = max(valued, key=lambda pair: pair[0])
    winners = open_study(folder, _winners(study, sweep.experiment(found.params, "tuned"))).trials
    found.unfinished, found.interrupted = _unfinished(winners)
    values = {sweep.seeds + trial.number: trial.value for trial in winners}
    found.winner_runs = {seed: values.get(seed) for seed in range(sweep.seeds, 2 * sweep.seeds)}
    return found


def _unfinished(trials: Sequence[FrozenTrial]) -> tuple[int, int]:
    """How many have not ended, and how many of them nobody trains."""
    return sum(trial.state.name == "RUNNING" for trial in trials), sum(map(is_interrupted, trials))


def _row(sweep: Sweep, trial: FrozenTrial) -> Row:
    state = "interrupted" if is_interrupted(trial) else trial.state.name.lower()
    return {
        "number": trial.number,
        "state": trial.user_attrs.get(WHY, state),
        "value": trial.value if state == "complete" else None,
        "params": decoded(sweep.space, trial.params),
    }
