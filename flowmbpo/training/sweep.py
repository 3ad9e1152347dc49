"""Searches the values of an experiment with Optuna: trials are runs, judged by the real evaluation of their policies.

A trial trains the seeds 0 to K-1 and its value is the mean of their best evaluations. The winner is trained again with
the seeds K to 2K-1, which the search never saw: the best of many trials is partly luck, and only that number is honest.
Everything is in Optuna's sqlite file beside the store, so a search that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.files import locked
from flowmbpo.spec.identity import spec_hash
from flowmbpo.spec.problems import RegistryError
from flowmbpo.spec.registry import Registry
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking.metrics import EVALUATED_REWARD
from flowmbpo.tracking.mlflow_sweep import sweep_run
from flowmbpo.tracking.store import Store, check_sqlite, sqlite_store
from flowmbpo.training import session
from flowmbpo.training.progress import Progress, StopTraining, Watcher

if TYPE_CHECKING:
    from optuna import Study, Trial

DATABASE = "optuna.db"
_FORMS = ({"choices"}, {"low", "high"}, {"low", "high", "log"}, {"low", "high", "step"})


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
    space: Mapping[str, Mapping[str, Any]]
    seeds: int
    options: session.RunOptions
    watcher: Callable[[], Watcher]
    overrides: Sequence[str] = ()

    @property
    def experiment(self) -> Experiment:
        return self.registry.resolve(self.name, self.overrides).spec

    @property
    def study_name(self) -> str:
        """Another space, experiment or number of seeds is another search."""
        about = [spec_hash(self.experiment), self.space, self.seeds, self.options.epochs]
        return f"{self.name}-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]}"


@dataclass
class Found:
    """`trials`: number, state, value and params. `searched` is the winner's value in the search, `reported` the mean
    over `winner_runs` (seed -> best evaluated R) that decides; None where a winner's run failed."""

    study: str
    trials: list[dict[str, Any]]
    params: dict[str, Any]
    searched: float
    winner_runs: dict[int, float | None] = field(default_factory=dict)

    @property
    def reported(self) -> float | None:
        values = [value for value in self.winner_runs.values() if value is not None]
        return fmean(values) if len(values) == len(self.winner_runs) else None

    def document(self) -> dict[str, Any]:
        gap = None if self.reported is None else self.searched - self.reported
        return {**vars(self), "reported": self.reported, "gap": gap}


