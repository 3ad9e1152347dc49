"""One row per task: what the queue says, what the run has reached, and what to do about a task that ended badly.

Not here: asking the tracking store (the caller brings the runs) and printing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from flowmbpo.cluster import local, slurm, slurm_queue
from flowmbpo.cluster.states import ACTIVE, QueueState, reported_state
from flowmbpo.cluster.submission import Submission, Task
from flowmbpo.cluster.task import runs_of_tasks
from flowmbpo.data_types import Document
from flowmbpo.runs.layout import RUNS
from flowmbpo.tracking.records import RunRecord

_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class TaskRow:
    """A task for people and programs; figures are None until the run has logged them."""

    job: str
    name: str
    seed: int
    cluster: str
    state: str
    reason: str
    node: str
    restarts: int
    run_id: str
    run_status: str | None
    epoch: int | None
    max_epochs: int | None
    episode_reward: float | None
    eta_seconds: float | None
    submitted_at: float
    ended_at: float | None
    note: str
    log: str
    gpu_hours_asked: float
    gpu_hours_used: float

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    def document(self) -> Document:
        return asdict(self)


def rows(submissions: Iterable[Submission], runs: Mapping[str, RunRecord]) -> list[TaskRow]:
    """Rows in the order of submission. `runs` are the known runs by run id. Raises WorkFailed if Slurm is silent."""
    chosen = list(submissions)
    states = slurm_queue.states(submission.job_id for submission in chosen if submission.cluster == "slurm")
    run_ids: dict[str, str] = {}
    for folder in {submission.directory / RUNS for submission in chosen}:
        run_ids |= runs_of_tasks(folder)
    found = []
    for task in (task for submission in chosen for task in submission.tasks):
        run_id = task.submission.resume or run_ids.get(task.tag, "")
        found.append(_row(task, task_state(task, states.get(task.element_id)), run_id, runs.get(run_id)))
    return found


def gpu_hours(task: Task) -> tuple[float, float]:
    """GPU hours of a task on Slurm: the time limits of its starts, and how long it really ran."""
    submission, reported = task.submission, task.state
    gpus = submission.request.gpus if submission.cluster == "slurm" else 0
    if not gpus:
        return 0.0, 0.0
    share = gpus / min(submission.pack, len(submission.seeds)) / 3600
    asked = reported.starts * slurm.seconds(submission.request.time_limit)
    return share * asked, share * task.seconds(reported)


def gpu_hours_by_experiment(submissions: Iterable[Submission]) -> dict[str, tuple[float, float]]:
    """Sums of `gpu_hours`, without experiments that need no GPU."""
    sums: dict[str, tuple[float, float]] = {}
    for task in (task for submission in submissions for task in submission.tasks):
        asked, used = gpu_hours(task)
        before = sums.get(task.title, (0.0, 0.0))
        sums[task.title] = (before[0] + asked, before[1] + used)
    return {name: hours for name, hours in sums.items() if any(hours)}


def current_state(task: Task) -> QueueState:
    """The state of one task, asked now. Raises WorkFailed if Slurm is silent."""
    asked = [task.submission.job_id] if task.submission.cluster == "slurm" else []
    return task_state(task, slurm_queue.states(asked).get(task.element_id))


def task_state(task: Task, queued: QueueState | None) -> QueueState:
    """The state of one task; `queued` is what Slurm says (None: it has forgotten the task or is not asked)."""
    if task.submission.cluster == "local":
        return local.state(task)
    reported = reported_state(task)
    if queued is None:
        # Slurm knows everything that waits, so a task that it does not know has been cancelled or was lost.
        return QueueState("UNKNOWN") if reported.state == "PENDING" else reported
    if task.submission.pack > 1 and reported.state not in ("PENDING", "KILLED"):
        return reported  # the others in the job go on
    # Without memory accounting Slurm calls it FAILED; the task has seen more.
    return reported if queued.state == "FAILED" and reported.state in ("OUT_OF_MEMORY", "KILLED") else queued


def _row(task: Task, state: QueueState, run_id: str, run: RunRecord | None) -> TaskRow:
    submission, reported = task.submission, task.state
    asked, used = gpu_hours(task)
    waits = state.reason if state.state == "PENDING" else ""
    over = not state.active and state.state != "COMPLETED"
    return TaskRow(
        job=task.id,
        name=task.title,
        seed=task.seed,
        cluster=submission.cluster,
        state=state.state,
        reason=waits,
        node=state.node or reported.node,
        restarts=max(0, reported.starts - 1),
        run_id=run_id,
        run_status=run.status if run else None,
        epoch=run.epoch if run else None,
        max_epochs=run.max_epochs if run else None,
        episode_reward=run.episode_reward if run else None,
        eta_seconds=run.eta_seconds if run and state.active else None,
        submitted_at=submission.submitted_at,
        ended_at=None if state.active else reported.ended_at,
        note=_note(task, state, run_id, run) if over else slurm.hint(waits),
        log=str(task.log),
        gpu_hours_asked=asked,
        gpu_hours_used=used,
    )


def _note(task: Task, state: QueueState, run_id: str, run: RunRecord | None) -> str:
    """Why it ended, what it reached, how to go on."""
    reported, memory = task.state, task.submission.request.memory_gb
    said = last_words(task.log)
    unborn = not reported.starts and said  # what it said instead of beginning
    why = unborn or (
        {
            "OUT_OF_MEMORY": f"the job used up its memory of {memory:g} GB",
            "TIMEOUT": "the time limit came before a checkpoint was written",
            "NODE_FAIL": "the node failed",
            "KILLED": "killed from outside without a word: out of memory, or the machine went down",
            "CANCELLED": (task.is_cancelled and task.files.cancelled.read_text(encoding="utf-8")) or "cancelled",
            "UNKNOWN": "Slurm knows nothing of it any more and it has never started",
        }.get(state.state)
        or reported.message
        or said
    )
    if state.state == "FAILED" and not reported.starts:
        said = said or "not a word in its log"
        why = f"the job ended before flowmbpo began ({said}); cure: check `setup` in cluster.toml, and that "
        why += f"{sys.executable} works on {state.node or 'the node'}"
    parts = [why or f"ended with exit code {reported.exit_code}"]
    if state.state in ("OUT_OF_MEMORY", "KILLED") and reported.peak_memory_mb:
        parts.append(f"largest process {reported.peak_memory_mb / 1024:.1f} GB")
    if run is not None and run.epoch:
        of = f" of {run.max_epochs:,}" if run.max_epochs else ""
        reward = f", R {run.episode_reward:,.0f}" if run.episode_reward is not None else ""
        parts.append(f"reached epoch {run.epoch:,}{of}{reward}")
    if run_id:
        more = f" --memory {memory * 1.5:g}" if state.state == "OUT_OF_MEMORY" else ""
        parts.append(f"continue: {task.submission.continued_by(run_id, more)}")
    return "; ".join(parts)


def last_words(log: Path) -> str:
    """The message with which a run ended, from the end of its log: `failed: ...`, an error, else the last line."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    lines = [line.strip() for line in lines if line.strip()]
    lines = [line for line in lines if not line.startswith("srun: error")] or lines
    for line in reversed(lines):
        if re.match(r"(failed|error|slurmstepd: error|\w+Error): ", line):
            return line
    return lines[-1] if lines else ""
