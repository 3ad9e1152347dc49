"""Reads runs straight from MLflow's sqlite file, without MLflow: no import of 1.5 s, and 1,000 curves in one query.

Read-only. Servers and other databases are read by `mlflow_reader`; both return the same records, and a test compares
the two with the installed MLflow, whose schema is private. Worth it: comparing 1,000 runs takes 12 s instead of 81
(docs/performance.md).
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowmbpo.errors import WorkFailed
from flowmbpo.tracking.records import (
    RUN_ID_TAG,
    SWEEP_TAG,
    CheckpointRecord,
    Latest,
    RunRecord,
    T,
    batches,
    curves_frame,
)
from flowmbpo.tracking.store import EXPERIMENT, Store, connect_readonly, damaged, deleted_experiment

if TYPE_CHECKING:
    import pandas as pd

# The revision of MLflow's schema that the queries below were written for is not checked: they name the columns that
# they need, and a store without them is reported as such.
_DELETED = "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'deleted'"
_RUNS = """
    SELECT run_uuid, runs.experiment_id, runs.name, status, start_time, end_time
    FROM runs JOIN experiments USING (experiment_id)
    WHERE experiments.name = ? AND runs.lifecycle_stage = 'active'
    ORDER BY start_time DESC, run_uuid
"""
_OF_RUNS = """
    FROM {table} JOIN runs USING (run_uuid) JOIN experiments USING (experiment_id) WHERE experiments.name = ?
"""
_MODELS = """
    SELECT model_id, source_run_id, logged_models.name, logged_models.artifact_location, creation_timestamp_ms
    FROM logged_models JOIN experiments USING (experiment_id)
    WHERE experiments.name = ? AND logged_models.lifecycle_stage = 'active'
    ORDER BY creation_timestamp_ms, model_id
"""
_MODEL_PARAMS = "SELECT model_id, param_key, param_value FROM logged_model_params WHERE model_id IN ({})"
_MODEL_TAGS = "SELECT model_id, tag_key, tag_value FROM logged_model_tags WHERE model_id IN ({})"
_MODEL_METRICS = """
    SELECT model_id, metric_name, metric_value FROM logged_model_metrics WHERE model_id IN ({})
    ORDER BY metric_timestamp_ms
"""  # the newest evaluation counts
_BATCH = 500  # values in one IN (...) list


class SqliteReader:
    """Records of the runs in one sqlite store."""

    def __init__(self, store: Store) -> None:
        assert store.sqlite is not None
        self.store = store
        self._path = store.sqlite

    def runs(self) -> list[RunRecord]:
        """All runs that are not deleted, newest first."""
        with self._query() as db:
            if deleted := db.execute(_DELETED, (EXPERIMENT,)).fetchone():
                raise deleted_experiment(self.store, EXPERIMENT, *deleted)
            rows = db.execute(_RUNS, (EXPERIMENT,)).fetchall()
            params = _by_id(db.execute(f"SELECT run_uuid, key, value {_of('params')}", (EXPERIMENT,)))
            tags = _by_id(db.execute(f"SELECT run_uuid, key, value {_of('tags')}", (EXPERIMENT,)))
            metrics: dict[str, dict[str, Latest]] = defaultdict(dict)
            columns = "run_uuid, key, value, is_nan, step, timestamp"
            for run, key, value, nan, step, time in db.execute(
                f"SELECT {columns} {_of('latest_metrics')}", (EXPERIMENT,)
            ):
                metrics[run][key] = Latest(float("nan") if nan else value, step, time / 1000)
        return [
            RunRecord(
                run_id=tags[run].get(RUN_ID_TAG, run),
                mlflow_run_id=run,
                experiment_id=str(experiment),
                run_name=name or tags[run].get("mlflow.runName", ""),
                status=status,
                start_time=(start or 0) / 1000,
                end_time=end / 1000 if end else None,
                params=params[run],
                tags=tags[run],
                metrics=metrics[run],
            )
            for run, experiment, name, status, start, end in rows
            if SWEEP_TAG not in tags[run]
        ]

    def curves(self, runs: Sequence[RunRecord], metrics: Sequence[str]) -> pd.DataFrame:
        """All points of `metrics` of `runs`; see `Reader.curves`."""
        ids = {run.mlflow_run_id: run.run_id for run in runs}
        found: list[tuple[str, str, int, float, float]] = []
        with self._query() as db:
            for batch in batches(list(ids), _BATCH):
                # The index on (run_uuid, key, step) serves few runs, the primary key (key, ...) serves many.
                found += db.execute(
                    "SELECT run_uuid, key, step, timestamp, CASE WHEN is_nan THEN NULL ELSE value END FROM metrics "
                    f"WHERE run_uuid IN ({_marks(batch)}) AND key IN ({_marks(metrics)})",
                    (*batch, *metrics),
                )
        return curves_frame(found, ids)

    def checkpoints(self, runs: Sequence[RunRecord]) -> list[CheckpointRecord]:
        """Checkpoints of `runs`, oldest first."""
        ids = {run.mlflow_run_id: run.run_id for run in runs}
        with self._query() as db:
            models = [row for row in db.execute(_MODELS, (EXPERIMENT,)) if row[1] in ids]
            wanted = [row[0] for row in models]

            def of_models(sql: str) -> dict[str, dict[str, Any]]:
                return _by_id(
                    row for ids in batches(wanted, _BATCH) for row in db.execute(sql.format(_marks(ids)), ids)
                )

            params, tags, metrics = of_models(_MODEL_PARAMS), of_models(_MODEL_TAGS), of_models(_MODEL_METRICS)
        return [
            CheckpointRecord(ids[run], model, name, place, made / 1000, params[model], tags[model], metrics[model])
            for model, run, name, place, made in models
        ]

    @contextmanager
    def _query(self) -> Iterator[sqlite3.Connection]:
        try:
            with connect_readonly(self._path) as db:
                yield db
        except sqlite3.OperationalError as error:
            if "no such" in str(error):
                raise WorkFailed(
                    f"{self._path} was written by another MLflow version ({error}); make a copy of it, then "
                    f"`mlflow db upgrade {self.store.uri}`"
                ) from None
            raise WorkFailed(f"{self._path} cannot be read just now ({error}); try again") from None
        except sqlite3.DatabaseError as error:
            raise damaged(self._path, error) from None


def _by_id(rows: Iterable[tuple[str, str, T]]) -> dict[str, dict[str, T]]:
    """From rows (id, key, value); the last value of a key counts."""
    found: dict[str, dict[str, T]] = defaultdict(dict)
    for owner, key, value in rows:
        found[owner][key] = value
    return found


def _of(table: str) -> str:
    return _OF_RUNS.format(table=table)


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))
