"""`flowmbpo logs`: what a task has printed, over all its restarts."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import streams, tables
from flowmbpo.errors import UserError

if TYPE_CHECKING:
    from flowmbpo.cluster.submission import Submission

POLL_SECONDS = 0.5
STATE_SECONDS = 5.0  # between two questions to the queue while following


def logs(
    job: Annotated[str, typer.Argument(help="A job or one of its tasks, as in 123_0.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until the task ends.")] = False,
) -> None:
    """Print the log of a job."""
    from flowmbpo.cluster.submission import find_tasks

    tasks = find_tasks(job)
    if follow:
        if len(tasks) > 1:
            raise UserError(f"job {job} has several tasks; follow one of {', '.join(tasks[0][0].task_ids())}")
        _follow(*tasks[0])
        return
    for submission, index in tasks:
        if len(tasks) > 1:
            typer.echo(
                f"==> {submission.task_ids()[index]} {submission.title(index)}/seed-{submission.seeds[index]} <=="
            )
        log = submission.log(index)
        if log.exists():
            sys.stdout.write(log.read_text(encoding="utf-8", errors="replace"))
        else:
            tables.err.print(f"{submission.task_ids()[index]} has not started", highlight=False)


def _follow(submission: Submission, index: int) -> None:
    """Print what is there and what comes, until the task has ended. Ctrl-C stops looking, not the job."""
    log, position, asked = submission.log(index), 0, 0.0
    active = True
    try:
        while True:
            if log.exists():
                with open(log, "rb") as file:
                    file.seek(position)
                    text = file.read()
                position += len(text)
                sys.stdout.write(text.decode("utf-8", errors="replace"))
                sys.stdout.flush()
            if not active or streams.nobody_reads():
                return
            if time.monotonic() - asked > STATE_SECONDS:
                # What was written before the answer is printed once more round the loop.
                asked, active = time.monotonic(), _is_active(submission, index)
            if active:
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        sys.exit(130)


def _is_active(submission: Submission, index: int) -> bool:
    from flowmbpo.cluster.overview import current_state

    return current_state(submission, index).active
