"""The queue of one machine without Slurm: a detached process starts the waiting tasks in order, a few at once.

One queue per working directory. It ends when nothing waits or runs, and the next submission starts it again; tasks are
sessions of their own, so they outlive the submitting shell and the queue. There is no time limit here.
Not here: what a task does (`task`).
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from flowmbpo.cluster.job import TrainingTask
from flowmbpo.cluster.states import QueueState, reported_state
from flowmbpo.cluster.submission import Submission, Task, TaskState, submissions
from flowmbpo.cluster.task import Attempt, shell_code
from flowmbpo.runs.files import BrokenFile, is_locked, locked, read_json, write_json
from flowmbpo.runs.layout import JOBS, QueueFiles
from flowmbpo.tracking.provenance import query_gpus

POLL_SECONDS = 0.5
STARTUP_SECONDS = 60.0  # from the queue's decision to the task's first word


def submit(submission: Submission) -> Submission:
    """Queue the tasks and make sure that something starts them."""
    jobs = submission.folder.parent
    with locked(QueueFiles(jobs).number) as file:
        assert file is not None
        file.seek(0)
        number = int(file.read().strip() or 0) + 1
        file.seek(0)
        file.truncate()
        file.write(str(number))
        file.flush()
        # The queue may be another shell's. Tokens stand in an environment, so it is for its owner only.
        write_json(submission.files.environment, dict(os.environ), mode=0o600)
        done = submission.submitted(f"local-{number}")
    ensure_queue(jobs)
    return done


def ensure_queue(jobs: Path = JOBS) -> None:
    """Start the queue's process; it leaves at once if another one is there already."""
    with open(QueueFiles(jobs).log, "ab") as log:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "flowmbpo.cluster.local", str(jobs.absolute())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def serve(jobs: Path) -> None:
    """Start tasks until none is left; returns at once when another process serves this queue."""
    while True:
        with locked(QueueFiles(jobs).lock, 2.0) as file:  # `flowmbpo jobs` may hold it for a moment, to look
            if file is None:
                return
            running: _Running = {}
            while _step(jobs, running):
                time.sleep(POLL_SECONDS)
        # A submission between the last look and the release of the lock found it taken and left: look once more.
        if not _waiting(jobs):
            return


_Running = dict[subprocess.Popen[bytes], tuple[Task, int]]  # processes of the queue: which task, in which slot


def _step(jobs: Path, running: _Running) -> bool:
    """Reap, start what may start; False when nothing waits or runs."""
    for process in [process for process in running if process.poll() is not None]:
        task, _ = running.pop(process)
        if process.returncode and not task.state.starts:  # it could not even say so itself
            task.save(TaskState(ended_at=time.time(), exit_code=shell_code(process.returncode)))
    waiting = _waiting(jobs)
    # Tasks that an earlier, killed queue has started count too.
    others = sum(task.is_alive for submission in _local(jobs) for task in submission.tasks) if waiting else 0
    slots = _slots(jobs)
    while waiting and max(len(running), others) < slots:
        task = waiting.pop(0)
        taken = {slot for _, slot in running.values()}
        free = next(slot for slot in range(slots) if slot not in taken)
        running[_start(task, free)] = (task, free)
        others += 1
    return bool(running or waiting)


def _start(task: Task, slot: int) -> subprocess.Popen[bytes]:
    submission = task.submission
    try:
        environment = {str(name): str(value) for name, value in read_json(submission.files.environment).items()}
    except (BrokenFile, AttributeError):
        environment = dict(os.environ)
    devices = visible_gpus(environment)
    if submission.code_folder:
        path = [str(submission.code_folder), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    if devices and submission.request.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    task.files.started.touch()
    if all(other.files.started.exists() for other in submission.tasks):
        submission.files.environment.unlink(missing_ok=True)
    with open(task.log, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "flowmbpo.cluster.local", str(submission.folder), str(task.index)],
            cwd=submission.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _local(jobs: Path) -> list[Submission]:
    return [submission for submission in submissions(jobs) if submission.cluster == "local"]


def _waiting(jobs: Path) -> list[Task]:
    """Tasks that have not been started, in the order of submission."""
    ordered = sorted(_local(jobs), key=lambda submission: int(submission.job_id.partition("-")[2]))
    tasks = (task for submission in ordered for task in submission.tasks)
    return [task for task in tasks if not (task.files.started.exists() or task.is_cancelled)]


def _slots(jobs: Path) -> int:
    """Tasks at once: what the latest submission asked for, else one per GPU, else one."""
    latest = max(_local(jobs), key=lambda submission: submission.submitted_at, default=None)
    return (latest and latest.request.parallel) or max(1, len(visible_gpus()))


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Indices of the GPUs that a task may use, from CUDA_VISIBLE_DEVICES or the driver's own tool."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part for part in named.split(",") if part]
    return list(query_gpus("index"))


def state(task: Task) -> QueueState:
    """State of a task in Slurm's words."""
    found = reported_state(task)
    if task.is_alive:
        return QueueState("RUNNING", node=found.node)
    if found.state != "PENDING":
        return found
    try:
        started = time.time() - task.files.started.stat().st_mtime
    except FileNotFoundError:
        served = is_locked(QueueFiles(task.submission.folder.parent).lock)
        return QueueState("PENDING", "Resources" if served else "queue stopped: the next `flowmbpo submit` starts it")
    return QueueState("CONFIGURING" if started < STARTUP_SECONDS else "KILLED")


def terminate(task: Task) -> None:
    """Ask a running task to write a checkpoint and stop."""
    pid = task.state.pid
    if pid and task.is_alive:
        os.kill(pid, signal.SIGTERM)


def preview(submission: Submission) -> str:
    """The commands that the queue would run, one per seed."""
    commands = [Attempt(task).command(submission.resume) for task in submission.tasks]
    lines = [shlex.join(["flowmbpo", *command[4:]]) for command in commands]
    at_once = submission.request.parallel or max(1, len(visible_gpus()))
    return "\n".join([f"# on this machine, {at_once} at once, in {submission.directory}", *lines])


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(Path(sys.argv[1]))
    else:
        TrainingTask(Path(sys.argv[1]), int(sys.argv[2]))()
