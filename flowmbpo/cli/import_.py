"""`flowmbpo import`: curves that another program logged become a run, shown as a reference beside ours."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import JsonOption, RegistryOption, TrackingOption, parse_pairs
from flowmbpo.errors import UserError
from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.store import check_store, resolve_store


def import_run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A CSV or JSON file, a TensorBoard file or folder, a W&B folder or history, mlruns, or an MLflow URI.",
        ),
    ],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Name of the reference; no experiment's.")],
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="OURS=THEIRS",
            help="What a foreign name is here: a metric, env_steps or seconds. Names that are ours need none.",
        ),
    ] = None,
    steps_per: Annotated[
        float, typer.Option(min=1e-6, help="Environment steps per step of the logger, where no column has them.")
    ] = 1.0,
    run: Annotated[str | None, typer.Option(help="Which run of an MLflow store.")] = None,
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import the curves of another program as a finished run with its origin, compared and drawn as a reference."""
    from flowmbpo.spec.registry import load_registry

    known = load_registry(registry)
    if name in known.names() or name in known.aliases:
        raise UserError(f"{name!r} is an experiment of the registry; an imported run is a reference, name it otherwise")
    from pydantic import TypeAdapter, ValidationError

    from flowmbpo.spec.sections import Name

    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise UserError(f"--as {name!r}: use 1 to 64 letters, digits and . _ + - , first a letter or digit") from None
    given = parse_pairs("--map ", columns or (), "OURS=THEIRS, as in train/episode_reward=reward")

    from flowmbpo.tracking.foreign_logs import read_log
    from flowmbpo.tracking.mlflow_import import Mapped, import_log, read_store

    folder = source.removeprefix("file://").removeprefix("file:")
    log = read_store(source, run) if "://" in folder else read_log(Path(folder), run)
    store = resolve_store(tracking_uri)
    runs = open_reader(store).runs() if check_store(store) else []
    done = import_log(store, runs, log, source, name, seed, Mapped(given, steps_per))
    if as_json:
        tables.print_json(asdict(done))
    else:
        said = "imported" if done.new else "was there already"
        tables.say(
            f"{name}/seed-{seed} {said}: {done.points:,} points of {', '.join(done.metrics)} over {done.env_steps:,} "
            f"environment steps. Compare with: flowmbpo compare {name}"
        )
