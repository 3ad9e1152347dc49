"""Delivers one run's journal to MLflow, from the cursor on: once (`Delivery`) or for the life of a run (its thread).

Not here: what is delivered (`run_tracker` writes the journal) and MLflow itself (`mlflow_writer`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from itertools import islice

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs import journal
from flowmbpo.runs.journal import Cursor, Entry, Journal, read_entries
from flowmbpo.runs.layout import RunFiles
from flowmbpo.runs.lock import HEARTBEAT_SECONDS, HEARTBEAT_TAG
from flowmbpo.tracking.mlflow_client import Refused, Unreachable
from flowmbpo.tracking.mlflow_writer import MlflowWriter
from flowmbpo.tracking.store import Store
from flowmbpo.tracking.system_metrics import SystemSampler

log = logging.getLogger(__name__)

START_SECONDS = 20.0  # how long a run waits for its MLflow id before it starts without one,
FILE_START_SECONDS = 180.0  # and for a file: it can be opened for sure, but eight processes take turns to create it
FINISH_SECONDS = 30.0  # how long a finished run waits for its last entries to arrive
DELIVERY_SECONDS = 3.0  # shortest time between two deliveries: points in between share one call
SAMPLE_SECONDS = 30.0
_BACKOFF = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_ENTRIES_AT_ONCE = 200


class Delivery:
    """Delivers the journal of the run with our id `key` in the folder `files`."""

    def __init__(self, files: RunFiles, key: str, writer: MlflowWriter, mlflow_run_id: str = "") -> None:
        self.files = files
        self.writer = writer
        cursor = Cursor.load(files.delivered, key, str(writer.store))
        self.cursor = cursor.advanced(mlflow_run_id=mlflow_run_id) if mlflow_run_id else cursor
        self.refused = 0

    @property
    def pending_bytes(self) -> int:
        """How much of the journal MLflow does not have yet."""
        try:
            return os.path.getsize(self.files.journal) - self.cursor.offset
        except OSError:
            return 0

    def deliver_some(self) -> bool:
        """Deliver the next entries; False when there are none. Raises Unreachable, and nothing is lost; WorkFailed when
        the journal is gone."""
        try:
            batch = list(islice(read_entries(self.files.journal, self.cursor.offset), _ENTRIES_AT_ONCE))
        except OSError as error:
            raise WorkFailed(f"{self.files.journal} cannot be read: {error.strerror}") from error
        if not batch:
            return False
        entries = [entry for entry, _ in batch]
        self._write(self._run(), entries)
        self._move(self.cursor.advanced(offset=batch[-1][1]))
        for entry in entries:
            if isinstance(entry, journal.Artifact | journal.Checkpoint):
                shutil.rmtree(self.files.tracking / entry.outbox, ignore_errors=True)
        return True

    def deliver_all(self) -> None:
        """Everything there is. Raises Unreachable when the store goes away meanwhile."""
        while self.deliver_some():
            pass

    def _run(self) -> str:
        if not self.cursor.mlflow_run_id:
            create = journal.first_entry(self.files.journal)
            if create is None:
                raise WorkFailed(f"{self.files.journal} does not say how its run began")
            self._move(self.cursor.advanced(mlflow_run_id=self.writer.find_or_create(create, look=True)))
        return self.cursor.mlflow_run_id

    def _write(self, run: str, entries: list[Entry]) -> None:
        try:
            self.writer.write(run, entries, self.files.tracking)
        except Refused as error:
            if len(entries) > 1:  # find the one that is refused; repeating the others does no harm
                for entry in entries:
                    self._write(run, [entry])
                return
            self.refused += 1
            (entry,) = entries
            log.warning("an entry of the journal (%s) is not in MLflow: %s", entry.op, error)
            with contextlib.suppress(OSError), open(self.files.refused, "a", encoding="utf-8") as file:
                file.write(json.dumps({"reason": str(error), "record": {"op": entry.op, **vars(entry)}}) + "\n")

    def _move(self, cursor: Cursor) -> None:
        self.cursor = cursor
        with contextlib.suppress(OSError):  # a full disk: the cursor in memory is enough, repetition is harmless
            cursor.save(self.files.delivered)


class DeliveryThread:
    """Delivers while a run goes on, gives signs of life and samples the system.

    One thread for the life of a run. `create`, `run` and `finish` are called in this order; `create` is skipped when
    the run exists already.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writer = MlflowWriter(store)
        self._wake = threading.Event()
        self._created = threading.Event()
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._create: journal.Create | None = None
        self._mlflow_run_id = ""
        self._error: UserError | WorkFailed | None = None
        self._last: journal.Status | None = None
        self._journal: Journal | None = None
        self._delivery: Delivery | None = None
        self.cpu_seconds = 0.0  # used by this thread since the run began
        self._thread = threading.Thread(target=self._main, name="tracking", daemon=True)

    @property
    def undelivered(self) -> bool:
        return self._thread.is_alive() or self._delivery is None or self._delivery.pending_bytes > 0

    def create(self, create: journal.Create) -> str:
        """Create the run and return its id: MLflow's, or our key when the store does not answer in time.

        Raises UserError or WorkFailed when the store can never be used.
        """
        self._create = create
        self._thread.start()
        patience = FILE_START_SECONDS if self._store.sqlite else START_SECONDS
        in_time = self._created.wait(patience)
        if in_time and self._error is not None and not isinstance(self._error, Unreachable):
            self._stopping.set()
            self._ready.set()
            raise self._error
        if in_time and self._mlflow_run_id:
            return self._mlflow_run_id
        reason = self._error or f"{self._store} did not answer within {patience:.0f} s"
        log.warning("%s. The run starts all the same: its records are kept and delivered later.", reason)
        return create.key

    def run(self, journal: Journal, files: RunFiles, key: str, step: Callable[[], int]) -> None:
        """Start to deliver `journal` of the run in `files`; `step` tells the current environment steps."""
        self._journal, self._files, self._key, self._step = journal, files, key, step
        if not self._thread.is_alive():
            self._thread.start()
        self._ready.set()

    def wake(self) -> None:
        self._wake.set()

    def finish(self, last: journal.Status | None = None) -> None:
        """Deliver the rest and stop. `last` is the final status where the journal could not take it."""
        self._last = last
        self._stopping.set()
        self._wake.set()
        self._thread.join(FINISH_SECONDS)
        if self.undelivered:
            log.warning("not everything is in %s yet; `flowmbpo sync` delivers the rest", self._store)

    def abandon(self) -> None:
        """The run exists in MLflow but cannot begin here: close it as FAILED."""
        self._last = journal.Status("FAILED", int(time.time() * 1000))
        self._ready.set()
        self._thread.join(FINISH_SECONDS)

    def _main(self) -> None:
        if self._create is not None:
            try:
                self._mlflow_run_id = self._writer.find_or_create(self._create, look=False)
            except (UserError, WorkFailed) as error:
                self._error = error
            self._created.set()
        self._ready.wait()
        if self._journal is None:
            self._close(self._mlflow_run_id)
            return
        self._delivery = Delivery(self._files, self._key, self._writer, self._mlflow_run_id)
        self._loop(self._delivery)

    def _loop(self, delivery: Delivery) -> None:
        sampler = SystemSampler(self._files.root)
        failures, next_sample, next_beat = 0, time.monotonic() + 1.0, time.monotonic() + HEARTBEAT_SECONDS
        before = time.thread_time()  # importing MLflow and making the run are not counted
        while True:
            self.cpu_seconds = time.thread_time() - before
            stopping = self._stopping.is_set()
            try:
                delivery.deliver_all()
                if not stopping and (failures or time.monotonic() >= next_beat):
                    next_beat = time.monotonic() + HEARTBEAT_SECONDS
                    beat = {HEARTBEAT_TAG: str(int(time.time()))}
                    self._writer.alive(delivery.cursor.mlflow_run_id, beat, again=failures > 0)
                if failures:
                    log.warning("%s answers again; everything is delivered", self._store)
                failures = 0
            except (UserError, WorkFailed) as error:
                if not failures and not isinstance(self._error, Unreachable):
                    log.warning("%s. Records are kept in %s and delivered later.", error, delivery.files.tracking)
                self._error = None
                failures += 1
            if stopping:
                self._close(delivery.cursor.mlflow_run_id)
                return
            pause = _BACKOFF[min(failures, len(_BACKOFF)) - 1] if failures else DELIVERY_SECONDS
            self._stopping.wait(pause)
            if not failures:
                self._wake.wait(max(0.0, min(next_sample, next_beat) - time.monotonic()))
                self._wake.clear()
            if time.monotonic() >= next_sample and not self._stopping.is_set():
                next_sample = time.monotonic() + SAMPLE_SECONDS
                self._sample(sampler)

    def _sample(self, sampler: SystemSampler) -> None:
        assert self._journal is not None
        with contextlib.suppress(OSError, ValueError):  # the training thread reports a full disk; or the run is over
            self._journal.append(journal.Metrics(int(time.time() * 1000), self._step(), sampler.sample()))

    def _close(self, mlflow_run_id: str) -> None:
        if self._last is not None and mlflow_run_id:
            try:
                self._writer.write(mlflow_run_id, [self._last], None)
            except WorkFailed as error:
                log.warning("%s", error)
