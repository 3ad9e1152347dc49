"""`flowmbpo submit`: one job array per experiment, one task per seed, on Slurm or on this machine's own queue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.completion import run_ids
from flowmbpo.cli.options import (
    JsonOption,
    NamesArgument,
    RegistryOption,
    SetOption,
    TrackingOption,
    parse_seeds,
    slurm_time,
)
from flowmbpo.errors import UserError
from flowmbpo.runs.layout import RunFiles
from flowmbpo.tracking.store import Store, check_database, resolve_store

if TYPE_CHECKING:
    from flowmbpo.cli.forecast import Forecast
    from flowmbpo.cluster.planning import Plan
    from flowmbpo.cluster.request import JobRequest
    from flowmbpo.cluster.submission import Submission
    from flowmbpo.spec.registry import Registry

CLUSTERS = ("auto", "slurm", "local")


def submit(
    names: NamesArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="Every experiment of the registry.")] = False,
    seeds: Annotated[
        str | None, typer.Option(help="One task per seed, as in 0,1,2. Default: 0.", show_default=False)
    ] = None,
    overrides: SetOption = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Continue this run in a job.", autocompletion=run_ids)
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="With --resume: although the code or the spec has changed.")
    ] = False,
    cluster: Annotated[str, typer.Option(help="slurm, local, or auto: Slurm where it is installed.")] = "auto",
    cluster_file: Annotated[
        Path | None,
        typer.Option(
            envvar="FLOWMBPO_CLUSTER",
            help="Your own defaults. Default: ./cluster.toml, else ~/.config/flowmbpo/cluster.toml.",
            show_default=False,
        ),
    ] = None,
    account: Annotated[str | None, typer.Option(help="Slurm account.", show_default=False)] = None,
    partition: Annotated[str | None, typer.Option(help="Slurm partition.", show_default=False)] = None,
    constraint: Annotated[str | None, typer.Option(help="Slurm constraint.", show_default=False)] = None,
    gpu: Annotated[str | None, typer.Option(help="GPU type, as the cluster names it.", show_default=False)] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs per task.", show_default=False)] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPU cores per task.", show_default=False)] = None,
    memory: Annotated[float | None, typer.Option(help="Memory per task, GB.", show_default=False)] = None,
    limit: Annotated[
        str | None, typer.Option("--time", help="Time limit, as in 12h, 2-00:00:00 or 12:00:00.", show_default=False)
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY[=VALUE]", help="A further sbatch option, without dashes."),
    ] = None,
    parallel: Annotated[int | None, typer.Option(min=1, help="Tasks at once.", show_default=False)] = None,
    pack: Annotated[int, typer.Option(min=1, help="Runs side by side in one job, on the same GPU or node.")] = 1,
    race: Annotated[
        bool,
        typer.Option("--race", help="Of several GPU types or partitions, queue for all; the first to start trains."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="First train one epoch in a short job per kind of resource.")
    ] = False,
    snapshot: Annotated[bool, typer.Option(help="Train the code as it is now, whatever becomes of it.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the batch scripts, submit nothing.")] = False,
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train experiments as jobs that continue until they are done, over time limits and requeues."""
    from flowmbpo.cluster import disks, planning, send
    from flowmbpo.cluster.race import withdraw
    from flowmbpo.cluster.request import sbatch_options
    from flowmbpo.spec.registry import load_registry

    found = load_registry(registry)
    if resume:
        resume = RunFiles.find(resume).root.name
    chosen, seed_list = _chosen(found, names or [], everything, seeds, overrides or [], resume)
    where = _cluster(cluster, dry_run)
    if where == "local" and pack > 1:
        raise UserError(
            f"--pack saves waiting in Slurm's queue; on this machine --parallel {pack} trains {pack} at once"
        )
    if where == "local" and race:
        raise UserError("--race is for several queues of Slurm, and this machine has one of its own: leave it out")
    store = resolve_store(tracking_uri)
    check_database(store)
    asked = {
        "account": account,
        "partition": partition,
        "constraint": constraint,
        "gpu": gpu,
        "gpus": gpus,
        "cpus": cpus,
        "memory_gb": memory,
        "time_limit": slurm_time(limit),
        "options": sbatch_options(options or []),
        "parallel": parallel,
    }
    if resume and not (accept_changes or dry_run):  # refused now, not when the queue's turn has come
        from flowmbpo.training.session import refuse_changes

        refuse_changes(resume, found.path)
    # Without a copy of the code a requeued run goes on with what is installed then.
    accept = accept_changes or not snapshot
    draft = planning.drafts(where, seed_list, overrides or [], resume or "", store.uri, accept)
    plans = _plans(found, chosen, draft, cluster_file, asked, overrides or [])
    expected = {plan.draft.name: _expected(found, plan, store) for plan in plans}
    if pack > 1:
        plans = planning.pack(plans, pack)
    if dry_run:
        plans = [plan.on(request) for plan in plans for request in planning.alternatives(plan.request)]
        _preview(plans, expected, as_json)
        return
    if warning := disks.warning(store.sqlite, len(plans) * len(seed_list)):
        _warn(warning)
    if where == "slurm":
        largest = planning.largest_array()
        parts = [part for plan in plans for part in planning.split(plan, largest)]
        plans = [placed for part in parts for placed in _placed(part, race)]
    if check:
        for plan in {plan.request.model_dump_json(): plan for plan in reversed(plans)}.values():  # the first of a kind
            tables.say(f"checking {plan}: one epoch, before anything else is sent")
            send.check(plan, found.path, snapshots=snapshot)
    done: list[Submission] = []
    try:
        for plan in plans:
            done.append(send.send(plan, found.path, snapshots=snapshot))
    finally:
        for submission in done:
            for element in range(submission.elements):
                withdraw(submission, element)  # a rival may have started before this one was queued
        if done:  # also when a later one was refused
            _report(done, as_json)


