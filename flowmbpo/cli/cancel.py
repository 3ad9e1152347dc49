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

    for task in {task.id: task for job in jobs for task in find_tasks(job)}.values():
        state = overview.current_state(task)
        if not state.active:
            tables.say(f"{task.id} has ended already ({state.state})")
            continue
        send.cancel(task)
        tables.err.print(f"{task.id} {task.run_name} cancelled", highlight=False)
