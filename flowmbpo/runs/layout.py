"""Every file name of a run and of a job; nothing here reads or writes their contents.

runs/<run_id>/
  lock                        held by the process that trains the run
  tracking/journal.jsonl      everything that shall be in MLflow
  tracking/delivered.json     how much of it is there
  tracking/refused.jsonl      what MLflow would not take
  tracking/outbox/            files that wait for their upload
  checkpoints/epoch-000500/   deployable: networks, normalisers and spec, one folder per kept epoch
  resume/epoch-000500/        resumable: all that bit-exact continuation needs; the newest only
  artifacts/                  pictures and pages made at the end of the run
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flowmbpo.errors import UserError

RUNS = Path("runs")
JOBS = RUNS / "jobs"
_SHORTEST_ID = 4  # characters that may stand for a whole run id
_EPOCH = re.compile(r"epoch-(\d{6,})")


@dataclass(frozen=True)
class RunFiles:
    """The folder of one run: `runs/<run_id>/`."""

    root: Path

    @classmethod
    def of(cls, run_id: str, base: Path = RUNS) -> RunFiles:
        """The folder of `run_id`. An id is a plain name: it can never point outside `base`."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", run_id) or ".." in run_id:
            raise UserError(f"{run_id!r} is not a run id; `flowmbpo runs` lists them")
        return cls(base / run_id)

    @classmethod
    def find(cls, text: str, base: Path = RUNS) -> RunFiles:
        """The folder of the run with the id `text`, or with the only id that begins so; it need not exist."""
        files = cls.of(text, base)
        if files.root.is_dir():
            return files
        return cls(base / (find_id(text, [found.root.name for found in run_folders(base)]) or text))

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def tracking(self) -> Path:
        return self.root / "tracking"

    @property
    def journal(self) -> Path:
        return self.tracking / "journal.jsonl"

    @property
    def delivered(self) -> Path:
        return self.tracking / "delivered.json"

    @property
    def refused(self) -> Path:
        return self.tracking / "refused.jsonl"

    @property
    def outbox(self) -> Path:
        return self.tracking / "outbox"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def resume(self) -> Path:
        return self.root / "resume"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def checkpoint(self, epoch: int) -> Path:
        return self.checkpoints / epoch_folder(epoch)

    def resumable(self, epoch: int) -> Path:
        return self.resume / epoch_folder(epoch)

    def checkpoint_epochs(self) -> list[int]:
        """Epochs of the complete checkpoint folders, ascending."""
        return _epochs(self.checkpoints)

    def resume_epochs(self) -> list[int]:
        """Epochs of the complete resumable states, ascending."""
        return _epochs(self.resume)


def run_folders(runs: Path = RUNS) -> list[RunFiles]:
    """The runs below the folder `runs`: those with a journal."""
    return [RunFiles(folder) for folder in sorted(runs.glob("*")) if RunFiles(folder).journal.is_file()]


def find_id(text: str, run_ids: Iterable[str]) -> str | None:
    """The run id that `text` is or that alone begins so. Raises UserError where several do."""
    ids = set(run_ids)
    begun = [text] if text in ids else sorted(found for found in ids if found.startswith(text))
    if len(text) < _SHORTEST_ID or not begun:
        return None
    if len(begun) > 1:
        raise UserError(f"{text!r} is the beginning of {len(begun)} run ids: {', '.join(begun[:5])}; give more of it")
    return begun[0]


def epoch_folder(epoch: int) -> str:
    """Folder name of an epoch; sorts like the number."""
    return f"epoch-{epoch:06d}"


def _epochs(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(m.group(1)) for entry in folder.iterdir() if (m := _EPOCH.fullmatch(entry.name)))


@dataclass(frozen=True)
class JobFiles:
    """The folder of one submission; task `index` trains its seed of that index."""

    root: Path

    @property
    def submission(self) -> Path:
        return self.root / "submission.json"

    @property
    def registry(self) -> Path:
        return self.root / "experiments.toml"

    @property
    def environment(self) -> Path:
        """The variables of the submitting shell, until the last task of a local queue has been started with them."""
        return self.root / "environment.json"

    def log(self, task_id: str) -> Path:
        """The name is submitit's."""
        return self.root / f"{task_id}_0_log.out"

    def task(self, index: int) -> Path:
        return self.root / f"task-{index}.json"

    def task_lock(self, index: int) -> Path:
        return self.root / f"task-{index}.lock"

    def started(self, index: int) -> Path:
        return self.root / f"task-{index}.started"

    def cancelled(self, index: int) -> Path:
        return self.root / f"task-{index}.cancelled"


@dataclass(frozen=True)
class QueueFiles:
    """The files in the folder of all jobs: this machine's own queue, and the code that jobs run."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the process that serves the queue."""
        return self.root / "local.lock"

    @property
    def number(self) -> Path:
        """The number of the latest job."""
        return self.root / "local.number"

    @property
    def log(self) -> Path:
        return self.root / "local.log"

    def race(self, name: str, element: int) -> Path:
        """Which of the submissions in a race trains this element."""
        return self.root / f"race-{name}-{element}"

    @property
    def code(self) -> Path:
        """Copies of the package, by content."""
        return self.root / "code"

    @property
    def code_lock(self) -> Path:
        """Held while copies are made or removed."""
        return self.root / "code.lock"
