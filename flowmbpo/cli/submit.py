"""`flowmbpo submit`: one job array per experiment, one task per seed, on Slurm or on this machine's own queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli.completion import run_ids
from flowmbpo.cli.options import (
    JsonOption,
    NamesArgument,
    RegistryOption,
    SetOption,
    TrackingOption,
    parse_seeds,
    refuse_with_resume,
)
from flowmbpo.cli.placement import Placement, with_placement
from flowmbpo.cli.sending import drafts_of, send
from flowmbpo.errors import UserError
from flowmbpo.runs.layout import RunFiles
from flowmbpo.tracking.store import check_database, resolve_store

if TYPE_CHECKING:
    from flowmbpo.spec.registry import Registry


@with_placement
def submit(
    names: NamesArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="Every experiment of the registry.")] = False,
    seeds: Annotated[str | None, typer.Option(help="One task per seed, as in 0,1,2. Default: 0.")] = None,
    overrides: SetOption = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Continue this run in a job.", autocompletion=run_ids)
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="With --resume: although the code or the spec has changed.")
    ] = False,
    pack: Annotated[int, typer.Option(min=1, help="Runs side by side in one job, on the same GPU or node.")] = 1,
    race: Annotated[
        bool,
        typer.Option("--race", help="Of several GPU types or partitions, queue for all; the first to start trains."),
    ] = False,
    *,
    placement: Placement,
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train experiments as jobs that continue until they are done, over time limits and requeues."""
    from flowmbpo.cluster import planning
    from flowmbpo.spec.registry import load_registry

    found = load_registry(registry)
    if resume:
        resume = RunFiles.find(resume).root.name
    chosen, seed_list = _chosen(found, names or [], everything, seeds, overrides or [], resume)
    where = placement.where()
    if where == "local" and pack > 1:
        raise UserError(
            f"--pack saves waiting in Slurm's queue; on this machine --parallel {pack} trains {pack} at once"
        )
    if where == "local" and race:
        raise UserError("--race is for several queues of Slurm, and this machine has one of its own: leave it out")
    store = resolve_store(tracking_uri)
    check_database(store)
    if resume and not (accept_changes or placement.dry_run):  # refused now, not when the queue's turn has come
        from flowmbpo.training.session import refuse_changes

        refuse_changes(resume, found.path)
    # Without a copy of the code a requeued run goes on with what is installed then.
    accept = accept_changes or not placement.snapshot
    draft = planning.drafts(where, seed_list, overrides or [], resume or "", store.uri, accept)
    drafts = drafts_of(placement, found, chosen, overrides or [], draft)
    send(drafts, placement, found, store, as_json, pack=pack, race=race)


def _chosen(
    registry: Registry, names: list[str], everything: bool, seeds: str | None, overrides: list[str], resume: str | None
) -> tuple[list[str], list[int]]:
    """Canonical names and seeds; everything that can be refused is refused here."""
    if resume:
        refuse_with_resume({"experiment names": names, "--all": everything, "--seeds": seeds, "--set": overrides})
        from flowmbpo.cluster.planning import run_to_continue

        name, seed = run_to_continue(resume)
        return [registry.canonical(name)], [seed]
    if everything and names:
        raise UserError("give experiment names or --all, not both")
    if not everything and not names:
        raise UserError("name at least one experiment or give --all; `flowmbpo list` shows them")
    return registry.names() if everything else registry.canonical_names(names), parse_seeds(None, seeds)
