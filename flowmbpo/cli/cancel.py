"""`flowmbpo cancel`: stop jobs; running ones write a checkpoint first."""

from __future__ import annotations

from typing import Annotated

import typer

from flowmbpo.cli import tables


def cancel(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Jobs, or tasks of them as in 123_0.")],
) -> None:
    """Cancel jobs. Their runs end as KILLED and can be continued."""
    from flowmbpo.cluster import overview, send
    from flowmbpo.cluster.submission import find_tasks

    tasks = {submission.task_ids()[index]: (submission, index) for job in jobs for submission, index in find_tasks(job)}
    for task_id, (submission, index) in tasks.items():
        state = overview.current_state(submission, index)
        if not state.active:
            tables.say(f"{task_id} has ended already ({state.state})")
            continue
        send.cancel(submission, index)
        tables.err.print(
            f"{task_id} {submission.title(index)}/seed-{submission.seeds[index]} cancelled", highlight=False
        )
