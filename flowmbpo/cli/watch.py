"""`flowmbpo watch`: the curve of one run while it is trained in another process; plain lines on a pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

import typer

from flowmbpo.cli import curve, streams, tables
from flowmbpo.cli.options import RunArgument, TrackingOption
from flowmbpo.cli.patience import patiently
from flowmbpo.cli.progress import duration
from flowmbpo.tracking.metrics import ENV_STEPS_PER_SECOND, EPISODE_REWARD, EPOCH, EVALUATED_REWARD
from flowmbpo.tracking.reader import Reader, open_reader, select_run
from flowmbpo.tracking.records import RunRecord
from flowmbpo.tracking.recovery import current_runs

METRICS = (EPISODE_REWARD, EPOCH, ENV_STEPS_PER_SECOND, EVALUATED_REWARD)
_HEIGHT = 14


def watch(
    run: RunArgument,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    tracking_uri: TrackingOption = None,
) -> None:
    """Follow one run until it ends."""
    reader = open_reader(tracking_uri)
    found = select_run(current_runs(reader), run)
    if tables.on_terminal(tables.out):
        _live(reader, found, interval)
    else:
        _lines(reader, found, interval)


def _looks(reader: Reader, run: RunRecord, interval: float) -> Iterator[RunRecord]:
    """The run now and again, until it has ended or nobody reads any more."""
    yield run
    while run.status == "RUNNING" and not streams.nobody_reads():
        time.sleep(interval)
        run = select_run(patiently(interval, current_runs, reader), run.run_id)
        yield run


def _live(reader: Reader, run: RunRecord, interval: float) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(console=tables.out, auto_refresh=False) as display:
        for look in _looks(reader, run, interval):
            width = max(20, tables.out.width - 1)
            shown = patiently(interval, points, reader, look)
            display.update(Text("\n".join([headline(look), *curve.draw(shown, width, _HEIGHT)])), refresh=True)


def _lines(reader: Reader, run: RunRecord, interval: float) -> None:
    """One line per point of R, in between how far a long phase is, then one for the end."""
    shown, phase = -1, ""
    for look in _looks(reader, run, interval):
        frame = patiently(interval, reader.curves, [look], METRICS)
        table = frame[frame["step"] > shown].pivot(index="step", columns="metric", values="value")
        for row in table.reset_index().to_dict("records"):
            if row.get(EPISODE_REWARD) == row.get(EPISODE_REWARD) or row.get(EVALUATED_REWARD) == row.get(
                EVALUATED_REWARD
            ):
                typer.echo(line(int(row["step"]), row))
            shown = int(row["step"])
        if look.phase != phase:
            phase = look.phase
            if phase:
                typer.echo(phase)
        if look.status != "RUNNING":
            typer.echo(headline(look))


def points(reader: Reader, run: RunRecord) -> list[curve.Point]:
    """(env steps, R) of the training curve."""
    frame = reader.curves([run], [EPISODE_REWARD])
    return list(zip(frame["step"].tolist(), frame["value"].tolist(), strict=True))


def headline(run: RunRecord) -> str:
    parts = [f"{run.name} seed {run.seed}", run.run_id[:12], run.status]
    if run.epoch is not None:
        parts.append(f"epoch {run.epoch}" + (f" of {run.max_epochs}" if run.max_epochs else ""))
    parts.append(f"{run.env_steps:,} env steps")
    for label, value in (("R", run.episode_reward), ("evaluated R", run.value(EVALUATED_REWARD))):
        if value is not None:
            parts.append(f"{label} {tables.cell(value)}")
    if run.phase:
        parts.append(run.phase)
    if run.eta_seconds is not None:
        parts.append(f"{duration(run.eta_seconds)} left")
    return " · ".join(parts)


def line(step: int, row: dict[str, float]) -> str:
    shown = [f"{step:,} env steps"]
    for label, metric in (
        ("epoch", EPOCH),
        ("R", EPISODE_REWARD),
        ("evaluated R", EVALUATED_REWARD),
        ("steps/s", ENV_STEPS_PER_SECOND),
    ):
        value = row.get(metric)
        if value is not None and value == value:
            shown.append(f"{label} {tables.cell(value)}")
    return "  ".join(shown)
