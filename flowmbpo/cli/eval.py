"""`flowmbpo eval`: judge checkpoints in the real environment, and write the results beside them in MLflow."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.completion import names_and_run_ids
from flowmbpo.cli.options import JsonOption, RegistryOption, TrackingOption
from flowmbpo.cli.runs import live_runs
from flowmbpo.errors import UserError
from flowmbpo.runs import checkpoint
from flowmbpo.tracking.evaluations import EvaluationProtocol, record_evaluation
from flowmbpo.tracking.reader import Reader, open_reader, select_runs
from flowmbpo.tracking.records import CheckpointRecord, RunRecord

if TYPE_CHECKING:
    from flowmbpo.training.reevaluation import Reevaluator

DEFAULT_SEED, DEFAULT_EPISODES = 10_000, 128  # of runs whose params do not say
MOST_SUBSTEPS = 1000
Row = dict[str, Any]


def evaluate(
    selectors: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN_ID|NAME]...",
            help="Runs, or all runs of an experiment.",
            show_default=False,
            autocompletion=names_and_run_ids,
        ),
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
            show_default=False,
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
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate the deterministic policy of checkpoints over full episodes of the real simulator, from fixed seeds."""
    if not selectors and not rerun_all:
        raise UserError("name runs or experiments, or give --rerun-all; `flowmbpo runs` lists what there is")
    counts = _whole_numbers(substeps)
    if integrator is not None and not counts:
        raise UserError("--integrator needs --substeps, as in --substeps 1,2,4")
    reader = open_reader(tracking_uri)
    live_runs(tracking_uri)  # marks runs whose process is gone
    known = reader.runs()
    runs = known
    if selectors:
        runs = list({run.run_id: run for group in select_runs(known, selectors).values() for run in group}.values())
    chosen = _choose(reader, runs, "all" if rerun_all else which)
    if not chosen:
        raise UserError(f"no checkpoint to evaluate: {', '.join(run.run_id for run in runs) or 'the store'} has none")

    from flowmbpo.training.devices import choose_device
    from flowmbpo.training.reevaluation import Reevaluator

    if counts:
        schemes = integrator.split(",") if integrator else []
        rows = [
            row for pair in chosen for row in _schemes(reader, *pair, episodes, counts, schemes, choose_device(device))
        ]
    else:
        rows = _evaluate_all(reader, chosen, Reevaluator(choose_device(device)), episodes, skip_current=rerun_all)
    if as_json:
        tables.print_json(rows)
    elif counts:
        _print_schemes(rows)
    else:
        _print(rows)
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
            tables.err.print(
                f"{run.run_name} ({run.run_id}) has no checkpoint", markup=False, highlight=False, soft_wrap=True
            )
            continue
        chosen += [(run, candidate) for candidate in checkpoint.select(candidates, which)]
    return chosen


