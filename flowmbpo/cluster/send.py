"""Hands a draft to its cluster: a folder of its own, the registry and the code as they are now, then the queue."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from flowmbpo.cluster import local, overview, slurm, slurm_queue, snapshot
from flowmbpo.cluster.submission import Submission, Task, new_folder
from flowmbpo.errors import WorkFailed
from flowmbpo.runs.files import locked
from flowmbpo.runs.layout import JOBS, QueueFiles
from flowmbpo.spec.registry import load_registry

CHECK_TIME_LIMIT = "0:15:00"
_POLL_SECONDS = 2.0


def send(draft: Submission, registry: Path, *, snapshots: bool) -> Submission:
    """Submit. Raises WorkFailed with the cluster's words when it refuses; then nothing is kept."""
    folder = new_folder(draft.name)
    try:
        with locked(QueueFiles(JOBS).code_lock):  # nobody removes the copy before the submission that needs it is there
            code = snapshot.take(folder.parent) if snapshots else ""
            submission = replace(draft, folder=folder, submitted_at=time.time(), code=code)
            if draft.check:
                submission = replace(submission, directory=folder)
            submission.save()
        shutil.copyfile(registry, submission.files.registry)
        if draft.space:
            submission.files.space.write_text(draft.space, encoding="utf-8")
        return (slurm if submission.cluster == "slurm" else local).submit(submission)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        snapshot.prune(folder.parent, set())
        raise


def check(draft: Submission, registry: Path, *, snapshots: bool) -> None:
    """One short job that trains one epoch where the draft's tasks would; returns when it has. Raises WorkFailed."""
    draft = replace(
        draft,
        request=draft.request.model_copy(update={"time_limit": CHECK_TIME_LIMIT, "parallel": None}),
        seeds=draft.seeds[:1],
        names=draft.names[:1],
        check=True,
        race="",
        pack=1,
        sweep=(),
        space="",
    )
    pretrain = load_registry(registry).resolve(draft.tasks[0].experiment, list(draft.overrides)).spec.train.pretrain
    if pretrain:  # the check has a folder of its own
        key = "train.pretrain.data"
        others = [given for given in draft.overrides if given.partition("=")[0].strip() != key]
        draft = replace(draft, overrides=(*others, f"{key}={draft.directory / pretrain.data}"))
    submission = send(draft, registry, snapshots=snapshots)
    try:
        while overview.current_state(submission.tasks[0]).active:
            time.sleep(_POLL_SECONDS)
    except BaseException:
        cancel(submission.tasks[0])
        raise
    (row,) = overview.rows([submission], {})
    if row.state != "COMPLETED":
        raise WorkFailed(
            f"check {row.job} of {row.name} ended as {row.state}: {row.note}; its log: flowmbpo logs {row.job}"
        )
    shutil.rmtree(submission.folder, ignore_errors=True)


def cancel(task: Task) -> None:
    """Stop a task, which writes a checkpoint first. Raises WorkFailed when Slurm does not answer."""
    task.files.cancelled.touch()
    if task.submission.cluster == "slurm":
        together = [other for other in task.submission.tasks if other.element_id == task.element_id]
        if all(other.is_cancelled for other in together):  # else the job tells the one run
            slurm_queue.cancel([task.element_id])
    else:
        local.terminate(task)
