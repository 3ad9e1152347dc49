"""`flowmbpo bench sim|train|log`: measures this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import (
    DeviceOption,
    JsonOption,
    NameArgument,
    RegistryOption,
    SetOption,
    with_common_options,
)

bench = typer.Typer(no_args_is_help=True, help="Measure this machine.")


@bench.command("sim")
@with_common_options
def sim(
    num_envs: Annotated[int, typer.Option(min=1, max=1_000_000, help="Environments side by side.")] = 1024,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600.0, help="How long to measure.")] = 5.0,
    gradients: Annotated[bool, typer.Option("--gradients", help="Differentiate 16-step rollouts too.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Control steps per second of the Ant simulator."""
    from flowmbpo.training.benchmark_simulator import measure_simulator
    from flowmbpo.training.devices import choose_device

    _show("simulator", measure_simulator(num_envs, seconds, choose_device(device), gradients), as_json)


@bench.command("train")
@with_common_options
def train(
    name: NameArgument,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="Epochs to measure, after one to warm up.")] = 3,
    overrides: SetOption = None,
    device: DeviceOption = "auto",
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Seconds per epoch and phase, memory, and how much of the time the matrix products alone need."""
    from flowmbpo.spec.registry import load_registry

    experiment = load_registry(registry).resolve(name, overrides or []).spec

    from flowmbpo.training.benchmark import measure_training
    from flowmbpo.training.devices import choose_device

    _show(f"training {experiment.name}", measure_training(experiment, choose_device(device), epochs), as_json)


@bench.command("log")
@with_common_options
def log(
    points: Annotated[int, typer.Option(min=1, max=100_000, help="Points to log.")] = 60,
    interval: Annotated[float, typer.Option(min=0.001, max=60.0, help="Seconds between points.")] = 0.5,
    as_json: JsonOption = False,
) -> None:
    """What logging to MLflow takes from training."""
    from flowmbpo.tracking.benchmark import measure_logging

    _show("logging", measure_logging(points, interval), as_json)


def _show(title: str, document: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        tables.print_json(document)
        return
    nested = {key: value if isinstance(value, dict) else {"": value} for key, value in document.items()}
    rows = [(f"{key}.{inner}".rstrip("."), item) for key, found in nested.items() for inner, item in found.items()]
    tables.print_table(title, ["figure", "value"], rows, right=["value"])
