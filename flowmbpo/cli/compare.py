"""`flowmbpo compare`: experiments (their finished runs) or single runs side by side, with verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import SELECTS_RUNS, JsonOption, RegistryOption, TrackingOption
from flowmbpo.errors import UserError
from flowmbpo.runs.files import check_output

if TYPE_CHECKING:
    from flowmbpo.reports import Comparison

_SUFFIXES = {"--json": ".json", "--markdown": ".md", "--csv": ".csv", "--latex": ".tex"}


def compare(
    selectors: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|RUN_ID...",
            help="Experiments (all their finished runs) or single runs (id, its beginning, or NAME/seed-N).",
            **SELECTS_RUNS,
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one line of CSV per row.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print a LaTeX table (booktabs).")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the learning curves.")] = None,
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare experiments or runs: rewards with intervals, stability, cost, what differs, which is better.

    R is the real simulator's. docs/comparing.md defines every figure.
    """
    given = {"--json": as_json, "--markdown": markdown, "--csv": as_csv, "--latex": latex}
    chosen = [name for name, on in given.items() if on]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} exclude each other; give one of them")
    for selector in selectors or ():
        if chosen and Path(selector).suffix == _SUFFIXES[chosen[0]]:
            raise UserError(f"{chosen[0]} takes no file: it prints to standard output; write {chosen[0]} > {selector}")
    if not selectors:
        raise UserError("name experiments or runs to compare; `flowmbpo list` and `flowmbpo runs` show them")
    if plot:
        from flowmbpo.reports.figure_style import PICTURES

        check_output(plot, PICTURES)
    from flowmbpo.reports import compare as compare_runs
    from flowmbpo.reports import formats
    from flowmbpo.spec.registry import load_registry

    known = load_registry(registry)
    comparison = compare_runs(selectors, tracking_uri=tracking_uri, registry=known)
    if as_json:
        tables.print_json(comparison.document())
    elif chosen:
        write = {"--markdown": formats.to_markdown, "--csv": formats.to_csv, "--latex": formats.to_latex}
        typer.echo(write[chosen[0]](comparison), nl=False)
    else:
        _show(comparison)
    if plot:
        from flowmbpo.reports.known import published
        from flowmbpo.reports.plots import save_curves

        save_curves(comparison, plot, published(known))
        tables.say(f"learning curves: {plot}")


def _show(comparison: Comparison) -> None:
    from flowmbpo.reports import formats

    for table in (*formats.tables(comparison), formats.spec_table(comparison)):
        if table.rows:
            tables.print_table(table.caption, table.headings, table.rows, table.right)
    for line in formats.remarks(comparison):
        tables.out.print(f"• {line}", markup=False, highlight=False, soft_wrap=True)
