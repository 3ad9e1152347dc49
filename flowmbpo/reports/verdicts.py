"""Which of two groups of runs is better, with which probability, and whether there is evidence enough to say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

from flowmbpo.reports import statistics
from flowmbpo.reports.rows import EVALUATED, TRAINED, RunFigures

ENOUGH_RUNS = 10
"""Of each group; three against three differ this much by chance in one case of ten, and single seeds have misled us."""

_ALL_PAIRS = 8  # up to this many groups every pair gets a verdict; beyond, every group against the first


@dataclass(frozen=True)
class Verdict:
    """`better` and `worse` name groups of runs; `metric` is what decided."""

    better: str
    worse: str
    metric: str
    improvement: statistics.Improvement

    @property
    def established(self) -> bool:
        """Whether the word "better" is allowed: ten runs of each, an interval above 1/2, chance an unlikely reason."""
        found = self.improvement
        enough = min(found.seeds) >= ENOUGH_RUNS and found.low is not None and found.low > 0.5
        return enough and found.p_value < 1 - statistics.CONFIDENCE

    def document(self) -> dict[str, object]:
        return {
            "better": self.better,
            "worse": self.worse,
            "metric": self.metric,
            **asdict(self.improvement),
            "established": self.established,
            "text": str(self),
        }

    def __str__(self) -> str:
        found = self.improvement
        counts = f"{found.seeds[0]} and {found.seeds[1]} runs"
        if found.probability == 0.5:
            return f"{self.better} and {self.worse} are equal so far ({counts})"
        if self.established:
            text = f"{self.better} is better than {self.worse} with probability {found.probability:.2f}"
        else:
            text = f"{self.better} was above {self.worse} in {found.probability:.2f} of the pairs of runs"
        if found.low is None or found.high is None:
            return f"{text}, but an interval needs at least two runs of each ({counts})"
        span = f"95% interval {found.low:.2f} to {found.high:.2f}"
        if found.low == found.high == 1.0:  # a bootstrap of separated samples has no width, which is no certainty
            span = "every run above every run"
        text += f" ({span}; {counts}; p = {found.p_value:.2g})"
        if self.established:
            return text
        few = min(found.seeds) < ENOUGH_RUNS
        return f"{text}: {f'fewer than {ENOUGH_RUNS} runs of each establish nothing' if few else 'not established'}"


def judge_all(runs: Mapping[str, Sequence[RunFigures]]) -> list[Verdict]:
    """Verdicts between the groups, in their order; none for pairs without a metric that all their runs have."""
    names = list(runs)
    pairs = combinations(names, 2) if len(names) <= _ALL_PAIRS else ((names[0], other) for other in names[1:])
    return [found for a, b in pairs if (found := judge(a, runs[a], b, runs[b])) is not None]


def judge(a: str, runs_a: Sequence[RunFigures], b: str, runs_b: Sequence[RunFigures]) -> Verdict | None:
    """Which of two groups of runs is better: by evaluated R if every run has it, else by the end of training."""
    for metric, pick in ((EVALUATED, "evaluated"), (f"{TRAINED} (mean of the last 100 points)", "last100")):
        first = [getattr(run, pick) for run in runs_a]
        second = [getattr(run, pick) for run in runs_b]
        if first and second and None not in first and None not in second:
            found = statistics.improvement(first, second)
            if found.probability >= 0.5:
                return Verdict(a, b, metric, found)
            return Verdict(b, a, metric, statistics.improvement(second, first))
    return None
