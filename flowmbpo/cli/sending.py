"""What a command submits: made of its options, shown, sent, reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.placement import Placement
from flowmbpo.cli.problems import print_problems
from flowmbpo.tracking.store import Store

if TYPE_CHECKING:
    from flowmbpo.cli.forecast import Forecast
    from flowmbpo.cluster.request import JobRequest
    from flowmbpo.cluster.submission import Submission
    from flowmbpo.spec.registry import Registry

    Draft = Callable[[str, JobRequest], Submission]  # of an experiment's name and what its job asks for


def drafts_of(
    placement: Placement,
    registry: Registry,
    names: Sequence[str],
    overrides: Sequence[str],
    draft: Draft,
) -> list[Submission]:
    """One for each experiment; what it asks for is the registry's, the user's file's and the options'."""
    from flowmbpo.cluster import request

    mine = request.cluster_file(placement.cluster_file)
    table, asked = request.read_cluster_file(mine), placement.asked()
    drafts = []
    for resolved in registry.to_train(names, overrides):
        print_problems(resolved.warnings)
        drafts.append(draft(resolved.spec.name, request.job_request(resolved.spec.resources, table, asked, str(mine))))
    return drafts


def send(
    drafts: list[Submission],
    placement: Placement,
    registry: Registry,
    store: Store,
    as_json: bool,
    *,
    pack: int = 1,
    race: bool = False,
    epochs: int | None = None,
) -> None:
    """Submit the drafts, or print them for a dry run."""
    from flowmbpo.cluster import disks, planning
    from flowmbpo.cluster import send as sender
    from flowmbpo.cluster.race import withdraw

    expected = {draft.tasks[0].experiment: _expected(registry, draft, store, epochs) for draft in drafts}
    if pack > 1:
        drafts = planning.pack(drafts, pack)
    if placement.dry_run:
        drafts = [replace(draft, request=one) for draft in drafts for one in planning.alternatives(draft.request)]
        _preview(drafts, expected, as_json)
        return
    if warning := disks.warning(store.sqlite, sum(len(draft.seeds) for draft in drafts)):
        _warn(warning)
    if drafts[0].cluster == "slurm":
        largest = planning.largest_array()
        parts = [part for draft in drafts for part in planning.split(draft, largest)]
        drafts = [placed for part in parts for placed in _placed(part, race)]
    if placement.check:
        for draft in {planning.kind(draft): draft for draft in reversed(drafts)}.values():  # the first of a kind
            where = f"{draft.name} on {planning.place(draft.request)}"
            tables.say(f"checking {where}: one epoch, before anything else is sent")
            sender.check(draft, registry.path, snapshots=placement.snapshot)
    done: list[Submission] = []
    try:
        for draft in drafts:
            done.append(sender.send(draft, registry.path, snapshots=placement.snapshot))
    finally:
        for submission in done:
            for element in range(submission.elements):
                withdraw(submission, element)  # a rival may have started before this one was queued
        if done:  # also when a later one was refused
            _report(done, as_json)


def _placed(draft: Submission, race: bool) -> list[Submission]:
    """The draft where it starts first, or, for a race, wherever it may start."""
    from flowmbpo.cluster import planning

    if len(planning.alternatives(draft.request)) == 1:
        return [draft]
    starts = planning.expected_starts(draft)
    tables.say(f"{draft.name}: expected starts, by Slurm")
    for start in starts:
        tables.say(f"  {start}")
    placed = [replace(draft, request=start.request) for start in starts if not start.refused]
    return planning.racing(placed) if race else placed[:1]


def _expected(registry: Registry, draft: Submission, store: Store, epochs: int | None) -> Forecast:
    """How long one job of an experiment takes where it will run, which is also said."""
    from flowmbpo.cli import forecast
    from flowmbpo.cluster import planning

    request = planning.alternatives(draft.request)[0]
    device = (request.gpu or "GPU") if request.gpus and draft.cluster == "slurm" else "cpu"
    spec = registry.resolve(draft.tasks[0].experiment, list(draft.overrides)).spec
    found = forecast.announce(registry, [spec], device, store.uri, epochs)[0]
    if draft.sweep:
        tables.say("  that is one run; a search trains trials times seeds of them, and then the winner")
    elif found.seconds and draft.cluster == "slurm":
        tables.say(f"  {planning.bill(draft, found.seconds)}")
    return found


def _warn(text: str) -> None:
    tables.say(f"warning: {text}", style="yellow")


def _preview(drafts: list[Submission], expected: dict[str, Forecast], as_json: bool) -> None:
    from flowmbpo.cluster import local, slurm

    scripts = [slurm.batch_script(one) if one.cluster == "slurm" else local.preview(one) for one in drafts]
    if as_json:
        document = [
            {
                "name": draft.name,
                "seeds": draft.seeds,
                "cluster": draft.cluster,
                "resources": draft.request.document(),
                "script": text,
                **expected[draft.tasks[0].experiment].document(),
            }
            for draft, text in zip(drafts, scripts, strict=True)
        ]
        tables.print_json(document)
    else:
        typer.echo("\n".join(scripts).rstrip())


def _report(done: list[Submission], as_json: bool) -> None:
    rows = [
        {
            "job": submission.job_id,
            "tasks": [task.id for task in submission.tasks],
            "name": submission.name,
            "seeds": submission.seeds,
            "cluster": submission.cluster,
            "gpu": submission.request.gpu,
            "partition": submission.request.partition,
            "folder": str(submission.folder),
        }
        for submission in done
    ]
    columns = {"job": "job", "experiment": "name", "seeds": "seeds", "cluster": "cluster"}
    tables.show(rows, as_json, columns, "Submitted")
    if as_json:
        return
    tables.say("watch   flowmbpo jobs")
    tables.say(f"follow  flowmbpo logs {done[0].tasks[0].id} -f")
    tables.say(f"cancel  flowmbpo cancel {done[0].job_id}")
