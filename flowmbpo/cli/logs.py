"""`flowmbpo logs`: what a task has printed, over all its restarts."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import streams, tables
from flowmbpo.errors import UserError

if TYPE_CHECKING:
    from flowmbpo.cluster.submission import Task

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
            raise UserError(
                f"job {job} has several tasks; follow one of {', '.join(task.id for task in tasks[0].submission.tasks)}"
            )
        _follow(tasks[0])
        return
    for task in tasks:
        if len(tasks) > 1:
            typer.echo(f"==> {task.id} {task.run_name} <==")
        if task.log.exists():
            sys.stdout.write(task.log.read_text(encoding="utf-8", errors="replace"))
        else:
            tables.err.print(f"{task.id} has not started", highlight=False)


def _follow(task: Task) -> None:
    """Print what is there and what comes, until the task has ended. Ctrl-C stops looking, not the job."""
    from flowmbpo.cluster.overview import current_state

    log, position, asked = task.log, 0, 0.0
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
                asked, active = time.monotonic(), current_state(task).active
            if active:
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        sys.exit(130)
