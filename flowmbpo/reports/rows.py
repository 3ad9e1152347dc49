"""One row of a comparison: the figures of each run, and their means and estimates over the seeds of an experiment.

Values over seeds are means (peak, final, ...) except the evaluated R, which is the interquartile mean with a 95%
interval. Not here: where runs come from and what rows are compared (`comparison`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowmbpo.reports import statistics
from flowmbpo.reports.known import Known, Published, params_of
from flowmbpo.reports.statistics import THRESHOLDS, CurveSummary
from flowmbpo.spec.references import EarlierReference
from flowmbpo.spec.schema import ExpectedSpec
from flowmbpo.tracking.metrics import ENV_STEPS_PER_SECOND, EPISODE_REWARD, EVALUATED_REWARD, GRADIENT_COSINE
from flowmbpo.tracking.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd

TRAINED = EPISODE_REWARD
EVALUATED = EVALUATED_REWARD
SCORES = (
    "latent_error_1_relative",
    "latent_error_16_relative",
    "energy_score_relative",
    "energy_score_16_relative",
    "coverage_50",
    "coverage_90",
)
"""Figures of the world model at the last evaluation that mean the same for every kind of model (metrics `model/*`)."""


@dataclass(frozen=True)
class RunFigures:
    """Figures of one run. `evaluated` is its best evaluation (that checkpoint is kept), `evaluated_last` the newest."""

    run: RunRecord
    curve: CurveSummary
    evaluated: float | None
    evaluated_last: float | None

    @property
    def last100(self) -> float | None:
        return self.curve.last100

    @property
    def steps_per_second(self) -> float | None:
        """As logged at the end of training, else the whole run's mean."""
        logged = self.run.value(ENV_STEPS_PER_SECOND)
        if logged is not None and np.isfinite(logged):
            return logged
        return self.curve.env_steps / self.run.wall_seconds if self.run.wall_seconds and self.curve.env_steps else None


@dataclass(frozen=True)
class Row:
    """One line of the comparison; rewards are R, times seconds, None where it is not known."""

    name: str
    is_experiment: bool
    status: str
    runs: int
    seeds: int
    seed_list: list[int | None]
    run_ids: list[str]
    peak_reward: float | None
    final_reward: float | None
    last100_reward: float | None
    eval_reward: float | None
    eval_low: float | None
    eval_high: float | None
    eval_runs: int
    eval_last_reward: float | None
    gradient_cosine: float | None  # of the newest evaluation, over 16 steps
    stability: float | None
    stability_verdict: str | None
    collapsed: int
    nonfinite: int
    env_steps: float | None
    steps_to: dict[int, float | None]
    seconds_to: dict[int, float | None]
    reached: dict[int, int]
    wall_seconds: float | None
    env_steps_per_second: float | None
    scores: dict[str, float | None]
    params: int | None  # of the world model, which the nominal size is about
    params_total: int | None
    nominal_params: str | None
    expected: ExpectedSpec | None
    earlier: tuple[EarlierReference, ...]
    published: Published | None
    origin: str | None  # of imported runs

    def document(self) -> dict[str, object]:
        """Flat JSON-able data; `env_steps_to_1200`, `seconds_to_1200`, `reached_1200` and so on for each threshold."""
        flat = asdict(self)
        flat["kind"] = "experiment" if flat.pop("is_experiment") else "run"
        flat |= flat.pop("scores")
        written = self.expected.model_dump(mode="json") if self.expected else {}
        flat["expected"] = {key: value for key, value in written.items() if value not in (None, "")} or None
        flat["earlier"] = [one.model_dump(mode="json", exclude_none=True) for one in self.earlier]
        if best := self.published:
            flat["published"] = {"key": best.key, **best.result.model_dump(mode="json", exclude_none=True)}
        steps, seconds, reached = flat.pop("steps_to"), flat.pop("seconds_to"), flat.pop("reached")
        for level in THRESHOLDS:
            flat[f"env_steps_to_{level}"] = steps[level]
            flat[f"seconds_to_{level}"] = seconds[level]
            flat[f"reached_{level}"] = reached[level]
        return flat


