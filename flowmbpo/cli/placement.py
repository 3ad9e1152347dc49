"""Where jobs run and what they ask for: the options of every command that submits."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from flowmbpo.cli.options import slurm_time, with_parameters
from flowmbpo.data_types import Document
from flowmbpo.errors import UserError

CLUSTERS = ("auto", "slurm", "local")


@dataclass(frozen=True)
class Placement:
    """The options. Those that are None leave the decision to the user's file and the registry."""

    cluster: Annotated[str, typer.Option(help="slurm, local, or auto: Slurm where it is installed.")] = "auto"
    cluster_file: Annotated[
        Path | None,
        typer.Option(
            envvar="FLOWMBPO_CLUSTER",
            help="Your own defaults. Default: ./cluster.toml, else ~/.config/flowmbpo/cluster.toml.",
        ),
    ] = None
    account: Annotated[str | None, typer.Option(help="Slurm account.")] = None
    partition: Annotated[str | None, typer.Option(help="Slurm partition.")] = None
    constraint: Annotated[str | None, typer.Option(help="Slurm constraint.")] = None
    gpu: Annotated[str | None, typer.Option(help="GPU type, as the cluster names it.")] = None
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs per task.")] = None
    cpus: Annotated[int | None, typer.Option(min=1, help="CPU cores per task.")] = None
    memory: Annotated[float | None, typer.Option(help="Memory per task, GB.")] = None
    limit: Annotated[str | None, typer.Option("--time", help="Time limit, as in 12h, 2-00:00:00 or 12:00:00.")] = None
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY[=VALUE]", help="A further sbatch option, without dashes."),
    ] = None
    parallel: Annotated[int | None, typer.Option(min=1, help="Tasks at once.")] = None
    check: Annotated[
        bool, typer.Option("--check", help="First train one epoch in a short job per kind of resource.")
    ] = False
    snapshot: Annotated[bool, typer.Option(help="Train the code as it is now, whatever becomes of it.")] = True
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the batch scripts, submit nothing.")] = False

    def where(self) -> str:
        """slurm or local. Raises UserError."""
        from flowmbpo.cluster import slurm_queue

        given = self.cluster
        if given not in CLUSTERS:
            raise UserError(f"--cluster {given!r}: use {', '.join(CLUSTERS)}")
        if given == "slurm" and not self.dry_run and not slurm_queue.is_available():
            raise UserError(
                "this machine has no `sbatch`; submit on a login node of the cluster, or use --cluster local"
            )
        if given == "auto":
            return "slurm" if self.dry_run or slurm_queue.is_available() else "local"
        return given

    def asked(self) -> Document:
        """By the names of a job's request."""
        from flowmbpo.cluster.request import sbatch_options

        same = ("account", "partition", "constraint", "gpu", "gpus", "cpus", "parallel")
        return {
            **{name: getattr(self, name) for name in same},
            "memory_gb": self.memory,
            "time_limit": slurm_time(self.limit),
            "options": sbatch_options(self.options or []),
        }


def with_placement(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, whose argument `placement` is given as the options of a Placement."""
    hints = get_type_hints(Placement, include_extras=True)
    options = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=hints[one.name])
        for one in fields(Placement)
    ]
    given = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "placement"]

    @wraps(command)
    def placed(**arguments: Any) -> None:
        command(placement=Placement(**{one.name: arguments.pop(one.name) for one in options}), **arguments)

    return with_parameters(placed, [*(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in given), *options])
