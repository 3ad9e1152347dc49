"""Delivers one run's journal to MLflow, from the cursor on: once (`Delivery`) or for the life of a run (its thread).

Not here: what is delivered (`run_tracker` writes the journal) and MLflow itself (`mlflow_writer`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs import journal, refused
from flowmbpo.runs.journal import Cursor, Entry, Journal, read_entries
from flowmbpo.runs.layout import RunFiles
from flowmbpo.runs.lock import HEARTBEAT_SECONDS, HEARTBEAT_TAG
from flowmbpo.tracking.mlflow_client import Refused, Unreachable
from flowmbpo.tracking.mlflow_writer import MlflowWriter
from flowmbpo.tracking.places import store_names
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
    """Delivers the journal of the run in the folder `files`."""

    def __init__(self, files: RunFiles, writer: MlflowWriter, mlflow_run_id: str = "") -> None:
        self.files = files
        self.writer = writer
        cursor = Cursor.load(files.delivered, files.root.name, *store_names(files, writer.store))
        self.cursor = replace(cursor, mlflow_run_id=mlflow_run_id) if mlflow_run_id else cursor
        self.ended = False  # whether MLflow has the run's final status

    @property
    def pending_bytes(self) -> int:
        """How much of the journal MLflow does not have yet."""
        try:
            return os.path.getsize(self.files.journal) - self.cursor.offset
        except OSError:
            return 0

    @property
    def refused(self) -> int:
        """How many entries MLflow did not take; they are kept and offered again."""
        return refused.count(self.files.refused)

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
        kept = self._write(self._run(), entries)
        refused.add(self.files.refused, kept)
        self._move(replace(self.cursor, offset=batch[-1][1]))
        self._delivered(entries, [entry for entry, _ in kept])
        return True

    def deliver_all(self) -> None:
        """Everything there is. Raises Unreachable when the store goes away meanwhile."""
        while self.deliver_some():
            pass

    def deliver_refused(self) -> int:
        """Offer once more what was refused; returns how much of it MLflow takes now. Raises Unreachable."""
        entries = refused.read(self.files.refused)
        if not entries:
            return 0
        if any(isinstance(entry, journal.Status) for entry in entries):  # only the newest is still true
            newest = journal.last_status_entry(self.files.journal)
            entries = [entry for entry in entries if not isinstance(entry, journal.Status)]
            entries += [newest] if newest else []
        kept = self._write(self._run(), entries)
        refused.replace(self.files.refused, kept)
        self._delivered(entries, [entry for entry, _ in kept])
        return len(entries) - len(kept)

    def _delivered(self, entries: list[Entry], but: list[Entry]) -> None:
        for entry in entries:
            if entry in but:
                continue
            if isinstance(entry, journal.Artifact | journal.Checkpoint):
                shutil.rmtree(self.files.tracking / entry.outbox, ignore_errors=True)
            elif isinstance(entry, journal.Status):
                self.ended = entry.status != "RUNNING"

    def _run(self) -> str:
        if not self.cursor.mlflow_run_id:
            create = journal.first_entry(self.files.journal)
            if create is None:
                raise WorkFailed(f"{self.files.journal} does not say how its run began")
            self._move(replace(self.cursor, mlflow_run_id=self.writer.find_or_create(create, look=True)))
        return self.cursor.mlflow_run_id

    def _write(self, run: str, entries: list[Entry]) -> list[tuple[Entry, str]]:
        """Hand `entries` over; returns those that MLflow refused, with its reasons."""
        try:
            self.writer.write(run, entries, self.files.tracking)
        except Refused as error:
            if len(entries) == 1:
                log.warning("an entry of the journal (%s) is not in MLflow: %s", entries[0].op, error)
                return [(entries[0], str(error))]
            # find the one that is refused; repeating the others does no harm
            return [kept for entry in entries for kept in self._write(run, [entry])]
        return []

    def _move(self, cursor: Cursor) -> None:
        self.cursor = cursor
        with contextlib.suppress(OSError):  # a full disk: the cursor in memory is enough, repetition is harmless
            cursor.save(self.files.delivered)


class _Begun(NamedTuple):
    """A run whose journal grows; `step` tells its current environment steps."""

    journal: Journal
    files: RunFiles
    step: Callable[[], int]


class DeliveryThread:
    """Delivers while a run goes on, gives signs of life and samples the system.

    One thread for the life of a run. `create`, `run` and `finish` are called in this order; `create` is skipped when
    the run exists already.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writer = MlflowWriter(store)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._create: journal.Create | None = None
        self._created: Future[str] = Future()  # MLflow's id, where the run is new
        self._begun: Future[_Begun | None] = Future()  # None: it will never begin here
        self._last: journal.Status | None = None
        self._delivery: Delivery | None = None
        self.cpu_seconds = 0.0  # used by this thread since the run began
        self._thread = threading.Thread(target=self._main, name="tracking", daemon=True)

    @property
    def undelivered(self) -> bool:
        """Whether MLflow still lacks something; `flowmbpo sync` delivers it."""
        return self._thread.is_alive() or self._delivery is None or self._delivery.pending_bytes > 0 or self.refused > 0

    @property
    def refused(self) -> int:
        """How many entries MLflow has refused so far; `flowmbpo sync` offers them again."""
        return self._delivery.refused if self._delivery else 0

    def create(self, create: journal.Create) -> str:
        """Create the run and return its id: MLflow's, or our key when the store does not answer in time.

        Raises UserError or WorkFailed when the store can never be used.
        """
        self._create = create
        self._thread.start()
        patience = FILE_START_SECONDS if self._store.sqlite else START_SECONDS
        reason: object = f"{self._store} did not answer within {patience:.0f} s"
        try:
            return self._created.result(patience)
        except TimeoutError:
            pass
        except Unreachable as error:
            reason = error
        except (UserError, WorkFailed):
            self._begun.set_result(None)
            raise
        log.warning("%s. The run starts all the same: its entries are kept and delivered later.", reason)
        return create.key

    def run(self, journal: Journal, files: RunFiles, step: Callable[[], int]) -> None:
        """Start to deliver `journal` of the run in `files`; `step` tells the current environment steps."""
        self._begun.set_result(_Begun(journal, files, step))
        if self._thread.ident is None:
            self._thread.start()

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
        if not self._begun.done():
            self._begun.set_result(None)
        self._thread.join(FINISH_SECONDS)

    def _main(self) -> None:
        mlflow_run_id = ""
        if self._create is not None:
            try:
                mlflow_run_id = self._writer.find_or_create(self._create, look=False)
                self._created.set_result(mlflow_run_id)
            except (UserError, WorkFailed) as error:
                self._created.set_exception(error)
            except Exception as error:
                reason = f"{self._store} cannot be used: {type(error).__name__}: {error}"
                self._created.set_exception(Unreachable(reason))
        if (begun := self._begun.result()) is None:
            self._close(mlflow_run_id)
            return
        self._delivery = Delivery(begun.files, self._writer, mlflow_run_id)
        try:
            failed = self._created.exception() if self._create else None
            self._loop(self._delivery, begun, reported=isinstance(failed, Unreachable))
        except Exception:  # training goes on, and the journal keeps everything
            log.exception("delivery to %s has ended; `flowmbpo sync` delivers what is missing", self._store)

    def _loop(self, delivery: Delivery, begun: _Begun, reported: bool) -> None:
        """`reported`: the store is away, and that was said already."""
        sampler = SystemSampler(begun.files.root)
        failures, next_sample, next_beat = 0, time.monotonic() + 1.0, time.monotonic() + HEARTBEAT_SECONDS
        before = time.thread_time()  # importing MLflow and making the run are not counted
        while True:
            self.cpu_seconds = time.thread_time() - before
            stopping = self._stopping.is_set()
            try:
                # Before the delivery, which may bring the final status: nothing is said of the run after that.
                known = bool(delivery.cursor.mlflow_run_id)
                if known and not (stopping or delivery.ended) and (failures or time.monotonic() >= next_beat):
                    next_beat = time.monotonic() + HEARTBEAT_SECONDS
                    with contextlib.suppress(Refused):  # a deleted run takes nothing, and its entries are kept
                        self._writer.alive(delivery.cursor.mlflow_run_id, {HEARTBEAT_TAG: str(int(time.time()))})
                delivery.deliver_all()
                if stopping:
                    delivery.deliver_refused()
                if failures:
                    log.warning("%s answers again; everything is delivered", self._store)
                failures = 0
            except Exception as error:  # whatever MLflow and its libraries come up with
                if not failures and not reported:
                    log.warning("%s. Entries are kept in %s and delivered later.", error, delivery.files.tracking)
                reported = False
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
                with contextlib.suppress(Exception):  # the training thread reports a full disk; or the run is over
                    begun.journal.append(journal.Metrics(int(time.time() * 1000), begun.step(), sampler.sample()))

    def _close(self, mlflow_run_id: str) -> None:
        if self._last is not None and mlflow_run_id:
            try:
                self._writer.write(mlflow_run_id, [self._last], None)
            except WorkFailed as error:
                log.warning("%s", error)
