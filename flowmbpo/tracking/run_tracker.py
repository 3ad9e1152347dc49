"""The tracker of a real run: journal first, MLflow from a background thread; training never waits for a server.

The run's id is MLflow's own whenever the store answers within `START_SECONDS`. Otherwise it is a fresh id of ours, kept
in MLflow as the tag `flowmbpo.run_id` once the run exists there; folders and commands use this id in both cases.
Not here: the journal's format (`journal`), delivery (`delivery`), MLflow (`mlflow_writer`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from flowmbpo.data_types import JSON
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs import journal
from flowmbpo.runs.journal import Entry, Journal, RunStatus, read_entries
from flowmbpo.runs.layout import RunFiles
from flowmbpo.runs.lock import RunLock, process_tags
from flowmbpo.tracking import outbox, provenance
from flowmbpo.tracking.delivery import DeliveryThread
from flowmbpo.tracking.metrics import check_names
from flowmbpo.tracking.store import Store
from flowmbpo.tracking.tracker import status_after

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunDescription:
    """What is known of a run before it starts. `spec` is the resolved experiment as JSON-able data."""

    name: str
    seed: int
    spec: Mapping[str, JSON]
    spec_hash: str
    device: str

    @property
    def run_name(self) -> str:
        return f"{self.name}/seed-{self.seed}"

    def tags(self) -> dict[str, str]:
        return {
            "flowmbpo.name": self.name,
            "flowmbpo.seed": str(self.seed),
            "flowmbpo.spec_hash": self.spec_hash,
            journal.DEVICE_TAG: self.device,
        }


def start_run(store: Store, about: RunDescription, runs: Path) -> RunTracker:
    """Begin a new run; its files go to `runs/<run_id>/`.

    Raises:
        UserError: the store or the folder cannot be used (a server that is merely away is no error).
        WorkFailed: the store is damaged or of another version.
    """
    origin = provenance.collect()
    create = journal.Create(
        key=uuid.uuid4().hex,
        name=about.run_name,
        time=_now_ms(),
        tags={**about.tags(), **origin.tags(), **process_tags(runs)},
        store="" if "@" in store.uri else store.uri,
    )
    thread = DeliveryThread(store)
    create = replace(create, key=thread.create(create))
    try:
        tracker = RunTracker(store, RunFiles(runs / create.key), thread)
        tracker.begin(create, about, origin)
    except BaseException:
        thread.abandon()
        raise
    return tracker


def resume_run(store: Store, run_id: str, runs: Path, lock: RunLock | None = None) -> RunTracker:
    """Continue a run whose folder `runs/<run_id>/` is here. Points that it has logged already are not logged again.
    `lock` is the run's, where the caller holds it already; it is released when the run ends.

    Raises:
        UserError: the folder is not there, or another process trains the run.
    """
    files = RunFiles(runs / run_id)
    if not files.journal.is_file():
        raise UserError(
            f"{files.root} holds no run; `--resume` continues a run in the directory where it was started (or its copy)"
        )
    tracker = RunTracker(store, files, DeliveryThread(store), lock)
    tracker.continue_()
    return tracker


class RunTracker:
    """A `Tracker` for one run; made by `start_run` and `resume_run`.

    A context manager: leaving it normally ends the run as FINISHED, with an exception as FAILED, with KeyboardInterrupt
    or SystemExit (a signal) as KILLED, unless `finish` has said so before.
    """

    def __init__(self, store: Store, files: RunFiles, thread: DeliveryThread, lock: RunLock | None = None) -> None:
        self.store = store
        self.files = files
        self._lock = lock or RunLock(files.root)
        if lock is None:
            self._lock.acquire()
        try:
            self._journal = Journal(files.journal)
        except OSError as error:
            self._lock.release()
            raise UserError(
                f"{files.tracking} cannot be written ({error.strerror}); run in another directory"
            ) from None
        self.delivery = thread  # what MLflow has and lacks
        self._step = 0
        self._times: dict[int, int] = {}  # of the latest step, and of those before a resume
        self._status: RunStatus = "RUNNING"
        self._logged: dict[str, int] = {}  # last step of each metric before a resume
        self._checkpoints: set[str] = set()
        self.seconds = 0.0  # of the training thread, spent in here

    @property
    def run_id(self) -> str:
        return self.files.root.name

    def begin(self, create: journal.Create, about: RunDescription, origin: provenance.Provenance) -> None:
        self._append(create)
        self.tags({"flowmbpo.run_id": self.run_id, **process_tags(self.files.root)})
        self._append(journal.Params(flatten(about.spec)))
        self._text("spec.json", json.dumps(about.spec, indent=2))
        self._text("provenance.json", json.dumps(origin.document(), indent=2))
        if origin.code.diff:
            self._text("uncommitted.diff", origin.code.diff)
        self.delivery.run(self._journal, self.files, lambda: self._step)

    def continue_(self) -> None:
        for entry, _ in read_entries(self._journal.path):
            if isinstance(entry, journal.Metrics):
                self._times[entry.step] = entry.time
                for name in entry.metrics:
                    self._logged[name] = max(entry.step, self._logged.get(name, 0))
            elif isinstance(entry, journal.Checkpoint):
                self._checkpoints.add(entry.name)
        self._append(journal.Status("RUNNING", _now_ms()))
        self.tags({**provenance.collect().tags(), **process_tags(self.files.root)})
        self.delivery.run(self._journal, self.files, lambda: self._step)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics at `step` real environment steps: one line of the journal, about 30 µs. Raises ValueError for a
        name outside the catalogue."""
        begun = time.perf_counter()
        check_names(metrics)
        self._step = max(self._step, step)
        fresh = {name: float(value) for name, value in metrics.items() if step > self._logged.get(name, -1)}
        if fresh:
            self._append(journal.Metrics(self._time_of(step), step, fresh))
            self.delivery.wake()
        self.seconds += time.perf_counter() - begun

    def checkpoint(
        self,
        path: Path,
        *,
        epoch: int,
        step: int,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """The deployable checkpoint folder `path` becomes a logged model named after it; its files are uploaded.

        `metrics` are its `eval/*` results. `tags` say how they were obtained (see `EVALUATION_TAG`).
        """
        begun = time.perf_counter()
        metrics = {name: float(value) for name, value in (metrics or {}).items()}
        check_names(metrics)
        if path.name not in self._checkpoints:
            self._checkpoints.add(path.name)
            self._append(
                journal.Checkpoint(
                    key=self.run_id,
                    name=path.name,
                    path=str(path.absolute()),
                    epoch=epoch,
                    step=step,
                    time=self._time_of(step),
                    metrics=metrics,
                    tags=dict(tags or {}),
                    params={},
                    outbox=outbox.keep(self.files, path),
                )
            )
            self._sync()
            self.delivery.wake()
        self.seconds += time.perf_counter() - begun

    def artifact(self, path: Path, folder: str = "") -> None:
        """Upload a file under `folder` of the run's artifacts; it may be replaced or deleted afterwards."""
        begun = time.perf_counter()
        self._append(journal.Artifact(path.name, folder, outbox.keep(self.files, path)))
        self.delivery.wake()
        self.seconds += time.perf_counter() - begun

    def tags(self, tags: Mapping[str, str]) -> None:
        self._append(journal.Tags(dict(tags)))

    def finish(self, status: RunStatus) -> None:
        """End the run. Waits a while for delivery; what is not delivered then is left to `flowmbpo sync`."""
        if self._status != "RUNNING":
            return
        self._status = status
        last = journal.Status(status, _now_ms())
        try:
            self._append(last)
            self._sync()
            gone = not self._journal.path.exists()  # somebody deleted the folder: nothing can be delivered from it
            self.delivery.finish(last if gone else None)
        except WorkFailed:  # the disk is full: the status still reaches the store
            self.delivery.finish(last)
        finally:
            self._journal.close()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(status_after(kind))

    def _time_of(self, step: int) -> int:
        """Now, but one time for everything said at one step: a value that is logged twice there is one point, also
        when the run was killed after it was logged and before its checkpoint was."""
        if step not in self._times:
            self._times = {**{known: at for known, at in self._times.items() if known > step}, step: _now_ms()}
        return self._times[step]

    def _append(self, entry: Entry) -> None:
        try:
            self._journal.append(entry)
        except OSError as error:
            raise WorkFailed(f"{self._journal.path} cannot be written: {error.strerror}") from None

    def _sync(self) -> None:
        with contextlib.suppress(OSError):  # some file systems cannot; the entry itself is written
            self._journal.sync()

    def _text(self, name: str, text: str) -> None:
        self._append(journal.Artifact(name, "", outbox.keep_text(self.files, name, text)))


def _now_ms() -> int:
    return int(time.time() * 1000)


def flatten(spec: Mapping[str, JSON], prefix: str = "") -> dict[str, str]:
    """Dotted names and texts: {"train": {"horizon": 16}} becomes {"train.horizon": "16"}; text as it is, else JSON."""
    flat: dict[str, str] = {}
    for key, value in spec.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat
