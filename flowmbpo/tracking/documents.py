"""Keeps documents about many runs, such as the report, in MLflow: in an experiment of their own, not among the runs.

Not here: making them (`flowmbpo.reports`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flowmbpo.tracking.mlflow_client import find_experiment, writing
from flowmbpo.tracking.store import EXPERIMENT, Store

DOCUMENTS = f"{EXPERIMENT}-reports"


def keep_document(store: Store, path: Path, title: str, tags: Mapping[str, str]) -> str:
    """Log the file as the artifact of a new finished run called `title`; returns MLflow's id of it.

    Raises:
        UserError: the store cannot be written to.
        WorkFailed: it does not answer, or its artifact store does not.
    """
    with writing(store) as client:
        experiment = find_experiment(client, store, DOCUMENTS)
        experiment = experiment or client.create_experiment(DOCUMENTS, artifact_location=store.artifacts)
        run = client.create_run(experiment, run_name=title, tags=dict(tags)).info.run_id
        try:
            client.log_artifact(run, str(path))
        except BaseException:
            client.set_terminated(run, "FAILED")
            raise
        client.set_terminated(run, "FINISHED")
    return run
