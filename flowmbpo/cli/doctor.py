"""`flowmbpo doctor`: whether a run would start here. Every job asks it first, on its node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.completion import experiment_names
from flowmbpo.cli.options import DeviceOption, JsonOption, RegistryOption, TrackingOption
from flowmbpo.errors import WorkFailed

if TYPE_CHECKING:
    from flowmbpo.spec.schema import Experiment
    from flowmbpo.training.preflight import Check

COLOURS = {"good": "green", "bad": "red", "not applicable": "dim"}


def doctor(
    names: Annotated[
        list[str] | None, typer.Argument(help="Experiments to run. Default: all.", autocompletion=experiment_names)
    ] = None,
    device: DeviceOption = "auto",
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check what a run needs, from Python to Slurm. Exit code 1 if a run would fail here."""
    from flowmbpo.training import preflight

    experiments: list[Experiment] = []
    checks = [
        preflight.check("registry", lambda: _registry(registry, names, experiments)),
        preflight.check("slurm", _slurm),
        *preflight.machine_checks(experiments, device, tracking_uri),
    ]
    if as_json:
        tables.print_json([check.document() for check in checks])
    else:
        _print(checks)
    if any(check.fatal for check in checks):
        raise typer.Exit(1)


def _registry(path: Path | None, names: list[str] | None, experiments: list[Experiment]) -> str:
    """Fills `experiments`."""
    from flowmbpo.spec.problems import RegistryError
    from flowmbpo.spec.registry import load_registry
    from flowmbpo.training.preflight import Bad

    try:
        found = load_registry(path)
    except RegistryError as error:
        raise Bad(
            f"{len(error.problems)} problem(s), first: {error.problems[0].message}",
            "`flowmbpo validate` shows all with their lines",
        ) from None
    experiments += [found.resolve(name).spec for name in names or found.names()]
    return f"{found.path}, {len(found.names())} experiments"


def _slurm() -> str:
    from flowmbpo.cluster import slurm_queue
    from flowmbpo.training.preflight import Bad, NotApplicable

    if not slurm_queue.is_available() and "SLURM_JOB_ID" not in os.environ:
        raise NotApplicable("no sbatch here: `flowmbpo submit` uses this machine's own queue")
    try:
        return slurm_queue.check()
    except WorkFailed as error:
        cure = "is the controller up? jobs cannot be submitted, and one that runs cannot be requeued at its time limit"
        raise Bad("; ".join(str(error).splitlines()), cure, fatal=False) from None


def _print(checks: list[Check]) -> None:
    from rich.text import Text

    for check in checks:
        line = Text(f"{check.name:<10} ")
        line.append(f"{check.state:<15}", style=COLOURS[check.state])
        tables.out.print(line.append(f" {check.found}"), soft_wrap=True)
        if check.cure and check.state == "bad":
            tables.out.print(Text(f"{'':<10} cure: {check.cure}"), soft_wrap=True)
