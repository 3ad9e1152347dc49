"""One submission of one experiment, and what its tasks write down about themselves.

Not here: the names of its files (`runs.layout`) and starting anything (`slurm`, `local`).
"""

from __future__ import annotations

import re
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from flowmbpo.errors import UserError
from flowmbpo.runs.files import read_json, write_json
from flowmbpo.runs.layout import JOBS, JobFiles

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
    def files(self) -> JobFiles:
        return JobFiles(self.folder)

    def task_ids(self) -> list[str]:
        """`JOB_0`, `JOB_1`, ...: one id per seed, as Slurm writes them."""
        return [f"{self.job_id}_{index}" for index in range(len(self.seeds))]

    def log(self, index: int) -> Path:
        """Everything the task printed."""
        return self.files.log(self.job_id, index)

    def is_cancelled(self, index: int) -> bool:
        return self.files.cancelled(index).exists()

    def task(self, index: int) -> TaskState:
        return TaskState.load(self.files.task(index))

    def save(self) -> None:
        document = {**asdict(self), "folder": str(self.folder), "directory": str(self.directory)}
        # The tracking URI may hold a password.
        write_json(self.files.submission, document, mode=0o600)

    def submitted(self, job_id: str) -> Submission:
        done = replace(self, job_id=job_id)
        done.save()
        return done

    @classmethod
    def load(cls, folder: Path) -> Submission:
        """Raises ValueError, KeyError or TypeError for a folder that is no complete submission."""
        found = read_json(JobFiles(folder).submission)
        found |= {"folder": folder.absolute(), "directory": Path(found["directory"])}
        return cls(**{**found, "seeds": tuple(found["seeds"]), "overrides": tuple(found["overrides"])})


@dataclass(frozen=True)
class TaskState:
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
    def load(cls, path: Path) -> TaskState:
        try:
            return cls(**read_json(path))
        except (ValueError, TypeError):
            return cls()

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))


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
        with suppress(ValueError, TypeError, KeyError):
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
