"""Finds the files of a checkpoint: where the run wrote them, else in MLflow's artifact store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowmbpo.errors import WorkFailed
from flowmbpo.runs.checkpoint import select
from flowmbpo.runs.files import BrokenFile
from flowmbpo.tracking.mlflow_client import open_client
from flowmbpo.tracking.places import checkpoint_files, current_location
from flowmbpo.tracking.reader import Reader, select_run
from flowmbpo.tracking.records import CheckpointRecord, RunRecord
from flowmbpo.tracking.store import Store


@contextmanager
def chosen_checkpoint(reader: Reader, run: str, which: str) -> Iterator[tuple[RunRecord, CheckpointRecord, Path]]:
    """The run that `run` selects, its checkpoint (best, last or an epoch) and the folder with the files of that one.

    Raises WorkFailed where they are not there, or not intact (BrokenFile from the caller's reading included).
    """
    record = select_run(reader.runs(), run)
    (found,) = select(reader.checkpoints([record]), which, several=False)
    try:
        with checkpoint_folder(reader.store, found) as folder:
            yield record, found, folder
    except (BrokenFile, FileNotFoundError) as error:
        raise WorkFailed(f"{record.run_name} {found.name}: {error}") from error


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
