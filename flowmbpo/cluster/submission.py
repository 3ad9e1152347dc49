"""One submission of one experiment, and what its tasks write down about themselves.

Not here: the names of its files (`runs.layout`) and starting anything (`slurm`, `local`).
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from flowmbpo.cluster.request import JobRequest
from flowmbpo.errors import UserError
from flowmbpo.runs.files import is_locked, read_json, write_json
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

    @property
    def tasks(self) -> list[Task]:
        """One per seed."""
        return [Task(self, index) for index in range(len(self.seeds))]

    @property
    def elements(self) -> int:
        return -(-len(self.seeds) // self.pack)

    def element_id(self, element: int) -> str:
        """Slurm's id of one element of the array."""
        return f"{self.job_id}_{element}"

    def members(self, element: int) -> list[Task]:
        """The tasks in one element of the array."""
        return self.tasks[element * self.pack : (element + 1) * self.pack]

    def continued_by(self, run_id: str, options: str = "") -> str:
        """What goes on with a run of this submission."""
        if self.sweep:
            return "the same `flowmbpo sweep` again"
        return f"flowmbpo submit --resume {run_id}{options}"

    @property
    def code_folder(self) -> Path | None:
        return QueueFiles(self.folder.parent).code / self.code if self.code else None

    @property
    def device(self) -> str:
        """A node with a broken GPU shall fail, not train on the CPU for 12 hours."""
        return "cuda" if self.cluster == "slurm" and self.request.gpus else "auto"

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
        found |= {"folder": here, "directory": directory, "request": JobRequest.of_document(found["request"])}
        return cls(**found | {key: tuple(found.get(key, ())) for key in ("seeds", "overrides", "names", "sweep")})


class Task:
    """Task `index` of a submission: it trains one seed."""

    def __init__(self, submission: Submission, index: int) -> None:
        self.submission, self.index = submission, index
        self.files = submission.files.task(index)
        self.seed = submission.seeds[index]
        self.experiment = submission.names[index] if submission.names else submission.name
        self.title = submission.name if submission.sweep else self.experiment  # the experiment of its runs
        self.run_name = f"{self.title}/seed-{self.seed}"
        # Its runs are tagged with it: unique, also when a cluster counts from 1 again.
        self.tag = f"{submission.folder.name}/{index}"
        # As Slurm writes them: `JOB_0` for both, or a packed task `JOB_0.0` in the element `JOB_0`.
        self.element_id = submission.element_id(index // submission.pack)
        self.id = self.element_id + (f".{index % submission.pack}" if submission.pack > 1 else "")

    @property
    def log(self) -> Path:
        """Everything it printed; of a packed one that has not begun, what its job printed."""
        own = self.submission.files.log(self.id)
        return own if own.exists() else self.submission.files.log(self.element_id)

    @property
    def is_cancelled(self) -> bool:
        return self.files.cancelled.exists()

    @property
    def is_alive(self) -> bool:
        """Whether its process holds its lock (told for this machine only)."""
        return bool(is_locked(self.files.lock))

    @property
    def state(self) -> TaskState:
        try:
            return TaskState(**read_json(self.files.state))
        except (ValueError, TypeError):
            return TaskState()

    def save(self, state: TaskState) -> None:
        write_json(self.files.state, asdict(state))

    def seconds(self, state: TaskState) -> float:
        """How long all starts lasted; one that was killed, or goes on, has said something just before."""
        if state.started_at is None:
            return 0.0
        ended = state.ended_at or (self.log.stat().st_mtime if self.log.exists() else state.started_at)
        return state.used_seconds + max(0.0, ended - state.started_at)


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
    """Also those that no cluster has taken yet, in any order. Damaged ones are passed over."""
    return read_submissions(jobs)[0]


def read_submissions(jobs: Path) -> tuple[list[Submission], dict[Path, str]]:
    """All submissions, and the files of those that cannot be read with what is wrong there."""
    found, damaged = [], {}
    for file in jobs.glob(f"*/{JobFiles(jobs).submission.name}"):
        try:
            found.append(Submission.load(file.parent))
        except KeyError as error:
            damaged[file] = f"{error} is missing"
        except (ValueError, TypeError) as error:
            damaged[file] = str(error)
    return found, damaged


def find_tasks(selector: str, jobs: Path = JOBS) -> list[Task]:
    """The tasks meant by a job id (all of its tasks) or a task id (`JOB_INDEX`). Raises UserError."""
    known = submissions(jobs)
    for submission in reversed(known):
        if meant := [one for one in submission.tasks if selector in (one.id, one.element_id, submission.job_id)]:
            return meant
    if not known:
        raise UserError(f"no job {selector!r}: nothing was submitted from this directory (no {jobs})")
    recent = ", ".join(submission.job_id for submission in known[-5:])
    raise UserError(f"no job {selector!r} was submitted from this directory; the latest are {recent} (`flowmbpo jobs`)")