def run_figures(runs: Sequence[RunRecord], frame: pd.DataFrame) -> dict[str, RunFigures]:
    """Figures of each run by its id, from the points of all of them (columns run_id, metric, step, time, value)."""
    empty = np.empty(0)
    points: dict[tuple[str, str], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for (run_id, metric), part in frame.groupby(["run_id", "metric"], observed=True, sort=False):
        points[run_id, metric] = (part["step"].to_numpy(), part["value"].to_numpy(), part["time"].to_numpy())
    figures = {}
    for run in runs:
        steps, values, times = points.get((run.run_id, TRAINED), (empty, empty, empty))
        evaluations = points.get((run.run_id, EVALUATED), (empty, empty, empty))[1]
        evaluations = evaluations[statistics.is_finite(evaluations)]
        figures[run.run_id] = RunFigures(
            run=run,
            curve=statistics.summarize_curve(steps, values, np.maximum(times - run.start_time, 0.0)),
            evaluated=float(evaluations.max()) if len(evaluations) else None,
            evaluated_last=float(evaluations[-1]) if len(evaluations) else None,
        )
    return figures


def make_row(name: str, runs: Sequence[RunFigures], known: Known | None, is_experiment: bool) -> Row:
    """The row of one experiment, or of one run."""
    curves = [run.curve for run in runs]
    evaluated = statistics.interquartile_mean([run.evaluated for run in runs if run.evaluated is not None])
    stability = statistics.mean(curve.stability for curve in curves)
    steps = [curve.env_steps for curve in curves if curve.points]
    seeds = [run.run.seed for run in runs]
    counts = params_of(runs[0].run, known)
    return Row(
        name=name,
        is_experiment=is_experiment,
        status="FINISHED" if is_experiment else runs[0].run.status,
        runs=len(runs),
        seeds=len(set(seeds)),
        seed_list=seeds,
        run_ids=[run.run.run_id for run in runs],
        peak_reward=statistics.mean(curve.peak for curve in curves),
        final_reward=statistics.mean(curve.final for curve in curves),
        last100_reward=statistics.mean(curve.last100 for curve in curves),
        eval_reward=evaluated.value,
        eval_low=evaluated.low,
        eval_high=evaluated.high,
        eval_runs=evaluated.n,
        eval_last_reward=statistics.mean(run.evaluated_last for run in runs),
        gradient_cosine=statistics.mean(run.run.value(GRADIENT_COSINE) for run in runs),
        stability=stability,
        stability_verdict=statistics.stability_class(stability),
        collapsed=sum(statistics.stability_class(curve.stability) == "collapsed" for curve in curves),
        nonfinite=sum(curve.nonfinite for curve in curves),
        env_steps=_whole(statistics.mean(steps)),
        steps_to={level: statistics.mean(curve.steps_to.get(level) for curve in curves) for level in THRESHOLDS},
        seconds_to={level: statistics.mean(curve.seconds_to.get(level) for curve in curves) for level in THRESHOLDS},
        reached={level: sum(curve.steps_to.get(level) is not None for curve in curves) for level in THRESHOLDS},
        wall_seconds=statistics.mean(run.run.wall_seconds for run in runs),
        env_steps_per_second=statistics.mean(run.steps_per_second for run in runs),
        scores={score: statistics.mean(run.run.value(f"model/{score}") for run in runs) for score in SCORES},
        params=counts.world_model if counts else None,
        params_total=counts.total if counts else None,
        nominal_params=(known.spec.family or None) if known else None,
        expected=known.spec.expected if known else None,
        earlier=known.earlier if known else (),
        published=known.published if known else None,
        origin=runs[0].run.origin or None,
    )


def _whole(value: float | None) -> float | int | None:
    return int(value) if value is not None and value == int(value) else value
