"""Brings order after processes that could not: delivers what was left in journals, marks dead runs as KILLED.

Not here: telling whether a run is dead (`liveness`) and how entries reach MLflow (`delivery`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs import journal, refused
from flowmbpo.runs.journal import Cursor, Journal, first_entry, last_status, read_entries
from flowmbpo.runs.layout import RunFiles, run_folders
from flowmbpo.runs.lock import DIRECTORY_TAG, HEARTBEAT_TAG, HOST_TAG, RunLock, hostname, is_locked
from flowmbpo.tracking.delivery import Delivery
from flowmbpo.tracking.mlflow_writer import MlflowWriter
from flowmbpo.tracking.places import has_no_process, run_folder, runs_as_they_are, store_names, store_of
from flowmbpo.tracking.reader import Reader
from flowmbpo.tracking.records import RunRecord
from flowmbpo.tracking.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Synced:
    """What became of one run's journal. `problem` is empty where everything arrived."""

    run_id: str
    entries: int
    status: str
    problem: str = ""


def sync_runs(runs: Path, store: Store | None) -> list[Synced]:
    """Deliver what the runs in folder `runs` still have to deliver; a run without a process is also closed as KILLED.

    `store` overrides the store that each run names. Runs that are being trained deliver by themselves and are left out.
    """
    return [sync_run(folder, store) for folder in undelivered_runs(runs, store)]


def undelivered_runs(runs: Path, store: Store | None) -> list[RunFiles]:
    """Runs that nobody trains and whose journal is not all in `store` (None: in the one they name)."""
    return [files for files in run_folders(runs) if not is_locked(files.root) and _is_undelivered(files, store)]


def _is_undelivered(files: RunFiles, store: Store | None) -> bool:
    create = first_entry(files.journal)
    if create is None:
        return False
    try:
        names = store_names(files, store or store_of(files, create))
        cursor = Cursor.load(files.delivered, files.root.name, *names)
    except UserError:
        return True  # `sync_run` says what is missing
    missing = cursor.offset < os.path.getsize(files.journal) or refused.count(files.refused) > 0
    return missing or last_status(files.journal) == "RUNNING"


def sync_run(files: RunFiles, store: Store | None) -> Synced:
    """Deliver the journal of one run that nobody trains."""
    run_id = files.root.name
    lock = RunLock(files.root)
    try:
        lock.acquire()
    except UserError as error:
        return Synced(run_id, 0, "RUNNING", str(error))
    status = "RUNNING"
    try:
        create = first_entry(files.journal)
        if create is None:
            raise WorkFailed(f"{files.journal} does not say how the run began")
        status = last_status(files.journal)
        if status == "RUNNING":
            _close_as_killed(files, int(os.path.getmtime(files.journal) * 1000))
            status = "KILLED"
        delivery = Delivery(files, MlflowWriter(store or store_of(files, create)))
        pending = sum(1 for _ in read_entries(files.journal, delivery.cursor.offset))
        delivery.deliver_all()
        accepted = delivery.deliver_refused()
        problem = ""
        if left := delivery.refused:
            why = "; ".join(refused.reasons(files.refused)[:2])
            problem = f"{left} entries are refused and kept in {files.refused} ({why})"
        return Synced(run_id, pending + accepted, status, problem)
    except (UserError, WorkFailed, OSError) as error:
        return Synced(run_id, 0, status, str(error))
    finally:
        lock.release()


def current_runs(reader: Reader) -> list[RunRecord]:
    """All runs of the store, newest first; those whose process is gone are closed as KILLED before."""
    found = reader.runs()
    if any(has_no_process(reader.store, run) for run in found):
        mark_dead_runs(reader.store, found)
        return runs_as_they_are(reader)
    return found


def mark_dead_runs(store: Store, runs: Sequence[RunRecord]) -> list[str]:
    """Close the runs of `runs` that claim to be RUNNING without a process; returns their ids.

    A dead run of this machine first delivers what it had left. A store that cannot be written to stays as it is.
    """
    marked = []
    writer: MlflowWriter | None = None
    for run in runs:
        if not has_no_process(store, run):
            continue
        here = run.tags.get(HOST_TAG) == hostname()
        files = run_folder(store, run.run_id, run.tags.get(DIRECTORY_TAG, "")) if here else None
        try:
            if files and files.journal.is_file() and not sync_run(files, store).problem:
                marked.append(run.run_id)
                continue
            writer = writer or MlflowWriter(store)
            writer.set_status(run.mlflow_run_id, "KILLED", int(_last_sign(run) * 1000))
            marked.append(run.run_id)
        except (UserError, WorkFailed) as error:
            log.warning("run %s has no process any more but could not be marked: %s", run.run_id, error)
    return marked


def _last_sign(run: RunRecord) -> float:
    """When the run was last heard of, Unix seconds."""
    signs = [run.start_time, *(point.time for point in run.metrics.values())]
    with contextlib.suppress(KeyError, ValueError):
        signs.append(float(run.tags[HEARTBEAT_TAG]))
    return min(time.time(), max(signs))


def _close_as_killed(files: RunFiles, time_ms: int) -> None:
    with contextlib.closing(Journal(files.journal)) as opened:
        opened.append(journal.Status("KILLED", time_ms))