# --- what is submitted -----------------------------------------------------------------------------------------------


def _chosen(
    registry: Registry, names: list[str], everything: bool, seeds: str | None, overrides: list[str], resume: str | None
) -> tuple[list[str], list[int]]:
    """Canonical names and seeds; everything that can be refused is refused here."""
    if resume:
        given = {"experiment names": names, "--all": everything, "--seeds": seeds, "--set": overrides}
        wrong = [option for option, value in given.items() if value]
        if wrong:
            raise UserError(f"--resume continues a run as it was started; leave out {', '.join(wrong)}")
        from flowmbpo.cluster.planning import run_to_continue

        name, seed = run_to_continue(resume)
        return [registry.canonical(name)], [seed]
    if everything and names:
        raise UserError("give experiment names or --all, not both")
    if not everything and not names:
        raise UserError("name at least one experiment or give --all; `flowmbpo list` shows them")
    chosen = registry.names() if everything else [registry.canonical(name) for name in names]
    return list(dict.fromkeys(chosen)), parse_seeds(None, seeds)


def _plans(
    registry: Registry,
    names: list[str],
    draft: Callable[[str, JobRequest], Submission],
    file: Path | None,
    asked: dict[str, Any],
    overrides: list[str],
) -> list[Plan]:
    from flowmbpo.cluster import request
    from flowmbpo.cluster.planning import Plan
    from flowmbpo.spec.schema import check_recorded

    mine = request.cluster_file(file)
    table = request.read_cluster_file(mine)
    plans = []
    for name in names:
        resolved = registry.resolve(name, overrides)
        check_recorded(resolved.spec.train.pretrain)
        for warning in resolved.warnings:
            _warn(str(warning))
        wanted = request.job_request(resolved.spec.resources, table, asked, str(mine))
        plans.append(Plan(draft(name, wanted), wanted))
    return plans


def _cluster(given: str, dry_run: bool) -> str:
    from flowmbpo.cluster import slurm_queue

    if given not in CLUSTERS:
        raise UserError(f"--cluster {given!r}: use {', '.join(CLUSTERS)}")
    if given == "slurm" and not dry_run and not slurm_queue.is_available():
        raise UserError("this machine has no `sbatch`; submit on a login node of the cluster, or use --cluster local")
    if given == "auto":
        return "slurm" if dry_run or slurm_queue.is_available() else "local"
    return given


# --- doing and telling -----------------------------------------------------------------------------------------------


def _placed(plan: Plan, race: bool) -> list[Plan]:
    """The plan where it starts first, or, for a race, wherever it may start."""
    from flowmbpo.cluster import planning

    if len(planning.alternatives(plan.request)) == 1:
        return [plan]
    starts = planning.expected_starts(plan)
    tables.say(f"{plan.draft.name}: expected starts, by Slurm")
    for start in starts:
        tables.say(f"  {start}")
    placed = [plan.on(start.request) for start in starts if not start.refused]
    return planning.racing(placed) if race else placed[:1]


def _expected(registry: Registry, plan: Plan, store: Store) -> Forecast:
    """How long one job of an experiment takes where it will run, which is also said."""
    from flowmbpo.cli import forecast
    from flowmbpo.cluster import planning

    draft, request = plan.draft, planning.alternatives(plan.request)[0]
    device = (request.gpu or "GPU") if request.gpus and draft.cluster == "slurm" else "cpu"
    found = forecast.announce(registry, [registry.resolve(draft.name, list(draft.overrides)).spec], device, store.uri)[
        0
    ]
    if found.seconds and draft.cluster == "slurm":
        tables.say(f"  {planning.bill(plan, found.seconds)}")
    return found


def _warn(text: str) -> None:
    tables.say(f"warning: {text}", style="yellow")


def _preview(plans: list[Plan], expected: dict[str, Forecast], as_json: bool) -> None:
    from flowmbpo.cluster import local, slurm

    drafts = [plan.draft for plan in plans]
    scripts = [
        slurm.batch_script(plan.draft, plan.request) if plan.draft.cluster == "slurm" else local.preview(plan.draft)
        for plan in plans
    ]
    if as_json:
        document = [
            {
                "name": draft.name,
                "seeds": draft.seeds,
                "cluster": draft.cluster,
                "resources": draft.request,
                "script": text,
                **expected[draft.experiment(0)].document(),
            }
            for draft, text in zip(drafts, scripts, strict=True)
        ]
        tables.print_json(document)
    else:
        typer.echo("\n".join(scripts).rstrip())


def _report(done: list[Submission], as_json: bool) -> None:
    if as_json:
        tables.print_json(
            [
                {
                    "job": submission.job_id,
                    "tasks": submission.task_ids(),
                    "name": submission.name,
                    "seeds": submission.seeds,
                    "cluster": submission.cluster,
                    "gpu": submission.request["gpu"],
                    "partition": submission.request["partition"],
                    "folder": str(submission.folder),
                }
                for submission in done
            ]
        )
        return
    rows = [[s.job_id, s.name, ", ".join(map(str, s.seeds)), s.cluster] for s in done]
    tables.print_table("Submitted", ["job", "experiment", "seeds", "cluster"], rows)
    first = done[0].task_ids()[0]
    for line in (
        "watch   flowmbpo jobs",
        f"follow  flowmbpo logs {first} -f",
        f"cancel  flowmbpo cancel {done[0].job_id}",
    ):
        tables.err.print(line, highlight=False)
