"""`flowmbpo eval`: judge checkpoints in the real environment, and write the results beside them in MLflow."""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import SELECTS_RUNS, DeviceOption, JsonOption, RegistryOption, TrackingOption, parse_list
from flowmbpo.errors import UserError
from flowmbpo.runs import checkpoint
from flowmbpo.tracking.reader import Reader, open_reader, select_runs
from flowmbpo.tracking.records import CheckpointRecord, RunRecord
from flowmbpo.tracking.recovery import current_runs

if TYPE_CHECKING:
    from flowmbpo.training.reevaluation import Reevaluation, Reevaluator

_SUBSTEPS, _WRITE = r"[1-9]\d{0,2}|1000", "a whole number from 1 to 1000, as in --substeps 1,2,4,8"
Row = dict[str, object]


def evaluate(
    selectors: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN_ID|NAME]...", help="Runs, or all runs of an experiment.", **SELECTS_RUNS),
    ] = None,
    rerun_all: Annotated[
        bool, typer.Option("--rerun-all", help="Every checkpoint of every run whose evaluation is not up to date.")
    ] = False,
    episodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Full episodes, all at once. Default: 128; with --rerun-all as many as the run's own evaluations.",
        ),
    ] = None,
    which: Annotated[str, typer.Option("--checkpoint", help="best, last, all or an epoch.")] = "best",
    substeps: Annotated[
        str | None,
        typer.Option(help="Judge a flow at these numbers of substeps, as in 1,2,4,8; nothing is trained or recorded."),
    ] = None,
    integrator: Annotated[
        str | None, typer.Option(help="With --substeps: schemes, as in euler,heun; by default the trained one.")
    ] = None,
    device: DeviceOption = "auto",
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate the deterministic policy of checkpoints over full episodes of the real simulator, from fixed seeds."""
    if not selectors and not rerun_all:
        raise UserError("name runs or experiments, or give --rerun-all; `flowmbpo runs` lists what there is")
    counts = [int(part) for part in parse_list("--substeps", substeps, _SUBSTEPS, _WRITE)] if substeps else []
    if integrator is not None and not counts:
        raise UserError("--integrator needs --substeps, as in --substeps 1,2,4")
    reader = open_reader(tracking_uri)
    known = current_runs(reader)
    runs = select_runs(known, selectors) if selectors else known
    chosen = _choose(reader, runs, "all" if rerun_all else which)
    if not chosen:
        raise UserError(f"no checkpoint to evaluate: {', '.join(run.run_id for run in runs) or 'the store'} has none")

    from flowmbpo.training.devices import choose_device
    from flowmbpo.training.reevaluation import DEFAULT_EPISODES, Reevaluator

    reevaluate = Reevaluator(reader.store, choose_device(device))
    if counts:
        schemes = integrator.split(",") if integrator else []
        rows = [_row(each) for pair in chosen for each in reevaluate.schemes(*pair, episodes, counts, schemes)]
    else:
        if episodes is None and not rerun_all:
            episodes = DEFAULT_EPISODES
        rows = _evaluate_all(chosen, reevaluate, episodes, skip_current=rerun_all)
    if as_json:
        tables.print_json(rows)
    else:
        _print(rows, schemes=bool(counts))
    if any(row["error"] for row in rows):
        sys.exit(1)


def _choose(reader: Reader, runs: Sequence[RunRecord], which: str) -> list[tuple[RunRecord, CheckpointRecord]]:
    """The wanted checkpoints of each run."""
    by_run: dict[str, list[CheckpointRecord]] = {}
    for found in reader.checkpoints(runs):
        by_run.setdefault(found.run_id, []).append(found)
    chosen = []
    for run in runs:
        candidates = by_run.get(run.run_id, [])
        if not candidates:
            tables.say(f"{run.run_name} ({run.run_id}) has no checkpoint")
            continue
        chosen += [(run, candidate) for candidate in checkpoint.select(candidates, which)]
    return chosen


def _evaluate_all(
    chosen: Sequence[tuple[RunRecord, CheckpointRecord]],
    reevaluate: Reevaluator,
    episodes: int | None,
    *,
    skip_current: bool,
) -> list[Row]:
    from rich.progress import Progress

    rows = []
    with Progress(console=tables.err, disable=not tables.on_terminal(tables.err)) as progress:
        task = progress.add_task("evaluating", total=len(chosen))
        for run, found in chosen:
            progress.update(task, description=f"{run.run_name} {found.name}")
            result = reevaluate(run, found, episodes, skip_current=skip_current)
            if result.error:
                tables.say(f"{run.run_name} {found.name}: {result.error}", style="yellow")
            rows.append(_row(result))
            progress.advance(task)
    return rows


def _row(result: Reevaluation) -> Row:
    expected = ("mean_reward", "std_reward", "mean_length", "model_predicted_reward")
    return {
        "run_id": result.run.run_id,
        "name": result.run.name,
        "seed": result.run.seed,
        "checkpoint": result.checkpoint.name,
        "epoch": result.checkpoint.epoch,
        "episodes": result.how.episodes,
        **dict.fromkeys(expected),
        **{name.removeprefix("eval/").removeprefix("model/"): value for name, value in result.metrics.items()},
        "skipped": result.skipped,
        "error": result.error,
    }


_RESULTS = {
    "mean R": "mean_reward",
    "± std": "std_reward",
    "median": "median_reward",
    "5 %": "q05_reward",
    "95 %": "q95_reward",
    "length": "mean_length",
    "falls": "fall_share",
    "m/s": "forward_speed",
    "model's guess": "model_predicted_reward",
}
_SCHEMES = {
    "evaluations": "evaluations_per_step",
    "error, 1 step": "latent_error_1_relative",
    "error, 16 steps": "latent_error_16_relative",
    "energy score": "energy_score_relative",
    "after 16": "energy_score_16_relative",
    "in 50%": "coverage_50",
    "in 90%": "coverage_90",
    "mean R": "mean_reward",
}


def _print(rows: Sequence[Row], *, schemes: bool) -> None:
    run: tables.Columns = {"run": lambda row: f"{row['name']}/seed-{row['seed']}", "checkpoint": "checkpoint"}
    remarked = any(row["error"] or row["skipped"] for row in rows)
    end: tables.Columns = {"": lambda row: row["error"] or ("up to date" if row["skipped"] else "")} if remarked else {}
    what: tables.Columns = {"episodes": "episodes"}
    title, figures = "Deterministic policy, real environment, full episodes", _RESULTS
    if schemes:
        title = "One trained model under several schemes; errors and energy scores over those of no change"
        what, figures = {"scheme": lambda row: f"{row['integrator']} {row['substeps']}"}, _SCHEMES
    measured: tables.Columns = {heading: operator.methodcaller("get", key) for heading, key in figures.items()}
    tables.show(rows, False, {**run, **what, **measured, **end}, title)
    if not schemes:
        tables.say("The model's guess is what the world model predicts for the same episodes. It is not the result.")
