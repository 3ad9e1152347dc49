"""`flowmbpo run`: train experiments one after the other, or continue one."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.completion import run_ids
from flowmbpo.cli.options import (
    DeviceOption,
    JsonOption,
    NamesArgument,
    RegistryOption,
    SetOption,
    TrackingOption,
    parse_duration,
    parse_seeds,
    refuse_with_resume,
)
from flowmbpo.cli.problems import print_problems
from flowmbpo.errors import UserError
from flowmbpo.tracking.store import check_database, resolve_store

if TYPE_CHECKING:
    from flowmbpo.cli.forecast import Forecast
    from flowmbpo.spec.schema import Experiment
    from flowmbpo.training.result import RunResult


def run(
    names: NamesArgument = None,
    seed: Annotated[int | None, typer.Option(help="One seed. Default: 0.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Several seeds, as in 0,1,2.")] = None,
    overrides: SetOption = None,
    device: DeviceOption = "auto",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Stop after this epoch; schedules keep their length.")
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(help="Stop after this long, as in 30m; the run can be resumed.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Continue this run.", autocompletion=run_ids)
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option(help="With --resume: continue although the spec or the code has changed.")
    ] = False,
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="URL|COMMAND",
            help="Told how each run ended: a POST, or a command that reads the JSON. Default: $FLOWMBPO_NOTIFY, else "
            "`notify` in ~/.config/flowmbpo/config.toml.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, train nothing.")] = False,
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train experiments of the registry in the real simulator and track them in MLflow."""
    limit = parse_duration(time_limit) if time_limit else None
    from flowmbpo.cli.notify import check_target, usual_target

    if notify:
        check_target(notify)
    else:
        notify = usual_target()
    chosen: list[Experiment] = []
    plan: list[tuple[Experiment, int]] = []
    if resume == "":
        raise UserError("--resume needs the id of a run, or its beginning; `flowmbpo runs` shows them")
    if resume:
        refuse_with_resume(
            {"experiment names": names, "--seed": seed is not None, "--seeds": seeds, "--set": overrides}
        )
    else:
        if not names:
            raise UserError("name at least one experiment; `flowmbpo list` shows them")
        from flowmbpo.spec.registry import load_registry

        found = load_registry(registry)
        numbers = parse_seeds(seed, seeds)
        for resolved in found.to_train(names, overrides or []):
            print_problems(resolved.warnings)
            chosen.append(resolved.spec)
        plan = [(experiment, number) for experiment in chosen for number in numbers]
    if dry_run:
        _check_options(device, tracking_uri, resume)
        _check_recorded(chosen)
        from flowmbpo.cli import forecast
        from flowmbpo.tracking.provenance import gpu_names

        gpus = () if device == "cpu" else gpu_names()
        here = gpus[0].partition(",")[0] if gpus else "cpu"
        _show_plan(plan, [] if resume else forecast.announce(found, chosen, here, tracking_uri, epochs, limit), as_json)
        return

    from flowmbpo.training.signals import plain_interrupt

    results: list[RunResult] = []
    with plain_interrupt():
        from flowmbpo.api import PICTURES
        from flowmbpo.cli.progress import watcher
        from flowmbpo.training import session

        options = session.RunOptions(
            device=device, tracking_uri=tracking_uri, epochs=epochs, time_limit=limit, pictures=PICTURES
        )
        if not resume:
            from flowmbpo.cli import forecast
            from flowmbpo.training.devices import choose_device, describe

            forecast.announce(found, chosen, describe(choose_device(device)), tracking_uri, epochs, limit)
        else:
            results.append(session.resume(resume, options, watcher(), registry=registry, accept_changes=accept_changes))
            _notify(notify, results[-1])
        for begun, (experiment, number) in enumerate(plan, start=1):
            results.append(session.train(experiment, number, options, watcher(), overrides or ()))
            _notify(notify, results[-1])
            if results[-1].exit_code > 2:  # a signal ends the whole command
                from flowmbpo.spec.identity import run_name

                left = [run_name(other.name, seed) for other, seed in plan[begun:]]
                if left:
                    tables.say(f"not started: {', '.join(left)}", style="yellow")
                break
    if as_json:
        tables.print_json([result.document() for result in results])
    else:
        for result in results:
            _say(result)
    worst = max(result.exit_code for result in results)
    if worst:
        sys.exit(worst)


def _notify(target: str | None, result: RunResult) -> None:
    from flowmbpo.cli.notify import notify

    if target and (problem := notify(target, result)):
        tables.say(f"warning: nobody was notified: {problem}", style="yellow")


def _check_options(device: str, tracking_uri: str | None, resume: str | None) -> None:
    """What a dry run can tell beyond the spec. Torch is loaded only where the answer depends on it."""
    check_database(resolve_store(tracking_uri))
    if device != "auto":
        from flowmbpo.training.devices import choose_device

        choose_device(device)
    if resume:
        from flowmbpo.training.session import resumable

        resumable(resume)


def _check_recorded(experiments: Iterable[Experiment]) -> None:
    """Torch reads these files, so it is loaded only where there are any."""
    for experiment in experiments:
        if pretrain := experiment.train.pretrain:
            from flowmbpo.training.recorded import read_recorded

            read_recorded(pretrain, experiment.env, length=experiment.train.sequence_length, device="cpu")


def _show_plan(plan: list[tuple[Experiment, int]], forecasts: list[Forecast], as_json: bool) -> None:
    from flowmbpo.spec.identity import run_name, spec_hash

    expected = {one.name: one for one in forecasts}
    rows = [
        {
            "name": experiment.name,
            "seed": number,
            "run_name": run_name(experiment.name, number),
            "max_epochs": experiment.train.max_epochs,
            "spec_hash": spec_hash(experiment),
            **expected[experiment.name].document(),
        }
        for experiment, number in plan
    ]
    tables.show(rows, as_json, {"run": "run_name", "epochs": "max_epochs", "spec": "spec_hash"}, "Would train")


def _say(result: RunResult) -> None:
    """The last words of a run: what it reached and what to do next."""
    from flowmbpo.cli.progress import duration

    columns = ("epochs", "env steps", "peak R", "final R", "evaluated R", "wall time")
    rewards = (result.peak_reward, result.final_reward, result.eval_reward)
    row = (result.epochs, result.env_steps, *rewards, duration(result.wall_seconds))
    tables.print_table(f"{result.name}/seed-{result.seed}: {result.status}", columns, [row])
    if result.message:
        tables.say(result.message, style="bold")
    if result.checkpoints:
        tables.say(f"checkpoints  {result.directory}/checkpoints")
    if result.status != "FINISHED":
        tables.say(f"continue     flowmbpo run --resume {result.run_id}")
    tables.say(f"evaluate     flowmbpo eval {result.run_id}")
    tables.say(f"compare      flowmbpo compare {result.name}")
    tables.say("browse       flowmbpo ui")
    if not isinstance(result.eval_reward, float) and result.status == "FAILED":
        tables.say("no checkpoint was evaluated", style="yellow")
