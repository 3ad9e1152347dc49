"""Puts the commands together and turns errors into messages and exit codes; no command lives here."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from flowmbpo import __version__
from flowmbpo.cli import (
    cancel,
    compare,
    jobs,
    logs,
    render,
    report,
    run,
    runs,
    schema,
    show,
    submit,
    sync,
    tables,
    ui,
    validate,
    watch,
)
from flowmbpo.cli import list as list_
from flowmbpo.cli.bench import bench
from flowmbpo.cli.eval import evaluate
from flowmbpo.cli.problems import print_problems
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.spec.problems import RegistryError

app = typer.Typer(
    name="flowmbpo",
    help="Compare world models for policy learning on the DFlex Ant: every run described, tracked and repeatable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"flowmbpo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("list")(list_.list_experiments)
app.command("show")(show.show)
app.command("validate")(validate.validate)
app.command("schema")(schema.schema)
app.command("run")(run.run)
app.command("eval")(evaluate)
app.command("runs")(runs.runs)
app.command("watch")(watch.watch)
app.command("ui")(ui.ui)
app.command("sync")(sync.sync)
app.command("submit")(submit.submit)
app.command("jobs")(jobs.jobs)
app.command("logs")(logs.logs)
app.command("cancel")(cancel.cancel)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("render")(render.render)
app.add_typer(bench, name="bench")


def main() -> None:
    """Entry point of the `flowmbpo` command."""
    # Torch's threads wait for each other by spinning: on a core that others use too, an epoch then takes ten times as
    # long. Sleeping costs nothing measurable. It must be set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows ASCII only shows escapes instead of failing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except RegistryError as error:
        print_problems(error.problems)
        sys.exit(2)
    except UserError as error:
        tables.err.print(f"[bold red]error:[/] {_escape(error)}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except WorkFailed as error:
        tables.err.print(f"[bold red]failed:[/] {_escape(error)}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except BrokenPipeError:  # `flowmbpo list | head`
        sys.stderr.close()
        sys.exit(0)


def _escape(error: Exception) -> str:
    from rich.markup import escape

    return escape(str(error))
