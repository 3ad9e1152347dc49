"""What runs inside a job: `flowmbpo run` as a child process, continued where it was whenever the job starts again.

The state that counts is on disk (the run's folder and `task-<i>.json`), never in the job: a requeue after the time
limit, a preemption and a dead node are then the same case. Not here: submitting (`slurm`, `local`).
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from flowmbpo.cluster import slurm_queue
from flowmbpo.cluster.submission import Submission, TaskState
from flowmbpo.runs.files import locked
from flowmbpo.runs.journal import first_entry
from flowmbpo.runs.layout import RUNS, RunFiles

TASK_TAG = "flowmbpo.job_task"  # <submission folder>/<task>: unique, also when a cluster counts from 1 again
CHECKPOINTED = 128 + signal.SIGUSR1  # exit code of a run that stopped because it was told to make room
TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class TrainingTask:
    """The callable of one task, pickled by submitit. `folder` is the submission's."""

    folder: Path
    index: int

    def __call__(self) -> None:
        """Train until the run ends. Leaves by SystemExit with the run's exit code unless that is 0."""
        submission = Submission.load(self.folder)
        with locked(submission.files.task_lock(self.index)):  # tells others that the task lives
            code = Attempt(submission, self.index).run()
        if code:
            sys.exit(code)


class Attempt:
    """One start of a task."""

    def __init__(self, submission: Submission, index: int) -> None:
        self.submission = submission
        self.index = index
        self.job = _job_id(submission, index)
        self.runs = submission.directory / RUNS

    def run(self) -> int:
        """Start or continue the run, wait for it, record how it ended; returns the exit code of the task."""
        before = self.submission.task(self.index)
        if self.submission.is_cancelled(self.index):
            return TERMINATED
        now = time.time()
        waiting_since = before.ended_at if before.requeued and before.ended_at else self.submission.submitted_at
        run_id = self.run_id()
        epoch = resumable_epoch(self.runs / run_id) if run_id else None
        state = TaskState(starts=before.starts + 1, started_at=now, node=socket.gethostname(), pid=os.getpid())
        self._save(state)
        command = self.command(run_id if epoch is not None else self.submission.resume)
        _say(f"flowmbpo job {self.job} on {state.node}, start {state.starts}: {' '.join(command[4:])}")

        signals = _Signals()
        child = subprocess.Popen(command, cwd=self.submission.directory, env=self._environment(now - waiting_since))
        with signals.forwarded_to(child.pid):
            code = shell_code(child.wait())
        state = replace(
            state,
            ended_at=time.time(),
            exit_code=code,
            peak_memory_mb=round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
            out_of_memory=code == 128 + signal.SIGKILL and _killed_for_memory(),
        )
        self._save(state)
        told = signals.asked_for_room or code == CHECKPOINTED
        if self.submission.cluster == "slurm" and (told or self._preempted(code)):
            return self._requeue(state, run_id, epoch)
        if code == CHECKPOINTED:  # around a local queue there may be an allocation, but that job is the user's own
            self._save(replace(state, message="stopped by SIGUSR1 with everything saved"))
        return code

    def command(self, run_id: str) -> list[str]:
        """`flowmbpo run` of this installation, with the registry as it was at submission."""
        command = [sys.executable, "-P", "-m", "flowmbpo", "run"]  # -P: files lying around are no modules
        if run_id:
            command += ["--resume", run_id]
        else:
            command += [self.submission.name, "--seed", str(self.submission.seeds[self.index])]
            for override in self.submission.overrides:
                command += ["--set", override]
        if self.submission.cluster == "slurm" and self.submission.request.get("gpus"):
            command += ["--device", "cuda"]  # a node with a broken GPU shall fail, not train on the CPU for 12 hours
        return [*command, "--registry", str(self.submission.files.registry)]

    def run_id(self) -> str:
        """The run that this task trains; empty before its first start."""
        return self.submission.resume or runs_of_tasks(self.runs).get(task_tag(self.submission.folder, self.index), "")

    def _requeue(self, state: TaskState, run_id: str, epoch: int | None) -> int:
        code = state.exit_code or 0
        if code not in (CHECKPOINTED, TERMINATED, 128 + signal.SIGKILL):
            return code  # it had just finished, or failed on its own
        run_id = run_id or self.run_id()
        reached = resumable_epoch(self.runs / run_id) if run_id else None
        if reached is None or reached <= (epoch or 0):
            message = "no epoch was finished between start and time limit: ask for a longer --time"
            self._save(replace(state, exit_code=1, message=message))
            _say(f"failed: {message}")
            return 1
        self._save(replace(state, exit_code=None, requeued=True))
        _say(f"flowmbpo job {self.job}: checkpoint at epoch {reached}, back to the queue")
        refused = slurm_queue.requeue(os.environ.get("SLURM_JOB_ID", ""))
        if refused:
            message = f"Slurm would not requeue the job ({refused}); continue with: flowmbpo submit --resume {run_id}"
            self._save(replace(state, exit_code=1, message=message))
            _say(f"failed: {message}")
            return 1
        return code

    def _preempted(self, code: int) -> bool:
        """SIGTERM while Slurm still calls the job running: the node is wanted for others, nobody cancelled the job."""
        if code != TERMINATED or self.submission.is_cancelled(self.index):
            return False
        return slurm_queue.state_of(os.environ.get("SLURM_JOB_ID", "")) in ("RUNNING", "PREEMPTED")

    def _environment(self, queue_seconds: float) -> dict[str, str]:
        return {
            **os.environ,
            "MLFLOW_TRACKING_URI": self.submission.tracking_uri,
            "PYTHONUNBUFFERED": "1",
            "FLOWMBPO_JOB": self.job,
            "FLOWMBPO_JOB_TASK": task_tag(self.submission.folder, self.index),
            "FLOWMBPO_NODE": socket.gethostname(),
            "FLOWMBPO_QUEUE_SECONDS": f"{max(0.0, queue_seconds):.0f}",
        }

    def _save(self, state: TaskState) -> None:
        state.save(self.submission.files.task(self.index))


