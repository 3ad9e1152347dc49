"""One task of a job: `flowmbpo run` as a child process, continued where it was whenever the job starts again.

The state that counts is on disk (the run's folder and `task-<i>.json`), never in the job: a requeue after the time
limit, a preemption and a dead node are then the same case. Not here: the job around it (`job`).
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowmbpo.cluster import slurm_queue
from flowmbpo.cluster.preflight import say
from flowmbpo.cluster.submission import Task, TaskState
from flowmbpo.runs.checkpoint import fingerprint
from flowmbpo.runs.journal import first_entry
from flowmbpo.runs.layout import RUNS, RunFiles
from flowmbpo.tracking.store import sqlite_store

TASK_TAG = "flowmbpo.job_task"
CHECKPOINTED = 128 + signal.SIGUSR1  # exit code of a run that stopped because it was told to make room
TERMINATED = 128 + signal.SIGTERM


class Attempt:
    """One start of a task."""

    child: subprocess.Popen[bytes]
    _told = False

    def __init__(self, task: Task) -> None:
        self.task = task
        self.submission = submission = task.submission
        # The job may start before `submit` has written its id down.
        job_id = submission.job_id or os.environ.get("SLURM_ARRAY_JOB_ID", "")
        self.job = replace(submission, job_id=job_id).tasks[task.index].id
        self.runs = submission.directory / RUNS
        before = task.state
        waiting_since = before.ended_at if before.requeued and before.ended_at else submission.submitted_at
        self.queue_seconds = max(0.0, time.time() - waiting_since)
        self.state = TaskState(
            starts=before.starts + 1,
            started_at=time.time(),
            node=socket.gethostname(),
            pid=os.getpid(),
            used_seconds=task.seconds(before),
        )

    def begin(self) -> None:
        """Start or continue the run."""
        run_id = self.run_id()
        self.reached = newest_state(self.runs / run_id) if run_id else None
        command = self.command(run_id if self.reached else self.submission.resume)
        say(f"flowmbpo job {self.job} on {self.state.node}, start {self.state.starts}: {' '.join(command[4:])}")
        directory, environment = self.submission.directory, self.environment()
        if self.submission.pack == 1:
            self.child = subprocess.Popen(command, cwd=directory, env=environment)
            return
        with open(self.submission.files.log(self.job), "ab") as log:
            self.child = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def ended(self) -> bool:
        """Whether the run has ended; then its report says how. Passes on that the task was cancelled."""
        if self.submission.pack > 1 and self.task.is_cancelled and not self._told:
            self._told = True
            self.send(signal.SIGTERM)
        code = self.child.poll()
        if code is None:
            return False
        code = shell_code(code)
        self.save(
            ended_at=time.time(),
            exit_code=code,
            peak_memory_mb=round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
            out_of_memory=code == 128 + signal.SIGKILL and _killed_for_memory(),
        )
        return True

    def send(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            self.child.send_signal(signum)

    def fail(self, reason: str) -> None:
        """End for a reason of the job's, not of the run's."""
        self.save(ended_at=self.state.ended_at or time.time(), exit_code=1, requeued=False, message=reason)
        say(f"failed: {reason}")

    def goes_on(self, asked_for_room: bool) -> bool:
        """Whether the ended run is to be continued by this job; where it should but cannot, its report says so."""
        code = self.state.exit_code or 0
        told = asked_for_room or code == CHECKPOINTED
        if self.task.is_cancelled:
            return False
        if self.submission.cluster != "slurm":
            if code == CHECKPOINTED:  # around a local queue there may be an allocation, but that job is the user's own
                self.save(message="stopped by SIGUSR1 with everything saved")
            return False
        if not (told or self._preempted(code)) or code not in (CHECKPOINTED, TERMINATED, 128 + signal.SIGKILL):
            return False  # or it had just finished, or failed on its own
        run_id = self.run_id()
        reached = newest_state(self.runs / run_id) if run_id else None
        if not self.submission.sweep and (reached is None or reached in (self.reached, (0, ""))):
            self.fail("nothing was trained between start and time limit: ask for a longer --time")
            return False
        self.save(exit_code=None, requeued=True)
        say(f"flowmbpo job {self.job}: checkpoint at epoch {reached[0] if reached else 0}, back to the queue")
        return True

    def command(self, run_id: str) -> list[str]:
        """`flowmbpo run` or `sweep` of this installation, with the registry as it was at submission."""
        submission, name = self.submission, self.task.experiment
        command = [sys.executable, "-P", "-m", "flowmbpo"]  # -P: files lying around are no modules
        if run_id and not submission.sweep:
            command += ["run", "--resume", run_id, *(["--accept-changes"] if submission.accept_changes else [])]
        else:
            searched = ["--space", str(submission.files.space), *submission.sweep]
            seed = ["--seed", str(self.task.seed)]
            command += ["sweep", name, *searched] if submission.sweep else ["run", name, *seed]
            for override in submission.overrides:
                command += ["--set", override]
        if submission.device != "auto":
            command += ["--device", submission.device]
        if submission.check:
            command += ["--epochs", "1", "--tracking-uri", sqlite_store(submission.folder / "mlflow.db").uri]
        return [*command, "--registry", str(submission.files.registry)]

    def run_id(self) -> str:
        """The run that this task trains; empty before its first start."""
        return self.submission.resume or runs_of_tasks(self.runs).get(self.task.tag, "")

    def _preempted(self, code: int) -> bool:
        """SIGTERM while Slurm still calls the job running: the node is wanted for others, nobody cancelled the job."""
        if code != TERMINATED or self.task.is_cancelled:
            return False
        return slurm_queue.state_of(os.environ.get("SLURM_JOB_ID", "")) in ("RUNNING", "PREEMPTED")

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "MLFLOW_TRACKING_URI": self.submission.tracking_uri,
            "PYTHONUNBUFFERED": "1",
            "FLOWMBPO_JOB": self.job,
            "FLOWMBPO_JOB_TASK": self.task.tag,
            "FLOWMBPO_NODE": socket.gethostname(),
            "FLOWMBPO_REQUEUES": "1" if self.submission.cluster == "slurm" else "",
            "FLOWMBPO_QUEUE_SECONDS": f"{self.queue_seconds:.0f}",
        }

    def save(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        self.task.save(self.state)


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


def newest_state(run_folder: Path) -> tuple[int, str] | None:
    """How far the newest resumable state is: its epoch and checksum, since a long phase has states of its own."""
    epoch = resumable_epoch(run_folder)
    return None if epoch is None else (epoch, fingerprint(RunFiles(run_folder).resumable(epoch)))


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
