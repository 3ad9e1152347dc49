"""`flowmbpo sweep`: search the values of an experiment, then train the winner with seeds that the search never saw."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import DeviceOption, JsonOption, NameArgument, RegistryOption, SetOption, TrackingOption
from flowmbpo.cli.placement import Placement, with_placement
from flowmbpo.cli.problems import print_problems
from flowmbpo.cli.sending import drafts_of, send
from flowmbpo.errors import UserError
from flowmbpo.tracking.store import check_database, resolve_store

if TYPE_CHECKING:
    from flowmbpo.cli.sending import Draft
    from flowmbpo.cluster.request import JobRequest
    from flowmbpo.cluster.submission import Submission
    from flowmbpo.training.sweep import Found


@with_placement
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
    epochs: Annotated[int | None, typer.Option(min=1, help="Stop each run here.")] = None,
    submitted: Annotated[
        bool, typer.Option("--submit", help="Search in jobs, --parallel N at once; the options below are theirs.")
    ] = False,
    *,
    placement: Placement,
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search with Optuna by the real evaluation; the same command continues a search that was interrupted."""
    from flowmbpo.spec.registry import load_registry

    found = load_registry(registry)
    name, overrides = found.canonical(name), overrides or []
    warnings = found.resolve(name, overrides).warnings
    from flowmbpo.training.search_space import read_space

    searched = read_space(space, found, name, overrides)
    if submitted:
        from flowmbpo.cluster import planning
        from flowmbpo.training.study import require_optuna

        if device != "auto":
            raise UserError("--device is for this process; with --submit a job's device follows from --gpus")
        limits = [] if epochs is None else ["--epochs", str(epochs)]
        arguments = ("--trials", str(trials), "--seeds", str(seeds), *limits)
        require_optuna()
        store = resolve_store(tracking_uri)
        check_database(store)
        usual = planning.drafts(placement.where(), (0,), overrides, "", store.uri)
        worker = _worker(usual, space, trials, arguments)
        jobs = drafts_of(placement, found, [name], overrides, worker)
        send(jobs, placement, found, store, as_json, epochs=epochs)
        return
    if placement != Placement(cluster_file=placement.cluster_file, dry_run=placement.dry_run):
        raise UserError("the options of jobs need --submit; without it the search runs in this process")
    print_problems(warnings)
    from flowmbpo.training.signals import plain_interrupt

    with plain_interrupt():
        from flowmbpo.api import PICTURES
        from flowmbpo.cli.progress import watcher
        from flowmbpo.training.session import RunOptions
        from flowmbpo.training.sweep import Interrupted, Sweep, search

        options = RunOptions(device, tracking_uri, epochs, None, PICTURES)
        about = Sweep(found, name, searched, seeds, options, watcher, overrides)
        try:
            result = search(about, resolve_store(tracking_uri), trials, tables.say, train=not placement.dry_run)
        except Interrupted as stop:
            tables.err.print(str(stop))
            sys.exit(stop.exit_code)
    if as_json:
        tables.print_json(result.document())
    else:
        _show(name, result)


def _worker(usual: Draft, space: Path, trials: int, arguments: tuple[str, ...]) -> Draft:
    """What makes of a request an array of workers, each of which is this command."""

    def draft(name: str, request: JobRequest) -> Submission:
        workers = range(min(trials, request.parallel or 1))
        return replace(
            usual(f"{name}-sweep", request),
            names=(name,) * len(workers),
            seeds=tuple(workers),
            sweep=arguments,
            space=space.read_text(encoding="utf-8"),
        )

    return draft


def _show(name: str, found: Found) -> None:
    keys = list(found.trials[0]["params"]) if found.trials else []
    tables.print_table(
        f"Trials of {name}",
        ["trial", *keys, "evaluated R", "state"],
        [
            [row["number"], *(row["params"].get(key) for key in keys), row["value"], row["state"]]
            for row in found.trials
        ],
        right=["trial", "evaluated R"],
    )
    if found.interrupted:
        tables.say(
            f"{found.interrupted} trial(s) or runs of the winner were interrupted; the same command without --dry-run "
            "goes on with them"
        )
    if active := found.unfinished - found.interrupted:
        tables.say(
            f"{active} trial(s) or runs of the winner are trained by other processes; when those have ended, the same "
            "command shows the result (`flowmbpo jobs` lists jobs)"
        )
    if found.searched is None:
        return
    document = found.document()
    tables.print_table(
        "The winner",
        [*keys, "R on unseen seeds", "R in the search", "gap"],
        [[*(found.params[key] for key in keys), document["reported"], document["searched"], document["gap"]]],
        right=["R on unseen seeds", "R in the search", "gap"],
    )
    tables.err.print("R on unseen seeds is the result; R in the search is the best of many, which is partly luck.")
