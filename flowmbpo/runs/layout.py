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
from pathlib import Path

from flowmbpo.errors import UserError

RUNS = Path("runs")
JOBS = RUNS / "jobs"
_SHORTEST_ID = 4  # characters that may stand for a whole run id
_EPOCH = re.compile(r"epoch-(\d{6,})")


class RunFiles:
    """The folder of one run: `runs/<run_id>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "lock"
        self.tracking = root / "tracking"
        self.journal = self.tracking / "journal.jsonl"
        self.delivered = self.tracking / "delivered.json"
        self.refused = self.tracking / "refused.jsonl"
        self.outbox = self.tracking / "outbox"
        self.checkpoints = root / "checkpoints"
        self.resume = root / "resume"
        self.artifacts = root / "artifacts"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunFiles) and self.root == other.root

    def __hash__(self) -> int:
        return hash(self.root)

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


class JobFiles:
    """The folder of one submission; task `index` trains its seed of that index."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.submission = root / "submission.json"
        self.registry = root / "experiments.toml"
        self.space = root / "space.toml"  # what a search varies
        # The variables of the submitting shell, until the last task of a local queue has been started with them.
        self.environment = root / "environment.json"

    def log(self, task_id: str) -> Path:
        """The name is submitit's."""
        return self.root / f"{task_id}_0_log.out"

    def task(self, index: int) -> TaskFiles:
        return TaskFiles(self.root / f"task-{index}")


class TaskFiles:
    """What one task of a submission leaves there."""

    def __init__(self, place: Path) -> None:
        self.state = place.with_suffix(".json")
        self.lock = place.with_suffix(".lock")  # held while it lives
        self.started = place.with_suffix(".started")  # by this machine's queue
        self.cancelled = place.with_suffix(".cancelled")  # may say why


class QueueFiles:
    """The files in the folder of all jobs: this machine's own queue, and the code that jobs run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "local.lock"  # held by the process that serves the queue
        self.number = root / "local.number"  # of the latest job
        self.log = root / "local.log"
        self.code = root / "code"  # copies of the package, by content
        self.code_lock = root / "code.lock"  # held while copies are made or removed

    def race(self, name: str, element: int) -> Path:
        """Which of the submissions in a race trains this element."""
        return self.root / f"race-{name}-{element}"
