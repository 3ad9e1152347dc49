"""Puts the commands together and turns errors into messages and exit codes; no command lives here."""

from __future__ import annotations

import os
import sys
from pkgutil import resolve_name
from typing import Annotated

import typer

from flowmbpo import __version__
from flowmbpo.cli import streams, tables
from flowmbpo.cli.bench import bench
from flowmbpo.cli.options import with_common_options
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


COMMANDS = {  # in the order of --help; module and function of flowmbpo.cli
    "list": "list.list_experiments",
    "show": "show.show",
    "validate": "validate.validate",
    "schema": "schema.schema",
    "doctor": "doctor.doctor",
    "run": "run.run",
    "eval": "eval.evaluate",
    "runs": "runs.runs",
    "watch": "watch.watch",
    "ui": "ui.ui",
    "sync": "sync.sync",
    "submit": "submit.submit",
    "jobs": "jobs.jobs",
    "logs": "logs.logs",
    "cancel": "cancel.cancel",
    "compare": "compare.compare",
    "report": "report.report",
    "render": "render.render",
    "record": "record.record",
    "note": "annotate.note",
    "tag": "annotate.tag",
    "sweep": "sweep.sweep",
    "export": "export.export",
    "import": "import_.import_run",
    "reproduce": "reproduce.reproduce",
}
for _name, _function in COMMANDS.items():
    app.command(_name)(with_common_options(resolve_name(f"flowmbpo.cli.{_function}")))
app.add_typer(bench, name="bench")


def main() -> None:
    """Entry point of the `flowmbpo` command."""
    # Torch's threads wait for each other by spinning: on a core that others use too, an epoch then takes ten times as
    # long. Sleeping costs nothing measurable. It must be set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # No proxy leads to this machine's own servers, whatever the shell says about those of others.
    unproxied = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_proxy"] = ",".join(filter(None, [unproxied, "localhost,127.0.0.1,::1"]))
    streams.make_lossy()
    code = _execute()
    if (reason := streams.lost_output()) and not code:
        tables.err.print(f"[bold red]failed:[/] standard output cannot be written: {reason}", highlight=False)
        code = 1
    sys.exit(code)


def _execute() -> int | str | None:
    """Run what the command line asks for; the exit code."""
    try:
        _check_working_directory()
        app()
    except RegistryError as error:
        print_problems(error.problems)
        return 2
    except UserError as error:
        tables.err.print(f"[bold red]error:[/] {_escape(error)}", highlight=False, soft_wrap=True)
        return 2
    except WorkFailed as error:
        tables.err.print(f"[bold red]failed:[/] {_escape(error)}", highlight=False, soft_wrap=True)
        return 1
    except SystemExit as stop:
        return stop.code
    return 0


def _check_working_directory() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            f"the working directory is not there any more or cannot be read ({error.strerror}); "
            "change to another one with `cd` and try again"
        ) from None


def _escape(error: Exception) -> str:
    from rich.markup import escape

    return escape(str(error))
