"""Shows training on a terminal as a live panel, on a pipe as plain lines. Everything goes to stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from flowmbpo.cli import tables

if TYPE_CHECKING:
    from flowmbpo.training.progress import Progress as TrainingProgress
    from flowmbpo.training.progress import Watcher

_SHOWN = (
    ("R (last 100)", "train/episode_reward"),
    ("length", "train/episode_length"),
    ("eval R", "eval/mean_reward"),
    ("reward corr.", "train/reward_correlation"),
    ("dynamics", "train/dynamics_loss"),
    ("reward", "train/reward_loss"),
    ("actor", "train/actor_loss"),
    ("value", "train/value_loss"),
    ("steps/s", "perf/env_steps_per_second"),
)


def duration(seconds: float | None) -> str:
    """`1:02:03` or `2:03`; an en dash when unknown."""
    if seconds is None or seconds != seconds or seconds == float("inf"):
        return "–"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def watcher() -> Watcher:
    """The display that fits stderr."""
    return LiveDisplay() if tables.on_terminal(tables.err) else PlainDisplay()


class LiveDisplay:
    """A progress bar with the numbers that a researcher watches."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            console=tables.err,
            expand=True,
        )
        self._live: Live | None = None

    def started(self, run_id: str, name: str, seed: int) -> None:
        self._task = self._bar.add_task(f"{name}/seed-{seed}", total=1.0, note="compiling, first epoch")
        self._live = Live(self._bar, console=tables.err, refresh_per_second=4, transient=False)
        self._live.start()

    def progress(self, progress: TrainingProgress) -> None:
        note = (
            f"epoch {progress.epoch:,}/{progress.max_epochs:,} · {progress.env_steps:,} env steps · "
            f"{duration(progress.elapsed_seconds)} · ETA {duration(progress.eta_seconds)}"
        )
        self._bar.update(self._task, completed=progress.fraction, note=note)
        grid = Table.grid(padding=(0, 2), expand=True)
        shown = [(label, progress.metrics[key]) for label, key in _SHOWN if key in progress.metrics]
        for _ in shown:
            grid.add_column(justify="right")
        grid.add_row(*(Text(label, style="dim") for label, _ in shown))
        grid.add_row(*(Text(tables.cell(float(value)), style="bold") for _, value in shown))
        if self._live:
            self._live.update(Group(self._bar, grid))

    def phase(self, text: str) -> None:
        self._bar.update(self._task, note=text)

    def message(self, text: str, warning: bool = False) -> None:
        (self._live.console if self._live else tables.err).print(Text(text, style="yellow" if warning else ""))

    def ended(self) -> None:
        if self._live:
            self._live.stop()


class PlainDisplay:
    """One line per logged point that is due; no colour, no cursor movement."""

    interval_seconds = 10.0

    def __init__(self) -> None:
        self._last = float("-inf")

    def started(self, run_id: str, name: str, seed: int) -> None:
        self._name = f"{name}/seed-{seed}"
        self.message(f"{self._name}: run {run_id} started")

    def progress(self, progress: TrainingProgress) -> None:
        last_point = progress.fraction >= 1.0 or progress.epoch == progress.max_epochs
        if progress.elapsed_seconds - self._last < self.interval_seconds and not last_point:
            return
        self._last = progress.elapsed_seconds
        figures = "  ".join(
            f"{label} {tables.cell(float(progress.metrics[key]))}" for label, key in _SHOWN if key in progress.metrics
        )
        self.message(
            f"{self._name}: epoch {progress.epoch}/{progress.max_epochs}  env steps {progress.env_steps}  {figures}  "
            f"ETA {duration(progress.eta_seconds)}"
        )

    def phase(self, text: str) -> None:
        self.message(f"{self._name}: {text}")

    def message(self, text: str, warning: bool = False) -> None:
        tables.say(f"warning: {text}" if warning else text)

    def ended(self) -> None:
        pass
