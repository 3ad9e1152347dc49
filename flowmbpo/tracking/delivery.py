"""Carries one run's journal to MLflow, from the cursor on; used by the run's own thread and by `flowmbpo sync`.

Not here: threads and retries over time (`run_tracker`), and MLflow itself (`mlflow_writer`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from itertools import islice
from pathlib import Path

from flowmbpo.errors import WorkFailed
from flowmbpo.runs.journal import Cursor, CursorFile, Record, read_records
from flowmbpo.tracking.mlflow_client import Refused
from flowmbpo.tracking.mlflow_writer import MlflowWriter

log = logging.getLogger(__name__)

RECORDS_AT_ONCE = 200


class Delivery:
    """Delivers the journal in `folder` (`runs/<run_id>/tracking`) of the run with our id `key`."""

    def __init__(self, folder: Path, key: str, writer: MlflowWriter, mlflow_run_id: str = "") -> None:
        self.folder = folder
        self.writer = writer
        self._cursor_file = CursorFile(folder)
        cursor = self._cursor_file.load(key, str(writer.store))
        self.cursor = cursor.advanced(mlflow_run_id=mlflow_run_id) if mlflow_run_id else cursor
        self.refused = 0

    @property
    def pending_bytes(self) -> int:
        """How much of the journal MLflow does not have yet."""
        try:
            return os.path.getsize(self.folder / "journal.jsonl") - self.cursor.offset
        except OSError:
            return 0

    def deliver_some(self) -> bool:
        """Deliver the next records; False when there are none. Raises Unreachable, and nothing is lost; WorkFailed when
        the journal is gone."""
        try:
            batch = list(islice(read_records(self.folder / "journal.jsonl", self.cursor.offset), RECORDS_AT_ONCE))
        except OSError as error:
            raise WorkFailed(f"{self.folder / 'journal.jsonl'} cannot be read: {error.strerror}") from error
        if not batch:
            return False
        records = [record for record, _ in batch]
        run = self._run(records)
        self._write(run, [_located(record, self.folder) for record in records])
        self._move(self.cursor.advanced(offset=batch[-1][1]))
        for record in records:
            if "outbox" in record:
                shutil.rmtree(self.folder / record["outbox"], ignore_errors=True)
        return True

    def deliver_all(self) -> None:
        """Everything there is. Raises Unreachable when the store goes away meanwhile."""
        while self.deliver_some():
            pass

    def _run(self, records: list[Record]) -> str:
        if not self.cursor.mlflow_run_id:
            create = (
                records[0] if records[0]["op"] == "create" else next(read_records(self.folder / "journal.jsonl"))[0]
            )
            self._move(self.cursor.advanced(mlflow_run_id=self.writer.find_or_create(create, look=True)))
        return self.cursor.mlflow_run_id

    def _write(self, run: str, records: list[Record]) -> None:
        try:
            self.writer.write(run, records)
        except Refused as error:
            if len(records) > 1:  # find the one that is refused; repeating the others does no harm
                for record in records:
                    self._write(run, [record])
                return
            self.refused += 1
            log.warning("a %s record is not in MLflow: %s", records[0]["op"], error)
            with contextlib.suppress(OSError), open(self.folder / "refused.jsonl", "a") as file:
                file.write(json.dumps({"reason": str(error), "record": records[0]}) + "\n")

    def _move(self, cursor: Cursor) -> None:
        self.cursor = cursor
        with contextlib.suppress(OSError):  # a full disk: the cursor in memory is enough, repetition is harmless
            self._cursor_file.save(cursor)


def _located(record: Record, folder: Path) -> Record:
    """Records name files relative to their folder, so that a run's folder can be moved."""
    if "outbox" not in record:
        return record
    key = "files" if record["op"] == "checkpoint" else "path"
    place = folder / record["outbox"]
    return {**record, key: str(place if key == "files" else place / record["file"])}
