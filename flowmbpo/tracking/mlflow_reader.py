"""Reads runs through MLflow's client: servers, and databases other than sqlite.

A sqlite file is read faster by `sqlite_reader`; both return the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from flowmbpo.tracking.mlflow_client import find_experiment, open_client, translated
from flowmbpo.tracking.records import (
    RUN_ID_TAG,
    SWEEP_TAG,
    CheckpointRecord,
    Latest,
    RunRecord,
    batches,
    curves_frame,
)
from flowmbpo.tracking.store import EXPERIMENT, Store

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.store.entities import PagedList

T = TypeVar("T")

_THREADS = 8
# The server's bulk history takes 100 runs and answers with at most 25,000 points, without a word about more.
_BULK_RUNS = 50
_BULK_POINTS = 25_000

Row = tuple[str, str, int, float, float | None]


class MlflowReader:
    """Records of the runs in one store, whatever its kind."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._client: MlflowClient = open_client(store, write=False)

    def runs(self) -> list[RunRecord]:
        """All runs that are not deleted, newest first."""
        with translated(self.store):
            experiment = self._experiment()
            if experiment is None:
                return []
            search = lambda token: self._client.search_runs(  # noqa: E731
                [experiment], max_results=1000, order_by=["attributes.start_time DESC"], page_token=token
            )
            return [_run_record(run) for run in _pages(search) if SWEEP_TAG not in run.data.tags]

    def curves(self, runs: Sequence[RunRecord], metrics: Sequence[str]) -> pd.DataFrame:
        """All points of `metrics` of `runs`; see `Reader.curves`."""
        ids = {run.mlflow_run_id: run.run_id for run in runs}
        tasks = [
            (metric, batch)
            for metric in metrics
            for batch in batches([run.mlflow_run_id for run in runs if metric in run.metrics], _BULK_RUNS)
        ]
        rows: list[Row] = []
        with translated(self.store), ThreadPoolExecutor(_THREADS) as pool:
            for found in pool.map(lambda task: self._history(*task), tasks):
                rows += found
        return curves_frame(rows, ids)

    def checkpoints(self, runs: Sequence[RunRecord]) -> list[CheckpointRecord]:
        """Checkpoints of `runs`, oldest first."""
        ids = {run.mlflow_run_id: run.run_id for run in runs}
        with translated(self.store):
            experiment = self._experiment()
            if experiment is None:
                return []
            search = lambda token: self._client.search_logged_models([experiment], page_token=token)  # noqa: E731
            models = [(ids[run], model) for model in _pages(search) if (run := model.source_run_id) in ids]
        records = []
        for run_id, model in models:
            metrics: dict[str, float] = {}
            for metric in sorted(model.metrics or [], key=lambda metric: metric.timestamp):
                metrics[metric.key] = metric.value  # the newest evaluation counts
            records.append(
                CheckpointRecord(
                    run_id,
                    model.model_id,
                    model.name,
                    model.artifact_location,
                    model.creation_timestamp / 1000,
                    dict(model.params or {}),
                    dict(model.tags or {}),
                    metrics,
                )
            )
        return sorted(records, key=lambda record: (record.created, record.model_id))

    def _experiment(self) -> str | None:
        return find_experiment(self._client, self.store, EXPERIMENT)

    def _history(self, metric: str, runs: Sequence[str]) -> list[Row]:
        rows = self._bulk_history(metric, runs) if self.store.is_server and len(runs) > 1 else None
        if rows is not None and len(rows) < _BULK_POINTS:
            return rows
        if rows is not None:
            half = len(runs) // 2
            return self._history(metric, runs[:half]) + self._history(metric, runs[half:])
        return [
            (run, metric, point.step, point.timestamp, point.value)
            for run in runs
            for point in self._client.get_metric_history(run, metric)
        ]

    def _bulk_history(self, metric: str, runs: Sequence[str]) -> list[Row] | None:
        """Many curves in one request, as MLflow's own UI asks for them; None where the server does not offer it.

        The client has no call for this; one request per run took 4.5 times as long (1,000 runs of 300 points).
        """
        from mlflow.tracking._tracking_service.utils import _get_store  # the client's credentials and settings
        from mlflow.utils.rest_utils import http_request

        service: Any = _get_store(self.store.uri)
        answer = http_request(
            service.get_host_creds(),
            "/ajax-api/2.0/mlflow/metrics/get-history-bulk",
            "GET",
            params={"run_id": list(runs), "metric_key": metric, "max_results": _BULK_POINTS},
        )
        if answer.status_code != 200:
            return None
        found = answer.json().get("metrics", [])
        return [(p["run_id"], metric, p["step"], p["timestamp"], float(p["value"])) for p in found]


def _run_record(run: Run) -> RunRecord:
    tags = dict(run.data.tags)
    # `data.metrics` holds values only; the entities behind it also say at which step.
    latest = {m.key: Latest(m.value, m.step, m.timestamp / 1000) for m in run.data._metric_objs}
    return RunRecord(
        run_id=tags.get(RUN_ID_TAG, run.info.run_id),
        mlflow_run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        run_name=run.info.run_name or "",
        status=run.info.status,
        start_time=(run.info.start_time or 0) / 1000,
        end_time=run.info.end_time / 1000 if run.info.end_time else None,
        params=dict(run.data.params),
        tags=tags,
        metrics=latest,
    )


def _pages(search: Callable[[str | None], PagedList[T]]) -> Iterator[T]:
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return
