"""Finds the files of a checkpoint: where the run wrote them, else in MLflow's artifact store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowmbpo.tracking.mlflow_client import open_client
from flowmbpo.tracking.places import checkpoint_files, current_location
from flowmbpo.tracking.records import CheckpointRecord
from flowmbpo.tracking.store import Store


@contextmanager
def checkpoint_folder(store: Store, found: CheckpointRecord) -> Iterator[Path]:
    """A folder with the checkpoint's files; one that had to be downloaded is gone afterwards.

    Raises FileNotFoundError when neither place has them.
    """
    if (here := checkpoint_files(store, found)) is not None:
        yield here
        return
    with tempfile.TemporaryDirectory(prefix="flowmbpo-checkpoint-") as temporary:
        open_client(store, write=False)  # our time-outs, not MLflow's minutes
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        location = current_location(store, found.artifacts)
        try:
            folder = download_artifacts(artifact_uri=location, dst_path=temporary, tracking_uri=store.uri)
        except (MlflowException, OSError) as error:
            raise FileNotFoundError(
                f"its files are neither in {found.path or 'a run folder'} nor in {location} ({error})"
            ) from error
        yield Path(folder)
