"""`flowmbpo runs`: what is running and what has run, also in other processes and on the cluster."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import SELECTS_RUNS, JsonOption, TrackingOption
from flowmbpo.cli.progress import duration
from flowmbpo.errors import UserError
from flowmbpo.runs.layout import RUNS
from flowmbpo.tracking.reader import open_reader, select_runs
from flowmbpo.tracking.records import RunRecord
from flowmbpo.tracking.store import check_store, resolve_store

STATUSES = ("RUNNING", "FINISHED", "FAILED", "KILLED")
_COLUMNS: tables.Columns = {
    "run": lambda run: str(run["run_id"])[:12],
    "name": "name",
    "seed": "seed",
    "status": "status",
    "epoch": "epoch",
    "of": "max_epochs",
    "env steps": "env_steps",
    "R": "episode_reward",
    "evaluated R": "eval_reward",
    "steps/s": "env_steps_per_second",
    "ETA": lambda run: duration(run["eta_seconds"]),
    "started": lambda run: time.strftime("%Y-%m-%d %H:%M", time.localtime(run["start_time"])),
    "tags and notes": lambda run: " ".join(
        [*(f"{key}={value}" for key, value in run["tags"].items() if value), *(run["note"] or "").split("\n")]
    ),
}


def runs(
    selectors: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|RUN_ID]...", help="Only these.", **SELECTS_RUNS),
    ] = None,
    status: Annotated[list[str] | None, typer.Option(help=f"Only runs that are {', '.join(STATUSES)}.")] = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs with their progress, newest first."""
    wanted = {text.upper() for text in status or ()}
    if unknown := wanted.difference(STATUSES):
        raise UserError(f"--status {sorted(unknown)[0]}: use {', '.join(STATUSES)}")
    found = _runs(tracking_uri)
    _mention_undelivered()
    if selectors:
        chosen = {run.run_id for run in select_runs(found, selectors)}
        found = [run for run in found if run.run_id in chosen]
    if wanted:
        found = [run for run in found if run.status in wanted]
    if found or as_json:
        tables.show([run.document() for run in found], as_json, _COLUMNS)
    else:
        tables.err.print("No runs yet; `flowmbpo run quickstart` makes one.")


def _runs(tracking_uri: str | None) -> list[RunRecord]:
    """All runs, newest first. Nothing yet in the default store is no error."""
    store = resolve_store(tracking_uri)
    if not tracking_uri and not check_store(store):
        return []
    from flowmbpo.tracking.recovery import current_runs

    return current_runs(open_reader(store))


def _mention_undelivered() -> None:
    """Say when runs in this directory have entries that no store has yet."""
    from flowmbpo.tracking.recovery import undelivered_runs

    if waiting := undelivered_runs(RUNS, None):
        tables.say(
            f"{len(waiting)} run(s) here have entries that are not in MLflow yet "
            f"({', '.join(files.root.name[:12] for files in waiting[:3])}); `flowmbpo sync` delivers them."
        )
