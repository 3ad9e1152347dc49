"""The journal of one run: an append-only file of everything that shall be in MLflow, and how much of it is there.

Every entry is written here first and delivered from here, so an unreachable server, a slow one and a killed process
are the same case: entries after the cursor are still to be delivered. Delivery may repeat entries (the cursor is saved
after the fact); `mlflow_writer` makes repetition harmless. Not here: what the entries mean to MLflow.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, Literal

from flowmbpo.runs.files import BrokenFile, atomic_file, read_json

RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

DEVICE_TAG = "flowmbpo.device"
TARGET_TAG = "flowmbpo.target_epochs"  # the epoch that the run shall reach
PHASE_TAG = "flowmbpo.phase"  # how far a long phase is; empty or missing while none runs
RECORDED_TAG = "flowmbpo.pretrain_sha256"  # of the file of recorded transitions
THREADS_TAG = "flowmbpo.threads"  # of the arithmetic on the CPU: another number rounds differently


@dataclass(frozen=True)
class Entry:
    """One line of the journal; `op` tells its kind. Times are milliseconds since 1970, steps real environment steps."""

    op: ClassVar[str]


@dataclass(frozen=True)
class Create(Entry):
    """The run begins. `key` is its id in flowmbpo; `store` the tracking URI, empty where it holds a password."""

    op = "create"
    key: str
    name: str
    time: int
    tags: dict[str, str]
    store: str


@dataclass(frozen=True)
class Metrics(Entry):
    op = "metrics"
    time: int
    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Tags(Entry):
    op = "tags"
    tags: dict[str, str]


@dataclass(frozen=True)
class Params(Entry):
    op = "params"
    params: dict[str, str]


@dataclass(frozen=True)
class Artifact(Entry):
    """A file to be uploaded under `folder`; `outbox` holds it, relative to the folder of the journal."""

    op = "artifact"
    file: str
    folder: str
    outbox: str


@dataclass(frozen=True)
class Checkpoint(Entry):
    """A deployable checkpoint, its evaluation, and how that was made (`tags`); `path` is where the run wrote it."""

    op = "checkpoint"
    key: str
    name: str
    path: str
    epoch: int
    step: int
    time: int
    metrics: dict[str, float]
    tags: dict[str, str]
    params: dict[str, str]
    outbox: str


@dataclass(frozen=True)
class Status(Entry):
    op = "status"
    status: RunStatus
    time: int


_KINDS = {kind.op: kind for kind in Entry.__subclasses__()}


class Journal:
    """The open journal: one JSON document a line, appended from any thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.Lock()
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (lives as long as the run)
        if self._file.tell() and not _ends_with_newline(path):
            self._file.write(b"\n")  # a process died in the middle of a line: it becomes a line of its own, skipped

    def append(self, entry: Entry) -> None:
        """Write one entry. Raises OSError when the disk is full or the folder is gone."""
        # Not `asdict`: it copies every value, and this runs in the training thread.
        line = json.dumps({"op": entry.op, **vars(entry)}, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            written = self._file.write(line)
            while written < len(line):  # a raw file may take less than everything, for example just before "disk full"
                line = line[written:]
                written = self._file.write(line)

    def sync(self) -> None:
        """Survive a power loss from here on."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_entries(path: Path, offset: int = 0) -> Iterator[tuple[Entry, int]]:
    """Complete entries from `offset` on, each with the offset behind it. Damaged lines and entries of kinds that this
    version does not know are passed over."""
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return  # still being written
            offset += len(line)
            if (entry := parse_entry(line)) is not None:
                yield entry, offset


def first_entry(path: Path) -> Create | None:
    """How the run began; None for a file that is no journal."""
    try:
        first = next(read_entries(path), None)
    except OSError:
        return None
    return first[0] if first and isinstance(first[0], Create) else None


def last_status(path: Path) -> RunStatus:
    """How the run stands as far as it could write it down. Raises OSError."""
    entry = last_status_entry(path)
    return entry.status if entry else "RUNNING"


def last_status_entry(path: Path) -> Status | None:
    """The newest entry that says how the run stands. Raises OSError."""
    newest = None
    for entry, _ in read_entries(path):
        if isinstance(entry, Status):
            newest = entry
    return newest


def all_tags(path: Path) -> dict[str, str]:
    """The run's tags as it has written them down, the newest value of each; none of a file that is no journal."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for entry, _ in read_entries(path):
            if isinstance(entry, Create | Tags):
                found |= entry.tags
    return found


def parse_entry(line: bytes) -> Entry | None:
    """The entry that a line of a journal holds; None for one that is damaged or of another version."""
    try:
        found = json.loads(line)
        kind = _KINDS[found["op"]]
        return kind(**{field.name: found[field.name] for field in fields(kind)})
    except (ValueError, KeyError, TypeError):
        return None


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

    @classmethod
    def load(cls, path: Path, key: str, store: str, *other_names: str) -> Cursor:
        """The saved cursor of `store`, which it may also call by one of `other_names`. A lost one costs a repeated
        delivery and nothing else."""
        try:
            found = read_json(path)
            cursor = cls(key, str(found["store"]), str(found["mlflow_run_id"]), int(found["offset"]))
        except (BrokenFile, ValueError, KeyError, TypeError):
            return cls(key, store)
        return replace(cursor, store=store) if cursor.store in (store, *other_names) else cls(key, store)

    def save(self, path: Path) -> None:
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
