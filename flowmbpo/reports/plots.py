"""Figures of curves and estimates. Not here: colours and files (`figure_style`), what is drawn (`comparison`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flowmbpo.reports import formats
from flowmbpo.reports.comparison import Comparison
from flowmbpo.reports.figure_style import COLOURS, MUTED, PAPER, PICTURES, save, styled
from flowmbpo.reports.known import Published
from flowmbpo.reports.rows import TRAINED
from flowmbpo.reports.statistics import THRESHOLDS, band, is_finite
from flowmbpo.runs.files import check_output
from flowmbpo.spec.references import PublishedReference
from flowmbpo.spec.references import curves as published_curves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Look = dict[str, Any]  # what Matplotlib takes
Axis = Literal["env_steps", "seconds"]

_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)))
_MEANING = {1200: "stands", 5000: "walks"}  # of the thresholds, for an Ant
_MANY = 12  # runs in a figure beyond which single curves are not drawn
_LINE = 300  # points of a line: more cannot be seen


@dataclass(frozen=True)
class Series:
    """The curves of one row: (x, y) per run. `place` decides its colour, the same in every figure."""

    label: str
    place: int
    curves: Sequence[tuple[np.ndarray, np.ndarray]]
    imported: bool = False

    @property
    def look(self) -> Look:
        count = len(COLOURS)
        dashes = ":" if self.imported else _DASHES[self.place // count % len(_DASHES)]  # as published curves
        return {"color": COLOURS[self.place % count], "linestyle": dashes}


def series_of(comparison: Comparison, metric: str, axis: Axis = "env_steps") -> list[Series]:
    """The curves of one metric of every row that has it, by environment steps or by seconds since the run's start."""
    assert comparison.curves is not None
    frame = comparison.curves
    frame = frame[frame["metric"] == metric]
    x = "step" if axis == "env_steps" else "time"
    by_run = {
        str(run): (part[x].to_numpy(dtype=float), part["value"].to_numpy())
        for run, part in frame.groupby("run_id", observed=True)
    }
    found = [
        Series(
            row.name,
            comparison.places[row.name],
            [by_run[run] for run in row.run_ids if run in by_run],
            imported=bool(row.origin),
        )
        for row in comparison.rows
    ]
    return [series for series in found if any(is_finite(y).any() for _, y in series.curves)]


def curves_figure(
    series: Sequence[Series],
    *,
    axis: Axis = "env_steps",
    label: str = "R (training, mean of 100 episodes)",
    references: Mapping[str, PublishedReference] | None = None,
    thresholds: bool = True,
    log: bool = False,
    markers: bool = False,
) -> Figure:
    """IQM over seeds with its 95% band, single seeds thin behind it, published curves dotted."""
    with styled() as new_figure:
        figure = new_figure(4.0)
        axes = figure.add_subplot()
        _draw(axes, series, markers=markers)
        if log:
            _log_axis(axes)
        _published(axes, references or {}, axis)
        if thresholds:
            _thresholds(axes)
        _x_axis(axes, axis)
        axes.set_ylabel(label)
        if not log and max((y.max() for y in _values(series)), default=0) >= 1000:
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        _legend(figure, axes)
        return figure


def evaluated_figure(comparison: Comparison, best: Published | None) -> Figure:
    """Evaluated R of every row: IQM with its 95% interval, a dot per run, and the published result where it is near."""
    rows = [row for row in comparison.rows if row.eval_reward is not None]
    with styled() as new_figure:
        figure = new_figure(1.1 + 0.36 * max(len(rows), 1))
        axes = figure.add_subplot()
        for height, row in enumerate(reversed(rows)):
            colour = COLOURS[comparison.places[row.name] % len(COLOURS)]
            dots = [run.evaluated for run in comparison.figures[row.name] if run.evaluated is not None]
            axes.plot(dots, [height - 0.2] * len(dots), "o", ms=3.5, color=colour, alpha=0.45, mew=0)
            if row.eval_low is not None and row.eval_high is not None:
                axes.plot([row.eval_low, row.eval_high], [height, height], "-", lw=5, color=colour, alpha=0.35)
            axes.plot([row.eval_reward or 0.0], [height], "D", ms=5.5, color=colour)
        final = best.result.final_reward if best else None
        if best and final and final < 4 * max((row.eval_reward or 0.0 for row in rows), default=0.0):
            axes.axvline(final, color=MUTED, lw=1, ls=":")
            axes.annotate(
                best.key, (final, 1.0), xycoords=("data", "axes fraction"), ha="right", va="bottom", **_small()
            )
        axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("evaluated R")
        return figure


