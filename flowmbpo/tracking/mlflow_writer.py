"""Puts the entries of a journal into an MLflow store; every operation may be repeated without changing the result.

Why repetition is harmless: MLflow knows a metric point by name, time, step and value and drops a second copy;
params and tags overwrite themselves; a run and a checkpoint carry our key and are looked up before they are created.
Not here: the journal, threads and retries (`delivery`). MLflow is imported on first use (1.5 s).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from flowmbpo.runs import journal
from flowmbpo.runs.files import BrokenFile
from flowmbpo.runs.journal import Entry
from flowmbpo.tracking.mlflow_client import find_experiment, open_client, translated, writing
from flowmbpo.tracking.mlflow_model import add_model_files
from flowmbpo.tracking.mlflow_view import experiment_tags
from flowmbpo.tracking.places import adopt
from flowmbpo.tracking.records import CHECKPOINT_TAG, PATH_TAG, RUN_ID_TAG, batches
from flowmbpo.tracking.store import EXPERIMENT, Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

MAX_METRICS = 1000  # MLflow's limits for one log_batch
MAX_PARAMS = 100
MAX_TAGS = 100
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000


class MlflowWriter:
    """Writes one run at a time into one store. Not thread-safe."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._client: MlflowClient | None = None
        self._experiment = ""

    def check(self) -> None:
        """Write to the store without leaving a run. Raises UserError, WorkFailed as `open_client`."""
        client = self._connected()
        with translated(self.store):
            client.set_experiment_tag(self._experiment, "flowmbpo.checked", str(int(time.time())))

    def find_or_create(self, create: journal.Create, *, look: bool) -> str:
        """MLflow's id of the run that the journal's first entry describes.

        `look` searches for the run's key first: needed when an earlier attempt may have got through.
        """
        client = self._connected()
        with translated(self.store):
            if look and (found := self.find(create.key)):
                return found
            run = client.create_run(self._experiment, create.time, {**create.tags, RUN_ID_TAG: create.key}, create.name)
            return run.info.run_id

    def find(self, key: str) -> str | None:
        """MLflow's id of the run with our key, which may be MLflow's id itself."""
        client = self._connected()
        from mlflow.exceptions import MlflowException

        with translated(self.store):
            try:
                return client.get_run(key).info.run_id
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            found = client.search_runs([self._experiment], f"tags.`{RUN_ID_TAG}` = '{key}'", max_results=1)
            return found[0].info.run_id if found else None

    def write(self, run: str, entries: Sequence[Entry], folder: Path | None) -> None:
        """All of `entries` in order, in as few calls as MLflow allows; their files are in `folder`."""
        client = self._connected()
        with translated(self.store):
            for kind, group in groupby(entries, type):
                if kind is journal.Metrics:
                    self._metrics(client, run, [entry for entry in group if isinstance(entry, journal.Metrics)])
                else:
                    for entry in group:
                        self._write(client, run, entry, folder)

    def alive(self, run: str, tags: Mapping[str, str]) -> None:
        """A sign of life. It takes back a KILLED that a reader set while we could not answer."""
        client = self._connected()
        from mlflow.entities import RunTag

        with translated(self.store):
            client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])
            client.update_run(run, status="RUNNING")

    def set_status(self, run: str, status: str, end_time: int) -> None:
        with translated(self.store):
            self._connected().set_terminated(run, status, end_time)

    def _connected(self) -> MlflowClient:
        if self._client is None:
            client = open_client(self.store, write=True)
            with translated(self.store):
                adopt(self.store)
                self._experiment = _experiment(client, self.store)
            self._client = client
        return self._client

    def _write(self, client: MlflowClient, run: str, entry: Entry, folder: Path | None) -> None:
        from mlflow.entities import Param, RunTag

        match entry:
            case journal.Params():
                params = [Param(key, value[:MAX_PARAM_LENGTH]) for key, value in entry.params.items()]
                for some in batches(params, MAX_PARAMS):
                    client.log_batch(run, params=some)
            case journal.Tags():
                tags = [RunTag(key, value[:MAX_TAG_LENGTH]) for key, value in entry.tags.items()]
                for part in batches(tags, MAX_TAGS):
                    client.log_batch(run, tags=part)
            case journal.Artifact():
                assert folder is not None
                path = folder / entry.outbox / entry.file
                if path.exists():  # gone: it was delivered before the cursor could be saved
                    client.log_artifact(run, str(path), entry.folder or None)
            case journal.Checkpoint():
                assert folder is not None
                self._checkpoint(client, run, entry, folder)
            case journal.Status(status="RUNNING"):
                client.update_run(run, status="RUNNING")
            case journal.Status():
                client.set_terminated(run, entry.status, entry.time)

    def _metrics(self, client: MlflowClient, run: str, entries: Sequence[journal.Metrics]) -> None:
        from mlflow.entities import Metric

        points = [
            Metric(name, value, entry.time, entry.step) for entry in entries for name, value in entry.metrics.items()
        ]
        for part in batches(points, MAX_METRICS):
            client.log_batch(run, metrics=part)

    def _checkpoint(self, client: MlflowClient, run: str, entry: journal.Checkpoint, folder: Path) -> None:
        model = find_checkpoint(client, self._experiment, run, entry.name)
        if model is None:
            created = client.create_logged_model(
                self._experiment,
                entry.name,
                source_run_id=run,
                tags={
                    CHECKPOINT_TAG: entry.name,
                    PATH_TAG: entry.path,
                    RUN_ID_TAG: entry.key,
                    **entry.tags,
                },
                params={"epoch": str(entry.epoch), "env_steps": str(entry.step), **entry.params},
                model_type="policy",
            )
            from mlflow.entities import LoggedModelOutput

            client.log_outputs(run, [LoggedModelOutput(created.model_id, entry.step)])
            model = created.model_id
        files = folder / entry.outbox
        if files.is_dir():
            try:
                add_model_files(files, run, model)
            except BrokenFile as error:  # its files are kept all the same
                log.warning("checkpoint %s is no MLflow model: %s", entry.name, error)
            client.log_model_artifacts(model, str(files))
            client.finalize_logged_model(model, "READY")
        log_model_metrics(client, run, model, entry.metrics, entry.step, entry.time)


