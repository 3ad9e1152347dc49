"""`flowmbpo jobs`: queue state and training state of everything submitted from this directory, in one table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import JsonOption, TrackingOption
from flowmbpo.cli.progress import duration
from flowmbpo.cli.runs import read_and_mark
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.store import check_sqlite, resolve_store

if TYPE_CHECKING:
    from flowmbpo.cluster.overview import TaskRow
    from flowmbpo.tracking.records import RunRecord

RECENT_SECONDS = 7 * 86400.0
COLUMNS = ("job", "experiment", "seed", "state", "waits for", "node", "epoch", "of", "R", "ETA", "restarts")


def jobs(
    everything: Annotated[bool, typer.Option("--all", help="Also those submitted more than a week ago.")] = False,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the jobs submitted from this directory: what waits for what, which epoch is reached, what failed why."""
    from flowmbpo.cluster import overview
    from flowmbpo.cluster.submission import submissions

    oldest = 0.0 if everything else time.time() - RECENT_SECONDS
    chosen = [submission for submission in submissions() if submission.submitted_at >= oldest]
    known: dict[str, RunRecord] = {}
    for uri in dict.fromkeys(tracking_uri or submission.tracking_uri for submission in chosen):
        known |= _runs(uri)
    rows = overview.rows(chosen, known)
    if as_json:
        tables.print_json([row.document() for row in rows])
    elif rows:
        _print(rows)
    else:
        tables.err.print("No jobs were submitted from this directory; `flowmbpo submit NAME` submits one.")


def _runs(uri: str) -> dict[str, RunRecord]:
    """Runs of a store by id; a store that is away costs the training columns, not the table."""
    try:
        store = resolve_store(uri)
        if store.sqlite and not check_sqlite(store.sqlite, write=False):
            return {}
        return {run.run_id: run for run in read_and_mark(open_reader(store))}
    except (UserError, WorkFailed) as error:
        tables.err.print(f"warning: no training state: {error}", markup=False, highlight=False, soft_wrap=True)
        return {}


def _print(rows: list[TaskRow]) -> None:
    cells = [
        [
            row.job,
            row.name,
            row.seed,
            row.state,
            row.reason or None,
            row.node or None,
            row.epoch,
            row.max_epochs,
            row.episode_reward,
            None if row.eta_seconds is None else duration(row.eta_seconds),
            row.restarts,
        ]
        for row in rows
    ]
    tables.print_table("", COLUMNS, cells, right=("seed", "epoch", "of", "R", "ETA", "restarts"))
    for row in rows:
        if row.note:
            tables.out.print(
                f"{row.job} {row.name}/seed-{row.seed}: {row.note}", markup=False, highlight=False, soft_wrap=True
            )
