"""`flowmbpo sweep`: search the values of an experiment, then train the winner with seeds that the search never saw."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import DeviceOption, JsonOption, NameArgument, RegistryOption, SetOption, TrackingOption
from flowmbpo.tracking.store import resolve_store

if TYPE_CHECKING:
    from flowmbpo.training.sweep import Found


def sweep(
    name: NameArgument,
    space: Annotated[Path, typer.Option(help="TOML file: what is searched (docs/using-results.md).")],
    trials: Annotated[
        int, typer.Option(min=1, max=100_000, help="Trials in all, those of earlier calls included.")
    ] = 20,
    seeds: Annotated[
        int, typer.Option(min=1, max=1000, help="Seeds of each trial, and as many new of the winner.")
    ] = 1,
    overrides: SetOption = None,
    device: DeviceOption = "auto",
    epochs: Annotated[int | None, typer.Option(min=1, help="Stop each run here.", show_default=False)] = None,
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search with Optuna by the real evaluation; the same command continues a search that was interrupted."""
    from flowmbpo.spec.registry import load_registry

    found = load_registry(registry)
    name = found.canonical(name)
    found.resolve(name, overrides or [])
    from flowmbpo.training.signals import plain_interrupt

    with plain_interrupt():
        from flowmbpo.api import PICTURES
        from flowmbpo.cli.progress import watcher
        from flowmbpo.training.session import RunOptions
        from flowmbpo.training.sweep import Interrupted, Sweep, read_space, search

        options = RunOptions(device, tracking_uri, epochs, None, PICTURES)
        searched = read_space(space, found, name, overrides or [])
        about = Sweep(found, name, searched, seeds, options, watcher, overrides or ())
        try:
            result = search(about, resolve_store(tracking_uri), trials, lambda text: tables.say(text))
        except Interrupted as stop:
            tables.err.print(str(stop))
            sys.exit(stop.exit_code)
    if as_json:
        tables.print_json(result.document())
    else:
        _show(name, result)


def _show(name: str, found: Found) -> None:
    keys = list(found.params)
    tables.print_table(
        f"Trials of {name}",
        ["trial", *keys, "evaluated R", "state"],
        [
            [row["number"], *(row["params"].get(key) for key in keys), row["value"], row["state"]]
            for row in found.trials
        ],
        right=["trial", "evaluated R"],
    )
    document = found.document()
    tables.print_table(
        "The winner",
        [*keys, "R on unseen seeds", "R in the search", "gap"],
        [[*found.params.values(), document["reported"], document["searched"], document["gap"]]],
        right=["R on unseen seeds", "R in the search", "gap"],
    )
    tables.err.print("R on unseen seeds is the result; R in the search is the best of many, which is partly luck.")
