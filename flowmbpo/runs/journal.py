"""The journal of one run: an append-only file of everything that shall be in MLflow, and how much of it is there.

Every record is written here first and delivered from here, so an unreachable server, a slow one and a killed process
are the same case: records after the cursor are still to be delivered. Delivery may repeat records (the cursor is saved
after the fact); `mlflow_writer` makes repetition harmless. Not here: what the records mean to MLflow.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Journal:
    """`tracking/journal.jsonl` in the run's folder: one JSON record a line, appended from any thread."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "journal.jsonl"
        self._lock = threading.Lock()
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (lives as long as the run)
        if self._file.tell() and not _ends_with_newline(self.path):
            self._file.write(b"\n")  # a process died in the middle of a line: it becomes a line of its own, skipped

    def append(self, record: Record) -> None:
        """Write one record. Raises OSError when the disk is full or the folder is gone."""
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            written = self._file.write(line)
            while written < len(line):  # a raw file may take less than everything, for example just before "disk full"
                line = line[written:]
                written = self._file.write(line)

    def sync(self) -> None:
        """Survive a power loss from here on."""
        os.fsync(self._file.fileno())

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()


def read_records(path: Path, offset: int = 0) -> Iterator[tuple[Record, int]]:
    """Complete records from `offset` on, each with the offset behind it. Damaged lines are passed over."""
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return  # still being written
            offset += len(line)
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record, offset


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


@dataclass(frozen=True)
class Cursor:
    """How far delivery has come: bytes of the journal that MLflow has, and MLflow's own id of the run ("" before it
    exists there). `key` is the run's id in flowmbpo. Another store starts from nothing."""

    key: str
    store: str
    mlflow_run_id: str = ""
    offset: int = 0

    def advanced(self, **changes: Any) -> Cursor:
        return replace(self, **changes)


class CursorFile:
    """`tracking/delivered.json`, replaced as a whole; losing it costs a repeated delivery and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "delivered.json"

    def load(self, key: str, store: str) -> Cursor:
        try:
            found = json.loads(self.path.read_text())
            cursor = Cursor(key, str(found["store"]), str(found["mlflow_run_id"]), int(found["offset"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Cursor(key, store)
        return cursor if cursor.store == store else Cursor(key, store)

    def save(self, cursor: Cursor) -> None:
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(cursor)))
        temporary.replace(self.path)