def save_curves(comparison: Comparison, path: Path, references: Mapping[str, PublishedReference] | None = None) -> Path:
    """Training R by environment steps and by wall time, as a picture file; its suffix decides the format."""
    check_output(path, PICTURES)
    with styled() as new_figure:
        figure = new_figure(4.4, width=11.0)
        panels: tuple[Axes, ...] = tuple(figure.subplots(1, 2, sharey=True))
        axes_of: tuple[Axis, ...] = ("env_steps", "seconds")
        for axes, axis in zip(panels, axes_of, strict=True):
            _draw(axes, series_of(comparison, TRAINED, axis))
            _published(axes, references or {}, axis)
            _thresholds(axes)
            _x_axis(axes, axis)
        panels[0].set_ylabel("R (training, mean of 100 episodes)")
        panels[0].yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        _legend(figure, panels[0], columns=5)
        return save(figure, path)


def learning_curve_picture(
    history: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path, title: str
) -> Path:
    """One run's R over environment steps: `history` holds (steps, values) by metric name. Returns `path`."""
    labels = {"train/episode_reward": "training R", "eval/mean_reward": "evaluated R"}
    with styled() as new_figure:
        figure = new_figure(4.0)
        axes = figure.add_subplot()
        for place, (metric, label) in enumerate(labels.items()):
            steps, values = (np.asarray(part, dtype=float) for part in history.get(metric, ((), ())))
            steps, values = steps[is_finite(values)], values[is_finite(values)]
            style: Look = {"marker": "o", "ms": 4} if metric.startswith("eval/") else {}
            axes.plot(steps, values, color=COLOURS[place], lw=1.6, label=label if len(values) else None, **style)
        _thresholds(axes)
        _x_axis(axes, "env_steps")
        axes.set_ylabel("R")
        axes.set_title(title)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best")
        return save(figure, path)


# --- parts of figures ------------------------------------------------------------------------------------------------


def _draw(axes: Axes, series: Sequence[Series], markers: bool = False) -> None:
    singles = sum(len(one.curves) for one in series) <= _MANY
    for one in series:
        style: Look = {"marker": "o", "ms": 3} if markers and len(one.curves) == 1 else {}
        if len(one.curves) == 1:
            axes.plot(*_thin(*one.curves[0], _LINE), lw=1.5, label=f"{one.label} (n=1)", **one.look, **style)
            continue
        x, middle, low, high = band(one.curves)
        for curve in one.curves if singles else ():
            axes.plot(*_thin(*curve, _LINE // 3), lw=0.6, alpha=0.35, **one.look)
        axes.fill_between(x, low, high, color=one.look["color"], alpha=0.16, lw=0)
        axes.plot(x, middle, lw=1.8, label=f"{one.label} (n={len(one.curves)})", **one.look)


def _thin(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many of the finite points, the last one always."""
    x, y = x[is_finite(y)], y[is_finite(y)]
    keep = np.unique(np.linspace(0, len(x) - 1, min(most, len(x))).round().astype(int))
    return x[keep], y[keep]


def _small() -> Look:
    """Look of the words inside a figure: readable where they cross a line."""
    from matplotlib.patheffects import withStroke

    return {"fontsize": 8, "color": MUTED, "path_effects": [withStroke(linewidth=2.5, foreground=PAPER)]}


def _values(series: Sequence[Series]) -> Iterator[np.ndarray]:
    return (y[is_finite(y)] for one in series for _, y in one.curves if is_finite(y).any())


def _published(axes: Axes, references: Mapping[str, PublishedReference], axis: Axis) -> None:
    """Published means over seeds, no further than our own curves reach."""
    end = axes.get_xlim()[1]
    sides = cycle(("bottom", "top"))  # so that two names at one height do not lie on each other
    for key, reference in references.items():
        curves = [(np.array(c.x), np.array(c.reward)) for c in published_curves(reference) if c.x_axis == axis]
        if not curves:
            continue
        x, middle, _, _ = band(curves)
        inside = x <= end
        if inside.sum() < 2:
            continue
        axes.plot(x[inside], middle[inside], color=MUTED, lw=1.1, ls=":")
        axes.annotate(key, (x[inside][-1], middle[inside][-1]), ha="right", va=next(sides), **_small())
    axes.set_xlim(0, end)


def _thresholds(axes: Axes) -> None:
    low, high = axes.get_ylim()
    for level in THRESHOLDS:
        if low < level < high:
            axes.axhline(level, color=MUTED, lw=0.8, ls=(0, (4, 3)))
            text = f"{level:,} {_MEANING[level]}"
            axes.annotate(text, (0.995, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", **_small())


def _x_axis(axes: Axes, axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    if axis == "env_steps":
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(lambda value, _: formats.steps(value))
        return
    end = axes.get_xlim()[1]
    unit, seconds = next((u, s) for u, s in (("h", 3600.0), ("min", 60.0), ("s", 1.0)) if end >= 2 * s or s == 1.0)
    spacing = next((n for n in (0.5, 1, 2, 5, 10, 15, 30, 60) if end / seconds / n <= 7), end / seconds / 6)
    axes.set_xlabel(f"wall time ({unit})")
    axes.xaxis.set_major_locator(MultipleLocator(spacing * seconds))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / seconds:g}")


def _log_axis(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, axes: Axes, columns: int = 3) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=min(columns, len(handles)), handlelength=1.6)
