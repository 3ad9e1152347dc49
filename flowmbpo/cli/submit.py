"""`flowmbpo submit`: one job array per experiment, one task per seed, on Slurm or on this machine's own queue."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.completion import experiment_names, run_ids, spec_keys
from flowmbpo.cli.options import JsonOption, RegistryOption, TrackingOption, parse_duration, parse_seeds
from flowmbpo.errors import UserError
from flowmbpo.runs.layout import RunFiles
from flowmbpo.spec.registry import Registry, load_registry
from flowmbpo.tracking.store import Store, check_database, resolve_store

if TYPE_CHECKING:
    from flowmbpo.cli.forecast import Forecast
    from flowmbpo.cluster.request import JobRequest
    from flowmbpo.cluster.submission import Submission

CLUSTERS = ("auto", "slurm", "local")


def submit(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Experiments or aliases.", show_default=False, autocompletion=experiment_names),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every experiment of the registry.")] = False,
    seeds: Annotated[
        str | None, typer.Option(help="One task per seed, as in 0,1,2. Default: 0.", show_default=False)
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the spec.", autocompletion=spec_keys),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Continue this run in a job.", autocompletion=run_ids)
    ] = None,
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the batch scripts, submit nothing.")] = False,
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train experiments as jobs that continue until they are done, over time limits and requeues."""
    found = load_registry(registry)
    if resume:
        resume = RunFiles.find(resume).root.name
    chosen, seed_list = _chosen(found, names or [], everything, seeds, overrides or [], resume)
    where = _cluster(cluster, dry_run)
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
        "time_limit": _slurm_time(limit),
        "options": _options(options or []),
        "parallel": parallel,
    }
    plans = _plans(found, chosen, overrides or [], cluster_file, asked)
    drafts = [_draft(name, where, seed_list, overrides or [], resume, store, request) for name, request in plans]
    expected = [_expected(found, name, overrides or [], request, where, store) for name, request in plans]
    if dry_run:
        _preview(drafts, [request for _, request in plans], expected, as_json)
        return
    _warn_about_store(store, len(drafts) * len(seed_list))
    done: list[Submission] = []
    try:
        for draft, (_, request) in zip(drafts, plans, strict=True):
            done.append(_send(draft, request, found))
    finally:
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
        name, seed = _run_to_continue(resume)
        return [registry.canonical(name)], [seed]
    if everything and names:
        raise UserError("give experiment names or --all, not both")
    if not everything and not names:
        raise UserError("name at least one experiment or give --all; `flowmbpo list` shows them")
    chosen = registry.names() if everything else [registry.canonical(name) for name in names]
    return list(dict.fromkeys(chosen)), parse_seeds(None, seeds)


def _run_to_continue(run_id: str) -> tuple[str, int]:
    """Name and seed of a run of this directory."""
    from flowmbpo.cluster.task import birth, resumable_epoch

    folder = RunFiles.of(run_id).root
    tags, _ = birth(folder)
    if not tags:
        raise UserError(
            f"{folder} holds no run: continue a run in the directory where it was started (`flowmbpo runs`)"
        )
    if resumable_epoch(folder) is None:
        raise UserError(f"run {run_id} has no state to continue from; submit {tags['flowmbpo.name']} again instead")
    return tags["flowmbpo.name"], int(tags["flowmbpo.seed"])


def _plans(
    registry: Registry, names: list[str], overrides: list[str], file: Path | None, asked: dict[str, Any]
) -> list[tuple[str, JobRequest]]:
    from flowmbpo.cluster import request

    mine = request.cluster_file(file)
    table = request.read_cluster_file(mine)
    plans = []
    for name in names:
        resolved = registry.resolve(name, overrides)
        for warning in resolved.warnings:
            tables.err.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        plans.append((name, request.job_request(resolved.spec.resources, table, asked, str(mine))))
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


def _slurm_time(text: str | None) -> str | None:
    if text is None or "-" in text:
        return text
    seconds = int(parse_duration(text))
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _options(given: list[str]) -> dict[str, str | bool] | None:
    parsed: dict[str, str | bool] = {}
    for text in given:
        key, equals, value = text.lstrip("-").partition("=")
        if not key:
            raise UserError(f"--option {text!r}: write KEY or KEY=VALUE, as in --option exclude=node07")
        parsed[key] = value if equals else True
    return parsed or None


def _draft(
    name: str,
    cluster: str,
    seeds: list[int],
    overrides: list[str],
    resume: str | None,
    store: Store,
    request: JobRequest,
) -> Submission:
    from flowmbpo.cluster.submission import Submission
    from flowmbpo.runs.layout import JOBS

    return Submission(
        folder=(JOBS / f"dry-run-{name}").absolute(),
        cluster="slurm" if cluster == "slurm" else "local",
        name=name,
        seeds=tuple(seeds),
        directory=Path.cwd(),
        tracking_uri=store.uri,
        overrides=tuple(overrides),
        resume=resume or "",
        request=request.document(),
    )


# --- doing and telling -----------------------------------------------------------------------------------------------


def _send(draft: Submission, request: JobRequest, registry: Registry) -> Submission:
    from dataclasses import replace

    from flowmbpo.cluster import local, slurm
    from flowmbpo.cluster.submission import new_folder

    submission = replace(draft, folder=new_folder(draft.name), submitted_at=time.time())
    shutil.copyfile(registry.path, submission.files.registry)
    try:
        return slurm.submit(submission, request) if submission.cluster == "slurm" else local.submit(submission)
    except Exception:
        shutil.rmtree(submission.folder, ignore_errors=True)  # nothing was taken, nothing is kept
        raise


def _expected(
    registry: Registry, name: str, overrides: list[str], request: JobRequest, cluster: str, store: Store
) -> Forecast:
    """How long one job of an experiment takes where it will run, which is also said."""
    from flowmbpo.cli import forecast

    device = (request.gpu or "GPU") if request.gpus and cluster == "slurm" else "cpu"
    return forecast.announce(registry, [registry.resolve(name, overrides).spec], device, store.uri)[0]


def _preview(drafts: list[Submission], requests: list[JobRequest], expected: list[Forecast], as_json: bool) -> None:
    from flowmbpo.cluster import local, slurm

    scripts = [
        slurm.batch_script(draft, request) if draft.cluster == "slurm" else local.preview(draft)
        for draft, request in zip(drafts, requests, strict=True)
    ]
    if as_json:
        document = [
            {
                "name": draft.name,
                "seeds": draft.seeds,
                "cluster": draft.cluster,
                "resources": draft.request,
                "script": text,
                **one.document(),
            }
            for draft, text, one in zip(drafts, scripts, expected, strict=True)
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


def _warn_about_store(store: Store, tasks: int) -> None:
    from flowmbpo.cluster.disks import network_type

    kind = network_type(store.sqlite) if store.sqlite else ""
    if kind:
        tables.err.print(
            f"warning: {store.sqlite} is a sqlite file on a network disk ({kind}) and {tasks} task(s) write to it: "
            "file locks there are slow at best and lose data at worst. Start an MLflow server and set "
            "MLFLOW_TRACKING_URI=http://HOST:PORT (see docs/cluster.md); metrics are kept on disk while it is away.",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
