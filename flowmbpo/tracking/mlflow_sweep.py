"""The MLflow run that holds a search: its trials are nested in it. It is no run of training and no reader lists it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowmbpo.tracking.mlflow_client import translated, writing
from flowmbpo.tracking.mlflow_writer import prepare_experiment
from flowmbpo.tracking.records import SWEEP_TAG
from flowmbpo.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class SweepRun:
    """An open search."""

    store: Store
    client: MlflowClient
    run_id: str

    @property
    def child_tags(self) -> dict[str, str]:
        return {PARENT_TAG: self.run_id}

    def finish(self, params: Mapping[str, object], reported: float | None) -> None:
        """Say what won, and what its unseen seeds came to."""
        with translated(self.store):
            for key, value in {**params, "reported": reported}.items():
                self.client.set_tag(self.run_id, f"flowmbpo.sweep.{key}", str(value))
            self.client.set_terminated(self.run_id)


def sweep_run(store: Store, name: str, study: str) -> SweepRun:
    """The run of the search `study`, found again where it exists."""
    experiment = prepare_experiment(store)
    with writing(store) as client:
        found = client.search_runs([experiment], f"tags.`{SWEEP_TAG}` = '{study}'", max_results=1)
        run = found[0] if found else client.create_run(experiment, run_name=name, tags={SWEEP_TAG: study})
        if run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
    return SweepRun(store, client, run.info.run_id)
