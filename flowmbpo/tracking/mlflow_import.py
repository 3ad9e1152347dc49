"""Makes a run of another program a finished run of ours: names mapped, steps those of the environment, origin tagged.

Also reads MLflow stores of other programs. An import that is repeated finds its run again by a key made of everything
that decides its contents.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from flowmbpo.errors import UserError
from flowmbpo.runs import journal
from flowmbpo.tracking.foreign_logs import ForeignLog, Row, choose_run
from flowmbpo.tracking.metrics import EPISODE_REWARD, check_names
from flowmbpo.tracking.metrics import find as find_metric
from flowmbpo.tracking.mlflow_client import open_client, translated
from flowmbpo.tracking.mlflow_writer import MlflowWriter
from flowmbpo.tracking.records import ORIGIN_TAG, RunRecord
from flowmbpo.tracking.store import Store, resolve_store

ENV_STEPS, SECONDS = "env_steps", "seconds"
_UNKNOWN_START = 946_684_800  # 2000-01-01: when a run began whose log has no clock


@dataclass(frozen=True)
class Mapped:
    """How foreign names are read. `columns`: a metric of the catalogue, `env_steps` or `seconds` -> the foreign name.
    Without `env_steps`, a logger's step is `steps_per` environment steps."""

    columns: Mapping[str, str] = field(default_factory=dict)
    steps_per: float = 1.0


@dataclass(frozen=True)
class Imported:
    """What an import came to; `new` is false where the run was there already."""

    run_id: str
    name: str
    seed: int
    metrics: list[str]
    points: int
    env_steps: int
    new: bool


def import_log(
    store: Store, known: Sequence[RunRecord], log: ForeignLog, source: str, name: str, seed: int, how: Mapped
) -> Imported:
    """Write `log` into the store, whose runs are `known`, as the run NAME/seed-N.

    Raises UserError for a wrong map or a name that is taken.
    """
    entries = metric_entries(log, how)
    described = {"name": name, "seed": seed, "points": [vars(entry) for entry in entries]}
    key = "imported" + hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]
    finished = False
    for run in known:
        if run.name == name and not run.origin:
            raise UserError(f"{name!r} has runs of its own; an imported run is a reference and needs another name")
        if run.name == name and run.seed == seed and run.run_id != key:
            raise UserError(
                f"{name}/seed-{seed} is there already, imported from {run.origin} with other contents; choose another "
                f"--seed or name, or delete run {run.run_id} in MLflow first"
            )
        finished |= run.run_id == key and run.status == "FINISHED"
    if not finished:
        tags = {"flowmbpo.name": name, "flowmbpo.seed": str(seed), ORIGIN_TAG: f"{log.kind}: {source}"}
        writer = MlflowWriter(store)
        create = journal.Create(key, f"{name}/seed-{seed}", entries[0].time, tags, "")
        run_id = writer.find_or_create(create, look=True)
        writer.write(run_id, [*entries, journal.Status("FINISHED", entries[-1].time)], None)
    metrics = list(dict.fromkeys(metric for entry in entries for metric in entry.metrics))
    return Imported(key, name, seed, metrics, sum(len(e.metrics) for e in entries), entries[-1].step, not finished)


def metric_entries(log: ForeignLog, how: Mapped) -> list[journal.Metrics]:
    """The log's points under our names, by environment steps, ascending. Raises UserError for a wrong map."""
    names = _names(log, how)
    beginning = next((row.time for row in log.rows if row.time is not None), None)
    steps_column, seconds_column = how.columns.get(ENV_STEPS), how.columns.get(SECONDS)
    known: list[tuple[int, float]] = []  # (logger's step, environment steps)
    if steps_column:
        known = sorted((row.step, row.values[steps_column]) for row in log.rows if steps_column in row.values)
    entries: dict[int, journal.Metrics] = {}
    for row in log.rows:
        values = {ours: row.values[theirs] for ours, theirs in names.items() if theirs in row.values}
        if not values:
            continue
        steps = row.values.get(steps_column, math.nan) if steps_column else row.step * how.steps_per
        steps = _interpolated(known, row.step) if math.isnan(steps) else steps
        if not 0 <= steps < 2**62:
            raise UserError(f"environment steps {steps} at the logger's step {row.step} cannot be; check env_steps")
        seconds = _seconds(row, seconds_column, beginning)
        entry = entries.setdefault(int(steps), journal.Metrics(int(1000 * seconds), int(steps), {}))
        entry.metrics.update(values)
    start = int(1000 * (beginning or _UNKNOWN_START))
    return [journal.Metrics(start + e.time, e.step, e.metrics) for _, e in sorted(entries.items())]


def _names(log: ForeignLog, how: Mapped) -> dict[str, str]:
    """Our metric -> foreign name: what the user said, and what has our names already."""
    for ours, theirs in how.columns.items():
        if theirs not in log.names:
            near = get_close_matches(theirs, log.names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"nothing called {theirs!r} was logged{hint} There are {', '.join(log.names[:40])}")
        if ours not in (ENV_STEPS, SECONDS):
            try:
                check_names([ours])
            except ValueError as error:
                raise UserError(f"--map {ours}={theirs}: {error}") from None
    names = {name: name for name in log.names if find_metric(name)}
    names |= {ours: theirs for ours, theirs in how.columns.items() if ours not in (ENV_STEPS, SECONDS)}
    if EPISODE_REWARD not in names:
        raise UserError(
            f"which of the logged names is R? Say --map {EPISODE_REWARD}=NAME. There are {', '.join(log.names[:40])}"
        )
    return names


def _seconds(row: Row, column: str | None, beginning: float | None) -> float:
    """Since the start of the run; 0 where the log does not say."""
    if column:
        seconds = row.values.get(column, 0.0)
    else:
        seconds = row.time - beginning if row.time is not None and beginning is not None else 0.0
    return seconds if math.isfinite(seconds) and seconds >= 0 else 0.0


def _interpolated(known: list[tuple[int, float]], step: int) -> float:
    import numpy as np

    loggers, steps = zip(*known, strict=True)
    return float(np.interp(step, loggers, steps))


def read_store(uri: str, run: str | None) -> ForeignLog:
    """One run of another program's MLflow store. Raises UserError when it is not clear which."""
    store = resolve_store(uri)
    client = open_client(store, write=False)
    with translated(store):
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(experiments, max_results=1000)
        chosen = choose_run(str(store), {each.info.run_id: each.info.run_name for each in found}, run)
        metrics = next(each for each in found if each.info.run_id == chosen).data.metrics
        rows: dict[tuple[int, int], dict[str, float]] = {}
        for name in metrics:
            for point in client.get_metric_history(chosen, name):
                rows.setdefault((point.step, point.timestamp), {})[name] = point.value
    if not rows:
        raise UserError(f"run {chosen} of {store} has no metrics")
    return ForeignLog("mlflow", [Row(step, at / 1000, values) for (step, at), values in sorted(rows.items())])
