"""Brings order after processes that could not: delivers what was left in journals, marks dead runs as KILLED.

Not here: telling whether a run is dead (`liveness`) and how records reach MLflow (`delivery`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.journal import CursorFile, Journal, Record, read_records
from flowmbpo.runs.lock import DIRECTORY_TAG, HEARTBEAT_TAG, HOST_TAG, RunLock, hostname, is_dead, is_locked
from flowmbpo.tracking.delivery import Delivery
from flowmbpo.tracking.mlflow_writer import MlflowWriter
from flowmbpo.tracking.records import RunRecord
from flowmbpo.tracking.run_tracker import TRACKING_FOLDER
from flowmbpo.tracking.store import Store, resolve_store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Synced:
    """What became of one run's journal. `problem` is empty where everything arrived."""

    run_id: str
    records: int
    status: str
    problem: str = ""


def sync_runs(runs: Path, store: Store | None) -> list[Synced]:
    """Deliver what the runs in folder `runs` still owe; a run without a process is also closed as KILLED.

    `store` overrides the store that each run names. Runs that are being trained deliver by themselves and are left out.
    """
    return [sync_run(folder, store) for folder in owing_runs(runs, store)]


def owing_runs(runs: Path, store: Store | None) -> list[Path]:
    """Folders of runs that nobody trains and whose journal is not all in `store` (None: in the one they name)."""
    return list(_owing(runs, store))


def _owing(runs: Path, store: Store | None) -> Iterator[Path]:
    for journal in sorted(runs.glob(f"*/{TRACKING_FOLDER}/journal.jsonl")):
        folder = journal.parent.parent
        if is_locked(folder):
            continue
        first = next(read_records(journal), None)
        if first is None or first[0]["op"] != "create":
            continue
        try:
            cursor = CursorFile(journal.parent).load(folder.name, str(store or _named_store(first[0])))
        except UserError:
            yield folder  # `sync_run` says what is missing
            continue
        if cursor.offset < os.path.getsize(journal) or _status(journal) == "RUNNING":
            yield folder


def sync_run(folder: Path, store: Store | None) -> Synced:
    """Deliver the journal of one run that nobody trains."""
    tracking = folder / TRACKING_FOLDER
    journal = tracking / "journal.jsonl"
    lock = RunLock(folder)
    try:
        lock.acquire()
    except UserError as error:
        return Synced(folder.name, 0, "RUNNING", str(error))
    try:
        create = next(read_records(journal))[0]
        status = _status(journal)
        if status == "RUNNING":
            _close_as_killed(tracking, int(os.path.getmtime(journal) * 1000))
            status = "KILLED"
        target = store or _named_store(create)
        delivery = Delivery(tracking, folder.name, MlflowWriter(target))
        owed = sum(1 for _ in read_records(journal, delivery.cursor.offset))
        delivery.deliver_all()
        problem = (
            f"{delivery.refused} records were refused; see {tracking / 'refused.jsonl'}" if delivery.refused else ""
        )
        return Synced(folder.name, owed, status, problem)
    except (UserError, WorkFailed, OSError) as error:
        return Synced(folder.name, 0, status, str(error))
    finally:
        lock.release()


def mark_dead_runs(store: Store, runs: Sequence[RunRecord]) -> list[str]:
    """Close the runs of `runs` that claim to be RUNNING without a process; returns their ids.

    A dead run of this machine first delivers what it had left. A store that cannot be written to stays as it is.
    """
    marked = []
    writer: MlflowWriter | None = None
    for run in runs:
        if run.status != "RUNNING" or not is_dead(run.tags):
            continue
        folder = Path(run.tags.get(DIRECTORY_TAG, ""))
        here = run.tags.get(HOST_TAG) == hostname() and (folder / TRACKING_FOLDER / "journal.jsonl").is_file()
        try:
            if here and not sync_run(folder, store).problem:
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


def _named_store(create: Record) -> Store:
    uri = create.get("store") or ""
    if not uri:
        raise UserError("the run's store has a password in its URI, which is not kept; give --tracking-uri")
    return resolve_store(uri)


def _status(journal: Path) -> str:
    status = "RUNNING"
    for record, _ in read_records(journal):
        if record["op"] == "status":
            status = record["status"]
    return status


def _close_as_killed(tracking: Path, time_ms: int) -> None:
    journal = Journal(tracking)
    try:
        journal.append({"op": "status", "status": "KILLED", "time": time_ms})
    finally:
        journal.close()
