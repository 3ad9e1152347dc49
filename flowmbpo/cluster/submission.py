"""One submission of one experiment: its folder `runs/jobs/<stamp>-<name>/`, and every file name in it.

    submission.json     what was asked for and which job it became; written by `flowmbpo submit`
    experiments.toml    the registry as it was then: editing it afterwards does not change a job that still waits
    task-0.json         what happened to the first seed; written by its job only
    <job>_0_0_log.out   all that the task printed, over every restart

Not here: starting anything (`slurm`, `local`) and the run's own files (training).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from flowmbpo.errors import UserError

JOBS = Path("runs") / "jobs"
ClusterName = Literal["slurm", "local"]


@dataclass(frozen=True)
class Submission:
    """What was submitted. `job_id` is empty until the cluster has taken it; task i trains `seeds[i]`."""

    folder: Path
    cluster: ClusterName
    name: str
    seeds: tuple[int, ...]
    directory: Path  # where the jobs run: runs/ and a default mlflow.db are there
    tracking_uri: str
    overrides: tuple[str, ...] = ()
    resume: str = ""  # a run to continue instead of starting one
    request: dict[str, Any] = field(default_factory=dict)
    submitted_at: float = 0.0
    job_id: str = ""

    @property
    def registry(self) -> Path:
        return self.folder / "experiments.toml"

    def task_ids(self) -> list[str]:
        """`JOB_0`, `JOB_1`, ...: one id per seed, as Slurm writes them."""
        return [f"{self.job_id}_{index}" for index in range(len(self.seeds))]

    def log(self, index: int) -> Path:
        """Everything the task printed (submitit's name for it)."""
        return self.folder / f"{self.job_id}_{index}_0_log.out"

    def task_file(self, index: int) -> Path:
        return self.folder / f"task-{index}.json"

    def task_lock(self, index: int) -> Path:
        """Held by the task's process while it lives."""
        return self.folder / f"task-{index}.lock"

    def start_mark(self, index: int) -> Path:
        """Made by the local queue when it starts the task, so that it is started once."""
        return self.folder / f"task-{index}.started"

    def cancel_mark(self, index: int) -> Path:
        """Made by `flowmbpo cancel`: the task must not start (again)."""
        return self.folder / f"task-{index}.cancelled"

    def is_cancelled(self, index: int) -> bool:
        return self.cancel_mark(index).exists()

    def task(self, index: int) -> TaskRecord:
        return TaskRecord.load(self.task_file(index))

    def save(self) -> None:
        document = {**asdict(self), "folder": str(self.folder), "directory": str(self.directory)}
        # The tracking URI may hold a password.
        write_json(self.folder / "submission.json", document, mode=0o600)

    def submitted(self, job_id: str) -> Submission:
        done = replace(self, job_id=job_id)
        done.save()
        return done

    @classmethod
    def load(cls, folder: Path) -> Submission:
        """Raises OSError, ValueError or TypeError for a folder that is no complete submission."""
        found = json.loads((folder / "submission.json").read_text())
        found |= {"folder": folder.absolute(), "directory": Path(found["directory"])}
        return cls(**{**found, "seeds": tuple(found["seeds"]), "overrides": tuple(found["overrides"])})


@dataclass(frozen=True)
class TaskRecord:
    """What a task tells about itself. Times are seconds since 1970; `exit_code` is None while it runs or if it was
    killed without a chance to write it."""

    starts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    node: str = ""
    pid: int = 0
    exit_code: int | None = None
    requeued: bool = False  # ended to be started again
    out_of_memory: bool = False
    peak_memory_mb: float | None = None
    message: str = ""

    @classmethod
    def load(cls, path: Path) -> TaskRecord:
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))


def write_json(path: Path, document: Any, mode: int = 0o644) -> None:
    """Replace the file as a whole: a reader sees the old or the new text."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def new_folder(name: str, jobs: Path = JOBS) -> Path:
    """Make and return a fresh submission folder; folders sort by time."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = (jobs / f"{stamp}-{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}-{secrets.token_hex(2)}").absolute()
    folder.mkdir(parents=True)
    return folder


def submissions(jobs: Path = JOBS) -> list[Submission]:
    """Every submission that a cluster has taken, oldest first. Damaged folders are passed over."""
    found = []
    for folder in jobs.iterdir() if jobs.is_dir() else ():
        with suppress(OSError, ValueError, TypeError, KeyError):
            found.append(Submission.load(folder))
    return sorted((one for one in found if one.job_id), key=lambda one: one.submitted_at)


def find_tasks(selector: str, jobs: Path = JOBS) -> list[tuple[Submission, int]]:
    """The tasks meant by a job id (all of its tasks) or a task id (`JOB_INDEX`). Raises UserError."""
    known = submissions(jobs)
    for submission in reversed(known):
        ids = submission.task_ids()
        if selector == submission.job_id:
            return [(submission, index) for index in range(len(ids))]
        if selector in ids:
            return [(submission, ids.index(selector))]
    if not known:
        raise UserError(f"no job {selector!r}: nothing was submitted from this directory (no {jobs})")
    recent = ", ".join(submission.job_id for submission in known[-5:])
    raise UserError(f"no job {selector!r} was submitted from this directory; the latest are {recent} (`flowmbpo jobs`)")
