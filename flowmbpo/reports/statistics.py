"""Figures of one learning curve, and estimates over seeds with honest intervals. Arrays in, numbers out.

Over seeds the interquartile mean (IQM) with a stratified bootstrap, and the probability of improvement, follow Agarwal
et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv 2108.13264). SciPy does the
trimming, the resampling and the exact test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

THRESHOLDS = (1200, 5000)  # R of an Ant that stands, and of one that walks
LAST_POINTS = 100
CONFIDENCE = 0.95
RESAMPLES = 2000
STABLE, COLLAPSED = 0.6, 0.3  # final/peak: from here on stable; below this collapsed
_RANDOM_STATE = 20211  # the same store always gives the same interval
_INFINITE = 1.7e308  # MLflow stores an infinite value as the largest float

Stability = Literal["stable", "unstable", "collapsed"]


@dataclass(frozen=True)
class CurveSummary:
    """One run's R over real environment steps; None where nothing (finite) was logged.

    peak: highest logged point. final: last logged point. last100: mean of the last 100 logged points. stability:
    final / peak, None unless the peak is positive. steps_to, seconds_to: where R first reached each threshold.
    A point is already a mean over 100 episodes, so nothing is smoothed again: it would hide a late collapse.
    """

    points: int = 0
    nonfinite: int = 0
    peak: float | None = None
    final: float | None = None
    last100: float | None = None
    stability: float | None = None
    env_steps: int = 0
    steps_to: dict[int, float | None] = field(default_factory=dict)
    seconds_to: dict[int, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """A value over `n` independent runs with its 95% interval; `low` and `high` are None where there is none."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Improvement:
    """P(a run of A beats a run of B) with its interval, and how often chance alone separates equal systems this much.

    p_value: two-sided Mann-Whitney test, exact for small samples without ties. It is there because the bootstrap of
    completely separated samples has no width: 2 against 2 runs give [1, 1] although chance alone does that in 1 of 3.
    """

    probability: float
    low: float | None
    high: float | None
    p_value: float
    seeds: tuple[int, int]


def summarize_curve(steps: np.ndarray, values: np.ndarray, seconds: np.ndarray) -> CurveSummary:
    """Figures of one curve from env steps, R and seconds since the start of the run, each (P,), in order of steps."""
    finite = is_finite(values)
    count = len(values)
    steps, values, seconds = steps[finite], values[finite], seconds[finite]
    if not len(values):
        return CurveSummary(nonfinite=count)
    peak, final = float(values.max()), float(values[-1])
    first = {level: np.flatnonzero(values >= level)[:1] for level in THRESHOLDS}
    return CurveSummary(
        points=count,
        nonfinite=count - len(values),
        peak=peak,
        final=final,
        last100=float(values[-LAST_POINTS:].mean()),
        stability=final / peak if peak > 0 else None,
        env_steps=int(steps[-1]),
        steps_to={level: float(steps[at[0]]) if len(at) else None for level, at in first.items()},
        seconds_to={level: float(seconds[at[0]]) if len(at) else None for level, at in first.items()},
    )


def is_finite(values: np.ndarray) -> np.ndarray:
    """Which values are numbers, as MLflow stores them."""
    return np.isfinite(values) & (np.abs(values) < _INFINITE)


def stability_class(stability: float | None) -> Stability | None:
    """What final / peak says: stable from 0.6 (the curve kept most of what it reached), collapsed below 0.3."""
    if stability is None:
        return None
    if stability >= STABLE:
        return "stable"
    return "collapsed" if stability < COLLAPSED else "unstable"


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is there; None for nothing."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(known) / len(known) if known else None


def interquartile_mean(*strata: Sequence[float]) -> Estimate:
    """Mean of the middle half of all runs, with a bootstrap interval that resamples within each stratum.

    One experiment is one stratum; several experiments pooled are several. Below four runs nothing is trimmed: the
    IQM is the mean. An interval needs at least two runs in every stratum; with fewer than about ten it is too narrow (
    docs/comparing.md says how much), because a bootstrap cannot see values that did not occur.
    """
    samples = [np.asarray(stratum, dtype=float) for stratum in strata if len(stratum)]
    n = sum(map(len, samples))
    if not n:
        return Estimate(None, None, None, 0)

    def statistic(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        from scipy.stats import trim_mean

        return trim_mean(np.concatenate(parts, axis), 0.25, axis)

    value = float(statistic(*samples))
    if min(map(len, samples)) < 2:
        return Estimate(value, None, None, n)
    return Estimate(value, *_interval(samples, statistic), n)


def improvement(a: Sequence[float], b: Sequence[float]) -> Improvement:
    """P(A > B) over all pairs of runs, ties counting half (Agarwal et al. 2021, section 4.3); A and B not empty."""
    from scipy.stats import mannwhitneyu, rankdata

    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    assert first.size, "A has no runs"
    assert second.size, "B has no runs"

    def statistic(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        n, m = x.shape[axis], y.shape[axis]
        ranks = rankdata(np.concatenate([x, y], axis=axis), axis=axis)
        wins = ranks.take(range(n), axis=axis).sum(axis=axis) - n * (n + 1) / 2  # Mann-Whitney's U
        return wins / (n * m)

    low, high = _interval([first, second], statistic) if min(first.size, second.size) > 1 else (None, None)
    p_value = float(mannwhitneyu(first, second, alternative="two-sided").pvalue)
    return Improvement(float(statistic(first, second)), low, high, p_value, (first.size, second.size))


def _interval(samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray]) -> tuple[float, float]:
    """Percentile bootstrap; SciPy resamples each sample by itself, which is what "stratified" means."""
    from scipy.stats import bootstrap

    result = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(_RANDOM_STATE),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def band(curves: Sequence[tuple[np.ndarray, np.ndarray]], points: int = 120) -> tuple[np.ndarray, ...]:
    """IQM over seeds and its pointwise 95% band on a common grid: (x, middle, low, high), each (points,).

    `curves` holds (x, y) per seed; seeds are interpolated linearly, and the grid ends where the shortest of them ends,
    so that no seed drops out half-way. With one seed the band has no width.
    """
    from scipy.stats import trim_mean

    curves = [(x[is_finite(y)], y[is_finite(y)]) for x, y in curves]
    curves = [(x, y) for x, y in curves if len(x)]
    if not curves:
        return (np.empty(0),) * 4
    begin = max(x[0] for x, _ in curves)
    end = max(begin, min(x[-1] for x, _ in curves))
    grid = np.linspace(begin, end, points if end > begin else 1)
    seeds = np.stack([np.interp(grid, x, y) for x, y in curves])
    middle = trim_mean(seeds, 0.25, axis=0)
    if len(seeds) < 2:
        return grid, middle, middle, middle
    drawn = np.random.default_rng(_RANDOM_STATE).integers(len(seeds), size=(300, len(seeds)))
    resampled = [trim_mean(seeds[draw], 0.25, axis=0) for draw in drawn]  # one by one: many seeds fit in memory
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return grid, middle, low, high
