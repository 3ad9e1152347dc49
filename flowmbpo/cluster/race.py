"""One task, submitted to several queues: whichever job gets ready first trains it, the others are withdrawn.

A file decides, which only one of them can make, so that exactly one trains whatever the timing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from flowmbpo.cluster import slurm_queue
from flowmbpo.cluster.submission import Submission, all_submissions
from flowmbpo.errors import WorkFailed
from flowmbpo.runs.layout import QueueFiles


def won(submission: Submission, element: int) -> bool:
    """Whether this job is the one to train; the others are then withdrawn. Always so without a race."""
    if not submission.race:
        return True
    claim = _claim(submission, element)
    mine = claim.with_name(f".{claim.name}.{submission.folder.name}")
    mine.write_text(submission.folder.name, encoding="utf-8")
    with suppress(FileExistsError):
        os.link(mine, claim)
    mine.unlink()
    withdraw(submission, element)
    return claim.read_text(encoding="utf-8") == submission.folder.name


def withdraw(submission: Submission, element: int) -> None:
    """Cancel the losers of a race that is decided."""
    try:
        winner = _claim(submission, element).read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    rivals = [rival for rival in all_submissions(submission.folder.parent) if rival.race == submission.race]
    lost = [rival for rival in rivals if rival.folder.name != winner]
    first = next((rival.element_id(element) for rival in rivals if rival not in lost), winner)
    for rival in lost:
        for task in rival.members(element):
            task.files.cancelled.write_text(f"{first} was ready first", encoding="utf-8")
    taken = [one.element_id(element) for one in lost if one.job_id and one.folder.name != submission.folder.name]
    with suppress(WorkFailed):  # they notice by themselves when they start
        if taken:
            slurm_queue.cancel(taken)


def _claim(submission: Submission, element: int) -> Path:
    return QueueFiles(submission.folder.parent).race(submission.race, element)