def find_checkpoint(client: MlflowClient, experiment: str, run: str, name: str) -> str | None:
    """Id of the logged model of one checkpoint of one run."""
    found = client.search_logged_models([experiment], f"source_run_id = '{run}' AND name = '{name}'", max_results=1)
    return found[0].model_id if found else None


def log_model_metrics(
    client: MlflowClient, run: str, model: str, metrics: Mapping[str, float], step: int, time_ms: int
) -> None:
    """Metrics of the run that are linked to one of its checkpoints."""
    if metrics:
        from mlflow.entities import Metric

        client.log_batch(run, metrics=[Metric(n, v, time_ms, step, model_id=model) for n, v in metrics.items()])


def prepare_experiment(store: Store) -> str:
    """Id of the experiment in `store`, with the tags of the UI's first view."""
    with writing(store) as client:
        adopt(store)
        experiment = _experiment(client, store)
        present = client.get_experiment(experiment).tags
        for key, value in experiment_tags().items():
            if present.get(key) != value:
                client.set_experiment_tag(experiment, key, value)
    return experiment


def _experiment(client: MlflowClient, store: Store) -> str:
    from mlflow.exceptions import MlflowException

    if (found := find_experiment(client, store, EXPERIMENT)) is None:
        try:
            return client.create_experiment(EXPERIMENT, artifact_location=store.artifacts, tags=experiment_tags())
        except MlflowException as error:  # another process was first
            if (found := find_experiment(client, store, EXPERIMENT)) is None:
                raise error from None
    return found
