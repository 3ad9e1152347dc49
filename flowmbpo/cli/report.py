"""`flowmbpo report`: everything that was asked and measured as one HTML page, also kept in MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.completion import experiment_names
from flowmbpo.cli.options import RegistryOption, TrackingOption
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.files import check_output

if TYPE_CHECKING:
    from flowmbpo.tracking.store import Store


def report(
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="Where the page goes.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Experiments to report on. Default: all with finished runs.", autocompletion=experiment_names
        ),
    ] = None,
    log: Annotated[bool, typer.Option("--log/--no-log", help="Keep the page in MLflow, too.")] = True,
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
) -> None:
    """Write the complete report as one self-contained HTML page."""
    from flowmbpo.cluster.overview import gpu_hours_by_experiment
    from flowmbpo.cluster.submission import submissions
    from flowmbpo.reports.report import SUFFIXES, build_report, write_report
    from flowmbpo.spec.registry import load_registry
    from flowmbpo.tracking.reader import open_reader

    check_output(out, SUFFIXES)
    known = load_registry(registry)
    reader = open_reader(tracking_uri)
    hours = gpu_hours_by_experiment(submissions())
    write_report(build_report(names or [], reader=reader, registry=known, gpu_hours=hours), out)
    tables.say(f"report: {out}")
    if log:
        _keep(reader.store, out)


def _keep(store: Store, page: Path) -> None:
    """The page is written by now: a store that only lets itself be read is worth a warning, not a failure."""
    from flowmbpo import __version__
    from flowmbpo.tracking.documents import DOCUMENTS, keep_document

    try:
        keep_document(store, page, page.stem, {"flowmbpo.version": __version__})
    except (UserError, WorkFailed) as error:
        tables.say(f"warning: not kept in MLflow: {error}")
    else:
        tables.say(f"kept in MLflow, experiment {DOCUMENTS}")