def _say(text: str) -> None:
    """A line of the log; a full disk costs the line and not the task."""
    with suppress(OSError):
        print(text, flush=True)


class _Signals:
    """Passes SIGUSR1 and SIGTERM on to the run, and stays alive itself to write down how the run ended.

    Slurm may send them to both processes: for the run a repetition means nothing.
    """

    def __init__(self) -> None:
        self.asked_for_room = False
        self._child = 0
        self._early: int | None = None
        signal.signal(signal.SIGUSR1, self._receive)
        signal.signal(signal.SIGTERM, self._receive)

    @contextmanager
    def forwarded_to(self, pid: int) -> Iterator[None]:
        self._child = pid
        if self._early is not None:
            os.kill(pid, self._early)
        yield
        self._child = 0

    def _receive(self, signum: int, _frame: object) -> None:
        self.asked_for_room |= signum == signal.SIGUSR1
        if not self._child:
            self._early = signum
            return
        with suppress(ProcessLookupError):
            os.kill(self._child, signum)


def task_tag(folder: Path, index: int) -> str:
    return f"{folder.name}/{index}"


def runs_of_tasks(runs: Path) -> dict[str, str]:
    """Task tag to id of its newest run, from the journals below `runs`: no server is asked."""
    found: list[tuple[int, str, str]] = []
    for run_folder in runs.glob("*"):
        tags, created = birth(run_folder)
        if TASK_TAG in tags:
            found.append((created, tags[TASK_TAG], run_folder.name))
    return {tag: run_id for _, tag, run_id in sorted(found)}


def birth(run_folder: Path) -> tuple[dict[str, str], int]:
    """Tags with which a run began, and when (milliseconds since 1970); ({}, 0) for a folder that is no run."""
    create = first_entry(RunFiles(run_folder).journal)
    return (create.tags, create.time) if create else ({}, 0)


def resumable_epoch(run_folder: Path) -> int | None:
    """Newest epoch from which the run can be continued; None when there is none."""
    return max(RunFiles(run_folder).resume_epochs(), default=None)


def _job_id(submission: Submission, index: int) -> str:
    # The job may start before `submit` has written its id down.
    return f"{submission.job_id or os.environ.get('SLURM_ARRAY_JOB_ID', '')}_{index}"


def shell_code(code: int) -> int:
    """The exit code as a shell shows it: 128 + the number of the signal that ended the process."""
    return 128 - code if code < 0 else code


def _killed_for_memory() -> bool:
    """Whether the kernel killed a process of this job's control group because its memory was used up."""
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    for line in groups:
        _, controllers, path = line.split(":", 2)
        root = Path("/sys/fs/cgroup") / ("memory" if controllers else "")
        if controllers in ("", "memory"):
            for name in ("memory.events", "memory.oom_control"):
                try:
                    text = (root / path.lstrip("/") / name).read_text(encoding="utf-8")
                except OSError:
                    continue
                if any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in text.splitlines()):
                    return True
    return False
