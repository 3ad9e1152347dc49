"""The background thread of a run: delivers its journal, gives signs of life and samples the system.

Not here: what is delivered (`run_tracker` writes the journal) and how (`delivery`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.journal import Journal, Record
from flowmbpo.runs.lock import HEARTBEAT_SECONDS, HEARTBEAT_TAG
from flowmbpo.tracking.delivery import Delivery
from flowmbpo.tracking.mlflow_client import Unreachable
from flowmbpo.tracking.mlflow_writer import MlflowWriter
from flowmbpo.tracking.store import Store
from flowmbpo.tracking.system_metrics import SystemSampler

log = logging.getLogger(__name__)

START_SECONDS = 20.0  # how long a run waits for its MLflow id before it starts without one,
FILE_START_SECONDS = 180.0  # and for a file: it can be opened for sure, but eight processes take turns to create it
FINISH_SECONDS = 30.0  # how long a finished run waits for its last records to arrive
DELIVERY_SECONDS = 3.0  # shortest time between two deliveries: points in between share one call
SAMPLE_SECONDS = 30.0
_BACKOFF = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


class Courier:
    """One thread for the life of a run. `create`, `run` and `finish` are called in this order; `create` is skipped when
    the run exists already."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writer = MlflowWriter(store)
        self._wake = threading.Event()
        self._created = threading.Event()
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._create: Record | None = None
        self._mlflow_run_id = ""
        self._error: UserError | WorkFailed | None = None
        self._last: Record | None = None
        self._journal: Journal | None = None
        self._delivery: Delivery | None = None
        self.cpu_seconds = 0.0  # used by this thread since the run began
        self._thread = threading.Thread(target=self._main, name="tracking", daemon=True)

    @property
    def undelivered(self) -> bool:
        return self._thread.is_alive() or self._delivery is None or self._delivery.pending_bytes > 0

    def create(self, create: Record) -> str:
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
        return str(create["key"])

    def run(self, journal: Journal, folder: Path, key: str, step: Callable[[], int]) -> None:
        """Start to deliver `journal` of the run folder; `step` tells the current environment steps."""
        self._journal, self._folder, self._key, self._step = journal, folder, key, step
        if not self._thread.is_alive():
            self._thread.start()
        self._ready.set()

    def wake(self) -> None:
        self._wake.set()

    def finish(self, last: Record | None = None) -> None:
        """Deliver the rest and stop. `last` is the final record where the journal could not take it."""
        self._last = last
        self._stopping.set()
        self._wake.set()
        self._thread.join(FINISH_SECONDS)
        if self.undelivered:
            log.warning("not everything is in %s yet; `flowmbpo sync` delivers the rest", self._store)

    def abandon(self) -> None:
        """The run exists in MLflow but cannot begin here: close it as FAILED."""
        self._last = {"op": "status", "status": "FAILED", "time": int(time.time() * 1000)}
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
            self._say_last_words(self._mlflow_run_id)
            return
        self._delivery = Delivery(self._folder / "tracking", self._key, self._writer, self._mlflow_run_id)
        self._loop(self._delivery)

    def _loop(self, delivery: Delivery) -> None:
        sampler = SystemSampler(self._folder)
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
                    log.warning("%s. Records are kept in %s and delivered later.", error, delivery.folder)
                self._error = None
                failures += 1
            if stopping:
                self._say_last_words(delivery.cursor.mlflow_run_id)
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
        record = {"op": "metrics", "time": int(time.time() * 1000), "step": self._step(), "metrics": sampler.sample()}
        assert self._journal is not None
        with contextlib.suppress(OSError, ValueError):  # the training thread reports a full disk; or the run is over
            self._journal.append(record)

    def _say_last_words(self, mlflow_run_id: str) -> None:
        if self._last is not None and mlflow_run_id:
            try:
                self._writer.write(mlflow_run_id, [self._last])
            except WorkFailed as error:
                log.warning("%s", error)