def _evaluate_all(
    reader: Reader,
    chosen: Sequence[tuple[RunRecord, CheckpointRecord]],
    reevaluator: Reevaluator,
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
            rows.append(_evaluate_one(reader, run, found, reevaluator, episodes, skip_current=skip_current))
            progress.advance(task)
    return rows


def _evaluate_one(
    reader: Reader,
    run: RunRecord,
    found: CheckpointRecord,
    reevaluator: Reevaluator,
    episodes: int | None,
    *,
    skip_current: bool,
) -> Row:
    """One row of the result; a broken checkpoint is a row with its error."""
    from flowmbpo.runs.files import BrokenFile
    from flowmbpo.tracking.mlflow_artifacts import checkpoint_folder
    from flowmbpo.training.evaluator import protocol

    if episodes is None and skip_current:
        episodes = run.whole_param("evaluation.episodes")
    seed = run.whole_param("evaluation.seed")
    how = protocol(DEFAULT_SEED if seed is None else seed, episodes or DEFAULT_EPISODES)
    if skip_current and how.was_used_for(found):
        return _row(run, found, how, dict(found.metrics), skipped=True)
    try:
        with checkpoint_folder(reader.store, found) as folder:
            metrics = reevaluator(folder, how).metrics()
    except (BrokenFile, FileNotFoundError) as error:
        tables.err.print(
            f"{run.run_name} {found.name}: {error}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )
        return _row(run, found, how, {}, error=str(error))
    record_evaluation(reader.store, run, found, metrics, how)
    return _row(run, found, how, metrics)


def _whole_numbers(text: str | None) -> list[int]:
    """`1,2,4` as numbers. Raises UserError."""
    parts = [] if text is None else text.split(",")
    if any(not part.strip().isdecimal() or not 1 <= int(part) <= MOST_SUBSTEPS for part in parts):
        raise UserError(f"--substeps {text}: allowed are whole numbers from 1 to {MOST_SUBSTEPS}, as in 1,2,4,8")
    return [int(part) for part in parts]


def _schemes(
    reader: Reader,
    run: RunRecord,
    found: CheckpointRecord,
    episodes: int | None,
    substeps: Sequence[int],
    integrators: Sequence[str],
    device: str,
) -> Iterator[Row]:
    """One row for each scheme of one checkpoint; a broken checkpoint is one row with its error."""
    from flowmbpo.runs.files import BrokenFile
    from flowmbpo.tracking.mlflow_artifacts import checkpoint_folder
    from flowmbpo.training.evaluator import protocol
    from flowmbpo.training.schemes import judge_schemes

    seed = run.whole_param("evaluation.seed")
    how = protocol(DEFAULT_SEED if seed is None else seed, episodes or DEFAULT_EPISODES)
    try:
        with checkpoint_folder(reader.store, found) as folder:
            for judged in judge_schemes(folder, how, substeps, integrators, device):
                scores = {key.removeprefix("model/"): value for key, value in judged.items() if "eval/" not in key}
                yield _row(run, found, how, judged) | scores
    except (BrokenFile, FileNotFoundError) as error:
        yield _row(run, found, how, {}, error=str(error)) | {"integrator": None, "substeps": None}


def _row(
    run: RunRecord,
    found: CheckpointRecord,
    how: EvaluationProtocol,
    metrics: dict[str, float],
    *,
    skipped: bool = False,
    error: str | None = None,
) -> Row:
    figures = {name.removeprefix("eval/"): value for name, value in metrics.items() if name.startswith("eval/")}
    expected = ("mean_reward", "std_reward", "mean_length", "model_predicted_reward")
    return {
        "run_id": run.run_id,
        "name": run.name,
        "seed": run.seed,
        "checkpoint": found.name,
        "epoch": found.epoch,
        "episodes": how.episodes,
        **dict.fromkeys(expected),
        **figures,
        "skipped": skipped,
        "error": error,
    }


def _print_schemes(rows: Sequence[Row]) -> None:
    columns = {
        "evaluations": "evaluations_per_step",
        "error, 1 step": "latent_error_1_relative",
        "error, 16 steps": "latent_error_16_relative",
        "energy score": "energy_score_relative",
        "after 16": "energy_score_16_relative",
        "in 50%": "coverage_50",
        "in 90%": "coverage_90",
        "mean R": "mean_reward",
    }
    tables.print_table(
        "One trained model under several schemes; errors and energy scores over those of no change",
        ["run", "checkpoint", "scheme", *columns, ""],
        [
            [
                f"{row['name']}/seed-{row['seed']}",
                row["checkpoint"],
                f"{row['integrator']} {row['substeps']}",
                *(row.get(key) for key in columns.values()),
                row["error"] or "",
            ]
            for row in rows
        ],
        right=[*columns],
    )


def _print(rows: Sequence[Row]) -> None:
    columns = {
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
    tables.print_table(
        "Deterministic policy, real environment, full episodes",
        ["run", "checkpoint", "episodes", *columns, ""],
        [
            [
                f"{row['name']}/seed-{row['seed']}",
                row["checkpoint"],
                row["episodes"],
                *(row.get(key) for key in columns.values()),
                row["error"] or ("up to date" if row["skipped"] else ""),
            ]
            for row in rows
        ],
        right=["episodes", *columns],
    )
    warning = "The model's guess is what the world model predicts for the same episodes. It is not the result."
    tables.err.print(warning, soft_wrap=True)