def read_space(path: Path, registry: Registry, name: str, overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The search space of a TOML file, its ends and choices validated by the registry's rules.

    Raises UserError for its form and RegistryError for a value that the experiment may not have.
    """
    try:
        space = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"search space {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"search space {path} is not valid TOML: {error}") from None
    if not space:
        raise UserError(f"{path} names nothing to search")
    for key, form in space.items():
        if not isinstance(form, dict) or set(form) not in _FORMS:
            raise UserError(
                f'{path}: "{key}" must be {{ choices = [1, 2] }} or {{ low = 1e-4, high = 1e-2, log = true }}'
                " or { low = 1, high = 9, step = 2 }"
            )
        values = form["choices"] if "choices" in form else [form["low"], form["high"]]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if not isinstance(values, list) or not values or ("low" in form and not numbers):
            raise UserError(f"{path}: {key} has no values: choices is a list, low and high are numbers")
        if ("low" in form and not form["low"] < form["high"]) or (form.get("log") and form["low"] <= 0):
            raise UserError(f"{path}: {key} needs low < high, and low > 0 where log = true")
        for value in values:
            registry.resolve(name, _with(overrides, {key: value}))
    return space


def search(sweep: Sweep, store: Store, trials: int, say: Callable[[str], None]) -> Found:
    """Train what is missing of `trials` trials and of the winner's runs.

    Raises WorkFailed when no trial has a value or Optuna's file cannot be used, Interrupted after a signal, UserError
    while another process makes the same search.
    """
    if store.sqlite:
        check_sqlite(store.sqlite, write=True)
    with locked(_folder(store) / f"{DATABASE}.{sweep.study_name}.lock", 0.5) as alone:
        if alone is None:
            raise UserError("another process makes this search; wait for it, or name other seeds or another space")
        return _search(sweep, store, trials, say)


def _search(sweep: Sweep, store: Store, trials: int, say: Callable[[str], None]) -> Found:
    study = _study(sweep, store)
    parent = sweep_run(store, f"{sweep.name}-sweep", study.study_name)
    finished = lambda: [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]  # noqa: E731
    while len(finished()) < trials:
        trial = study.ask()
        params = {key: _suggest(trial, key, form) for key, form in sweep.space.items()}
        say(f"trial {len(finished()) + 1} of {trials}: {json.dumps(params)}")
        value = _value(sweep, trial, params, parent.child_tags)
        if value is None:
            study.tell(trial, state=_states().PRUNED)
        else:
            study.tell(trial, value)
    known = [trial for trial in finished() if trial.state.name == "COMPLETE"]
    if not known:
        raise WorkFailed("no trial came to a result; `flowmbpo runs` shows how they ended")
    best = max(known, key=lambda trial: trial.value or -math.inf)
    found = Found(
        study.study_name,
        [_row(sweep, trial) for trial in study.trials],
        _decoded(sweep, best.params),
        float(best.value or 0.0),
    )
    winner = _named(sweep, found.params, f"{sweep.name}-tuned")
    for seed in range(sweep.seeds, 2 * sweep.seeds):
        key = f"winner {spec_hash(winner)} {seed}"
        if key not in study.user_attrs:
            say(f"the winner again, seed {seed}, which the search never saw")
            result = session.train(winner, seed, replace(sweep.options, tags={}), sweep.watcher())
            if result.exit_code > 2:
                raise Interrupted(result.exit_code)
            study.set_user_attr(key, result.eval_reward)
        found.winner_runs[seed] = study.user_attrs[key]
    parent.finish(found.params, found.reported)
    return found


def _study(sweep: Sweep, store: Store) -> Study:
    try:
        import optuna
    except ImportError:
        raise UserError("a search needs Optuna: pip install 'flowmbpo[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = sqlite_store(_folder(store) / DATABASE)
    uri = place.uri.replace("{", "{{").replace("}", "}}")  # Optuna formats it
    try:
        study = optuna.create_study(
            study_name=sweep.study_name,
            storage=uri,
            sampler=optuna.samplers.TPESampler(seed=0),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:  # what SQLAlchemy and Optuna make of a file that is none of theirs
        raise WorkFailed(f"{place} cannot be used ({error}); move it away, and the search begins anew") from None
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))  # one that is continued draws no value again
    for trial in study.trials:
        if trial.state.name == "RUNNING":  # its process is gone: the same values once more
            study.tell(trial.number, state=_states().FAIL)
            study.enqueue_trial(trial.params)
    return study


def _folder(store: Store) -> Path:
    return store.sqlite.parent if store.sqlite else Path.cwd()


def _states() -> Any:
    from optuna.trial import TrialState

    return TrialState


def _suggest(trial: Trial, key: str, form: Mapping[str, Any]) -> Any:
    if "choices" in form:
        texts = [json.dumps(choice) for choice in form["choices"]]  # a choice may be a list, which Optuna does not take
        return json.loads(trial.suggest_categorical(key, texts))
    low, high, step, log = form["low"], form["high"], form.get("step"), form.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, step=step or 1, log=log)
    return trial.suggest_float(key, low, high, step=step, log=log)


def _value(sweep: Sweep, trial: Trial, params: Mapping[str, Any], tags: Mapping[str, str]) -> float | None:
    """Mean over the seeds of the best evaluation; None for a trial that is pruned, refused by the rules or failed."""
    try:
        experiment = _named(sweep, params, f"{sweep.name}-sweep")
    except RegistryError as error:  # each value is allowed, but not together
        trial.set_user_attr("why", error.problems[0].message)
        return None
    values: list[float] = []
    for seed in range(sweep.seeds):
        watcher = _Pruner(sweep.watcher(), trial, values, experiment.train.max_epochs)
        try:
            options = replace(sweep.options, tags={**tags, "flowmbpo.trial": str(trial.number)}, pictures={})
            result = session.train(experiment, seed, options, watcher)
        except StopTraining:
            trial.set_user_attr("why", "pruned")
            return None
        if result.exit_code > 2:
            raise Interrupted(result.exit_code)
        if result.eval_reward is None or result.status != "FINISHED":
            trial.set_user_attr("why", result.message or result.status)
            return None
        values.append(result.eval_reward)
    return fmean(values)


@dataclass
class _Pruner:
    """A watcher that passes everything on, and stops a run that does worse than the median of earlier trials."""

    shown: Watcher
    trial: Trial
    values: Sequence[float]  # of the seeds before
    max_epochs: int
    _last: float | None = None

    def started(self, run_id: str, name: str, seed: int) -> None:
        self.shown.started(run_id, name, seed)

    def progress(self, progress: Progress) -> None:
        self.shown.progress(progress)
        value = progress.metrics.get(EVALUATED_REWARD)
        if value is None or value == self._last:
            return
        self._last = float(value)
        step = len(self.values) * self.max_epochs + progress.epoch
        self.trial.report(fmean([*self.values, self._last]), step)
        if self.trial.should_prune():
            raise StopTraining

    def phase(self, text: str) -> None:
        self.shown.phase(text)

    def message(self, text: str, warning: bool = False) -> None:
        self.shown.message(text, warning)

    def ended(self) -> None:
        self.shown.ended()


def _named(sweep: Sweep, params: Mapping[str, Any], name: str) -> Experiment:
    """The experiment with these values under a name of its own: trials are no seeds of the experiment."""
    spec = sweep.registry.resolve(sweep.name, _with(sweep.overrides, params)).spec
    return spec.model_copy(update={"name": name, "aliases": ()})


def _with(overrides: Sequence[str], params: Mapping[str, Any]) -> list[str]:
    return [*overrides, *(f"{key}={json.dumps(value)}" for key, value in params.items())]


def _decoded(sweep: Sweep, params: Mapping[str, Any]) -> dict[str, Any]:
    """Optuna's values as the registry has them."""
    return {key: json.loads(value) if "choices" in sweep.space[key] else value for key, value in params.items()}


def _row(sweep: Sweep, trial: Any) -> dict[str, Any]:
    state = trial.state.name.lower()
    return {
        "number": trial.number,
        "state": trial.user_attrs.get("why", state),
        "value": trial.value if state == "complete" else None,
        "params": _decoded(sweep, trial.params),
    }
