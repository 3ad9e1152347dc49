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
from typing import Literal

from flowmbpo.cluster.request import JobRequest
from flowmbpo.errors import UserError
from flowmbpo.runs.files import read_json, write_json
from flowmbpo.runs.layout import JOBS, JobFiles, QueueFiles
from flowmbpo.tracking.places import moved_store

ClusterName = Literal["slurm", "local"]


@dataclass(frozen=True)
class Submission:
    """What was submitted. `job_id` is empty until the cluster has taken it; task i trains `seeds[i]`, and `pack` tasks
    share one element of Slurm's array."""

    folder: Path
    cluster: ClusterName
    name: str
    seeds: tuple[int, ...]
    directory: Path  # where the jobs run: runs/ and a default mlflow.db are there
    tracking_uri: str
    overrides: tuple[str, ...] = ()
    resume: str = ""  # a run to continue instead of starting one
    accept_changes: bool = False  # of the code since a run began, when it is continued
    request: JobRequest = field(default_factory=JobRequest)
    submitted_at: float = 0.0
    job_id: str = ""
    code: str = ""  # the copy of the package that runs; empty for what is installed
    names: tuple[str, ...] = ()  # the tasks' experiments, where they differ
    pack: int = 1
    race: str = ""  # shared by those of which one shall train
    check: bool = False  # one epoch, kept to itself
    sweep: tuple[str, ...] = ()  # options of `flowmbpo sweep`: the tasks are its workers, and `seeds` their numbers
    space: str = ""  # TOML, what it searches

    @property
    def files(self) -> JobFiles:
        return JobFiles(self.folder)

    def task_ids(self) -> list[str]:
        """`JOB_0`, `JOB_1`, ...: one id per seed, as Slurm writes them; packed ones are `JOB_0.0`, `JOB_0.1`, ..."""
        indices = range(len(self.seeds))
        return [self.element_id(i) + (f".{i % self.pack}" if self.pack > 1 else "") for i in indices]

    def element_id(self, index: int) -> str:
        """Slurm's id of what task `index` runs in."""
        return f"{self.job_id}_{index // self.pack}"

    @property
    def elements(self) -> int:
        return -(-len(self.seeds) // self.pack)

    def members(self, element: int) -> range:
        """The tasks in one element of the array."""
        return range(element * self.pack, min((element + 1) * self.pack, len(self.seeds)))

    def experiment(self, index: int) -> str:
        return self.names[index] if self.names else self.name

    def title(self, index: int) -> str:
        """The experiment of a task's runs."""
        return self.name if self.sweep else self.experiment(index)

    def continued_by(self, run_id: str, options: str = "") -> str:
        """What goes on with a run of this submission."""
        if self.sweep:
            return "the same `flowmbpo sweep` again"
        return f"flowmbpo submit --resume {run_id}{options}"

    def log(self, index: int) -> Path:
        """Everything the task printed; of a packed one that has not begun, what its job printed."""
        own = self.files.log(self.task_ids()[index])
        return own if self.pack == 1 or own.exists() else self.files.log(self.element_id(index))

    @property
    def code_folder(self) -> Path | None:
        return QueueFiles(self.folder.parent).code / self.code if self.code else None

    @property
    def device(self) -> str:
        """A node with a broken GPU shall fail, not train on the CPU for 12 hours."""
        return "cuda" if self.cluster == "slurm" and self.request.gpus else "auto"

    def is_cancelled(self, index: int) -> bool:
        return self.files.cancelled(index).exists()

    def why_cancelled(self, index: int) -> str:
        file = self.files.cancelled(index)
        return (file.read_text(encoding="utf-8") if file.exists() else "") or "cancelled"

    def task(self, index: int) -> TaskState:
        return TaskState.load(self.files.task(index))

    def save(self) -> None:
        changed = {"folder": str(self.folder), "directory": str(self.directory), "request": self.request.document()}
        # The tracking URI may hold a password.
        write_json(self.files.submission, {**asdict(self), **changed}, mode=0o600)

    def submitted(self, job_id: str) -> Submission:
        done = replace(self, job_id=job_id)
        done.save()
        return done

    @classmethod
    def load(cls, folder: Path) -> Submission:
        """Raises ValueError, KeyError or TypeError for a folder that is no complete submission."""
        found = read_json(JobFiles(folder).submission)
        here, there, directory = folder.absolute(), Path(found["folder"]), Path(found["directory"])
        if here != there and there.is_relative_to(directory):  # moved or copied with the working directory
            now = here.parents[len(there.relative_to(directory).parts) - 1]
            found["tracking_uri"] = moved_store(found["tracking_uri"], directory, now).uri
            directory = now
        found |= {"folder": here, "directory": directory, "request": JobRequest.model_validate(found["request"])}
        return cls(**found | {key: tuple(found.get(key, ())) for key in ("seeds", "overrides", "names", "sweep")})


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
    used_seconds: float = 0.0  # of the starts before this one
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

    def seconds(self, log: Path) -> float:
        """How long all starts lasted; one that was killed, or goes on, has said something just before."""
        if self.started_at is None:
            return 0.0
        ended = self.ended_at or (log.stat().st_mtime if log.exists() else self.started_at)
        return self.used_seconds + max(0.0, ended - self.started_at)

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))


def new_folder(name: str, jobs: Path = JOBS) -> Path:
    """Make and return a fresh submission folder; folders sort by time."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = (jobs / f"{stamp}-{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}-{secrets.token_hex(2)}").absolute()
    folder.mkdir(parents=True)
    return folder


def submissions(jobs: Path = JOBS) -> list[Submission]:
    """Every submission that a cluster has taken, oldest first."""
    found = (one for one in all_submissions(jobs) if one.job_id)
    return sorted(found, key=lambda one: one.submitted_at)


def all_submissions(jobs: Path) -> list[Submission]:
    """Also those that no cluster has taken yet, in any order. Damaged folders are passed over."""
    found = []
    for folder in jobs.iterdir() if jobs.is_dir() else ():
        with suppress(ValueError, TypeError, KeyError):
            found.append(Submission.load(folder))
    return found


def find_tasks(selector: str, jobs: Path = JOBS) -> list[tuple[Submission, int]]:
    """The tasks meant by a job id (all of its tasks) or a task id (`JOB_INDEX`). Raises UserError."""
    known = submissions(jobs)
    for submission in reversed(known):
        ids = submission.task_ids()
        meant = [i for i, own in enumerate(ids) if selector in (own, submission.element_id(i), submission.job_id)]
        if meant:
            return [(submission, index) for index in meant]
    if not known:
        raise UserError(f"no job {selector!r}: nothing was submitted from this directory (no {jobs})")
    recent = ", ".join(submission.job_id for submission in known[-5:])
    raise UserError(f"no job {selector!r} was submitted from this directory; the latest are {recent} (`flowmbpo jobs`)")
