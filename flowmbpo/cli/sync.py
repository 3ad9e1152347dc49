"""`flowmbpo sync`: deliver to MLflow what runs could not deliver themselves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import JsonOption, TrackingOption
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.layout import RUNS
from flowmbpo.tracking.store import resolve_store


def sync(
    folder: Annotated[Path, typer.Argument(help="The folder with the runs.")] = RUNS,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Deliver the entries that were kept on disk while the tracking store was away.

    Each run goes to the store it was started with unless --tracking-uri names another. It is safe to repeat: nothing is
    written twice.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder that holds the runs (default: ./runs)")
    from flowmbpo.tracking.recovery import sync_runs

    results = sync_runs(folder, resolve_store(tracking_uri) if tracking_uri else None)
    failed = [result for result in results if result.problem]
    if as_json:
        tables.print_json([asdict(result) for result in results])
    elif not results:
        tables.err.print("Everything is in MLflow already.")
    for result in results if not as_json else ():
        if not result.problem:
            tables.say(f"{result.run_id}: {result.entries} entries delivered, {result.status}")
    if failed:
        problems = "; ".join(f"{result.run_id}: {result.problem}" for result in failed)
        raise WorkFailed(f"{len(failed)} of {len(results)} runs could not be delivered: {problems}")
