"""`flowmbpo jobs`: queue state and training state of everything submitted from this directory, in one table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import streams, tables
from flowmbpo.cli.options import JsonOption, TrackingOption
from flowmbpo.cli.patience import patiently
from flowmbpo.cli.progress import duration
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.layout import JOBS
from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.recovery import current_runs
from flowmbpo.tracking.store import check_store, resolve_store

if TYPE_CHECKING:
    from flowmbpo.cluster.overview import TaskRow
    from flowmbpo.tracking.records import RunRecord

RECENT_SECONDS = 7 * 86400.0
_COLUMNS: tables.Columns = {
    "job": "job",
    "experiment": "name",
    "seed": "seed",
    "state": "state",
    "waits for": lambda row: row["reason"] or None,
    "node": lambda row: row["node"] or None,
    "epoch": "epoch",
    "of": "max_epochs",
    "R": "episode_reward",
    "ETA": lambda row: duration(row["eta_seconds"]),
    "restarts": "restarts",
}


def jobs(
    everything: Annotated[bool, typer.Option("--all", help="Also those submitted more than a week ago.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show them again and again until all have ended.")
    ] = False,
    interval: Annotated[float, typer.Option(min=1.0, help="Seconds between two looks.")] = 10.0,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the jobs submitted from this directory: what waits for what, which epoch is reached, what failed why."""
    if watch and as_json:
        raise UserError("--watch shows a table again and again; --json is one document: leave one of them out")
    from flowmbpo.cluster.submission import read_submissions

    for file, reason in read_submissions(JOBS)[1].items():
        tables.say(
            f"warning: {file}: {reason}. Its job is not shown, and the code of all jobs is kept; "
            f"remove {file.parent} once it is not needed"
        )
    rows, hours = _rows(everything, tracking_uri)
    if as_json:
        tables.print_json([row.document() for row in rows])
    elif not rows:
        tables.err.print("No jobs were submitted from this directory; `flowmbpo submit NAME` submits one.")
    else:
        _print(rows, hours)
        while watch and any(row.active for row in rows) and not streams.nobody_reads():
            time.sleep(interval)
            before = rows
            rows, hours = patiently(interval, _rows, everything, tracking_uri)
            if tables.on_terminal(tables.out):
                tables.out.clear()
                _print(rows, hours)
            elif rows != before:
                _print(rows, hours)


def _rows(everything: bool, tracking_uri: str | None) -> tuple[list[TaskRow], dict[str, tuple[float, float]]]:
    """As it is now, and the GPU hours of each experiment. Code that no job needs any more is removed."""
    from flowmbpo.cluster import overview, snapshot
    from flowmbpo.cluster.submission import submissions

    oldest = 0.0 if everything else time.time() - RECENT_SECONDS
    # One that still has its code may still be waiting.
    chosen = [
        one for one in submissions() if one.submitted_at >= oldest or (one.code_folder and one.code_folder.is_dir())
    ]
    known: dict[str, RunRecord] = {}
    for uri in dict.fromkeys(tracking_uri or submission.tracking_uri for submission in chosen):
        known |= _runs(uri)
    rows = overview.rows(chosen, known)
    active = {Path(row.log).parent for row in rows if row.active}
    snapshot.prune(JOBS, {one.folder for one in chosen} - active)
    return rows, overview.gpu_hours_by_experiment(chosen)


def _runs(uri: str) -> dict[str, RunRecord]:
    """Runs of a store by id; a store that is away costs the training columns, not the table."""
    try:
        store = resolve_store(uri)
        return {run.run_id: run for run in current_runs(open_reader(store))} if check_store(store) else {}
    except (UserError, WorkFailed) as error:
        tables.say(f"warning: no training state: {error}")
        return {}


def _print(rows: list[TaskRow], hours: dict[str, tuple[float, float]]) -> None:
    tables.show([row.document() for row in rows], False, _COLUMNS)
    for row in rows:
        if row.note:
            tables.out.print(
                f"{row.job} {row.name}/seed-{row.seed}: {row.note}", markup=False, highlight=False, soft_wrap=True
            )
    if hours:
        columns = ("experiment", "asked for", "used")
        tables.print_table("GPU hours", columns, [[name, *sums] for name, sums in hours.items()])
