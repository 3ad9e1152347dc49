"""Compares experiments (all their finished runs) or single runs: rows, what differs between their specs, verdicts.

Reads the store in bulk through the tracking reader. Not here: the statistics (`statistics`), one row (`rows`), how a
comparison looks (`formats`, `plots`, `report`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from flowmbpo.errors import UserError
from flowmbpo.reports import statistics
from flowmbpo.reports.known import Known, as_registry, known_experiments
from flowmbpo.reports.rows import EVALUATED, TRAINED, Row, RunFigures, make_row, run_figures
from flowmbpo.spec.identity import NOT_IDENTITY
from flowmbpo.tracking.reader import Reader, open_reader, select_run
from flowmbpo.tracking.records import RunRecord

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from flowmbpo.spec.registry import Registry

_ALL_PAIRS = 8  # up to this many rows every pair gets a verdict; beyond, every row against the first


@dataclass(frozen=True)
class VerdictRow:
    """Which of two rows is better, by which metric, with which probability."""

    better: str
    worse: str
    metric: str
    improvement: statistics.Improvement

    @property
    def established(self) -> bool:
        """Whether chance alone is an unlikely explanation."""
        return self.improvement.p_value < 1 - statistics.CONFIDENCE

    def document(self) -> dict[str, Any]:
        return {
            "better": self.better,
            "worse": self.worse,
            "metric": self.metric,
            "probability": self.improvement.probability,
            "low": self.improvement.low,
            "high": self.improvement.high,
            "p_value": self.improvement.p_value,
            "seeds": list(self.improvement.seeds),
            "established": self.established,
            "text": str(self),
        }

    def __str__(self) -> str:
        found = self.improvement
        counts = f"{found.seeds[0]} and {found.seeds[1]} runs"
        if found.probability == 0.5:
            return f"{self.better} and {self.worse} are equal so far ({counts})"
        text = f"{self.better} is better than {self.worse} with probability {found.probability:.2f}"
        if found.low is None or found.high is None:
            return f"{text}, but an interval needs at least two runs of each ({counts})"
        span = f"95% interval {found.low:.2f} to {found.high:.2f}"
        if found.low == found.high:  # a bootstrap of separated samples has no width, which is no certainty
            span = "every run above every run"
        text += f" ({span}; {counts}; p = {found.p_value:.2g})"
        return text if self.established else f"{text}: not established, chance could explain it"


@dataclass(frozen=True)
class Comparison:
    """Rows in the order asked for, and everything that a reader must know before believing them.

    spec_diff: dotted key -> row name -> value, only keys that differ. missing, failed, running, stale: runs that are not
    in the rows, or are there with a spec that is not today's, each with the reason. curves: points of `train/*` and
    `eval/*` behind the rows (columns run_id, metric, step, time, value), with times in seconds since the run's start.
    """

    rows: list[Row]
    spec_diff: dict[str, dict[str, Any]] = field(default_factory=dict)
    verdicts: list[VerdictRow] = field(default_factory=list)
    missing: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    running: list[dict[str, Any]] = field(default_factory=list)
    stale: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: pd.DataFrame | None = field(default=None, repr=False)

    def document(self) -> dict[str, Any]:
        """JSON-able data."""
        return {
            "rows": [row.document() for row in self.rows],
            "spec_diff": self.spec_diff,
            "verdicts": [verdict.document() for verdict in self.verdicts],
            "missing": self.missing,
            "failed": self.failed,
            "running": self.running,
            "stale": self.stale,
            "notes": self.notes,
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One line per row, columns as in the JSON document."""
        import pandas as pd

        return pd.DataFrame([row.document() for row in self.rows])


def compare(
    selectors: Sequence[str],
    *,
    tracking_uri: str | Reader | None = None,
    registry: Registry | Path | None = None,
    curves: Iterable[str] = (),
) -> Comparison:
    """Compare experiments (name or alias: their finished runs) and single runs (id, its beginning, or NAME/seed-N).

    `curves` names further metrics to keep in `Comparison.curves`.

    Raises:
        UserError: an unknown name or run, nothing finished, no store.
        WorkFailed: a store that is damaged or does not answer.
    """
    if not selectors:
        raise UserError("name experiments or runs to compare; `flowmbpo list` and `flowmbpo runs` show them")
    known = known_experiments(as_registry(registry))
    reader = open_reader(tracking_uri) if tracking_uri is None or isinstance(tracking_uri, str) else tracking_uri
    runs = reader.runs()
    groups = _select(list(selectors), runs, known)
    counted = {
        name: [run for run in found if run.status == "FINISHED" or not is_experiment]
        for name, (found, is_experiment) in groups.items()
    }
    chosen = list({run.run_id: run for found in counted.values() for run in found}.values())
    if not chosen:
        raise UserError(_nothing_finished(groups))
    frame = reader.curves(chosen, list(dict.fromkeys([TRAINED, EVALUATED, *curves])))
    figures = run_figures(chosen, frame)
    rows = [
        make_row(name, [figures[run.run_id] for run in found], known.get(found[0].name), groups[name][1])
        for name, found in counted.items()
        if found
    ]
    present = {name: counted[name] for name in (row.name for row in rows)}
    experiments = [name for name, (_, is_experiment) in groups.items() if is_experiment]
    everything = [run for found, _ in groups.values() for run in found]
    return Comparison(
        rows=rows,
        spec_diff=spec_difference(present),
        verdicts=_verdicts(rows, {name: [figures[run.run_id] for run in found] for name, found in present.items()}),
        missing=_missing({name: groups[name][0] for name in experiments}),
        failed=[_named(run) for run in everything if run.status in ("FAILED", "KILLED")],
        running=[_named(run) for run in everything if run.status == "RUNNING"],
        stale=_stale(chosen, known),
        notes=_notes(rows, present),
        curves=_since_start(frame, chosen),
    )


def _select(
    selectors: list[str], runs: Sequence[RunRecord], known: dict[str, Known]
) -> dict[str, tuple[list[RunRecord], bool]]:
    """For each row its runs, and whether it is an experiment; aliases become names, doubles disappear."""
    aliases = {alias: name for name, about in known.items() for alias in about.aliases}
    names = {run.name for run in runs}
    found: dict[str, tuple[list[RunRecord], bool]] = {}
    for selector in selectors:
        name = aliases.get(selector, selector)
        if name in names or name in known:
            own = [run for run in runs if run.name == name]
            found[name] = (sorted(own, key=lambda run: (run.seed is None, run.seed or 0, run.start_time)), True)
        else:
            run = select_run(runs, selector)
            label = run.run_name if [other.run_name for other in runs].count(run.run_name) == 1 else run.run_id
            found[label or run.run_id] = ([run], False)
    return found


def _nothing_finished(groups: dict[str, tuple[list[RunRecord], bool]]) -> str:
    parts = [f"{name}: {_counts(runs)}" for name, (runs, _) in groups.items()]
    return (
        f"nothing to compare yet: no finished runs ({'; '.join(parts)}). `flowmbpo run {next(iter(groups))}` makes one; "
        "a single run of any status can be named by its id"
    )


def _counts(runs: Sequence[RunRecord]) -> str:
    words = [
        f"{count} {status.lower()}"
        for status in ("FINISHED", "RUNNING", "FAILED", "KILLED")
        if (count := sum(run.status == status for run in runs))
    ]
    return ", ".join(words) or "no runs"


def _missing(groups: dict[str, list[RunRecord]]) -> list[dict[str, Any]]:
    """Experiments without a finished run, and seeds that other rows have finished but this one has not."""
    done = {name: {run.seed for run in runs if run.status == "FINISHED"} for name, runs in groups.items()}
    wanted = sorted(set().union(*(seeds for seeds in done.values())) - {None})
    missing: list[dict[str, Any]] = []
    for name, runs in groups.items():
        if not done[name]:
            missing.append({"name": name, "seed": None, "reason": f"none finished ({_counts(runs)})"})
            continue
        for seed in wanted:
            if seed not in done[name]:
                same = [run for run in runs if run.seed == seed]
                missing.append({"name": name, "seed": seed, "reason": _counts(same) if same else "not run"})
    return missing


def _named(run: RunRecord) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "seed": run.seed,
        "status": run.status,
        "env_steps": run.env_steps,
        "episode_reward": run.episode_reward,
    }


def _stale(runs: Sequence[RunRecord], known: dict[str, Known]) -> list[dict[str, Any]]:
    """Runs whose spec is not the one that the registry gives their name today, with the keys that changed."""
    stale = []
    for run in runs:
        about, digest = known.get(run.name), run.tags.get("flowmbpo.spec_hash")
        if about is None or digest is None or digest == about.spec_hash:
            continue
        changed = {
            key: {"run": value, "registry": about.spec[key]}
            for key, value in _spec(run).items()
            if key in about.spec and about.spec[key] != value
        }
        stale.append({"run_id": run.run_id, "name": run.name, "seed": run.seed, "changed": changed})
    return stale


def _spec(run: RunRecord) -> dict[str, Any]:
    """The run's spec as it was logged, without labels."""
    return {key: parse(text) for key, text in run.params.items() if key.split(".")[0] not in NOT_IDENTITY}


def parse(text: str) -> Any:
    """The value behind a logged param: JSON where it is JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def spec_difference(groups: dict[str, list[RunRecord]]) -> dict[str, dict[str, Any]]:
    """Dotted key -> row -> value, for keys on which not all runs agree. Rows whose own runs disagree list all values."""
    values: dict[str, dict[str, list[Any]]] = {}
    for name, runs in groups.items():
        specs = [_spec(run) for run in runs]
        for key in {key for spec in specs for key in spec}:
            distinct = {json.dumps(spec.get(key)): spec.get(key) for spec in specs}
            values.setdefault(key, {})[name] = [distinct[text] for text in sorted(distinct)]
    difference = {}
    for key in sorted(values):
        row = {name: values[key].get(name, [None]) for name in groups}
        if len({json.dumps(found) for found in row.values()}) > 1 or any(len(found) > 1 for found in row.values()):
            difference[key] = {name: found[0] if len(found) == 1 else {"mixed": found} for name, found in row.items()}
    return difference


def _verdicts(rows: Sequence[Row], runs: dict[str, list[RunFigures]]) -> list[VerdictRow]:
    names = [row.name for row in rows]
    pairs = combinations(names, 2) if len(names) <= _ALL_PAIRS else ((names[0], other) for other in names[1:])
    return [found for a, b in pairs if (found := judge(a, runs[a], b, runs[b])) is not None]


def judge(a: str, runs_a: Sequence[RunFigures], b: str, runs_b: Sequence[RunFigures]) -> VerdictRow | None:
    """Which of two groups of runs is better: by evaluated R if every run has it, else by the end of training."""
    for metric, pick in ((EVALUATED, "evaluated"), (f"{TRAINED} (mean of the last 100 points)", "last100")):
        first = [getattr(run, pick) for run in runs_a]
        second = [getattr(run, pick) for run in runs_b]
        if first and second and None not in first and None not in second:
            found = statistics.improvement(first, second)
            if found.probability >= 0.5:
                return VerdictRow(a, b, metric, found)
            return VerdictRow(b, a, metric, statistics.improvement(second, first))
    return None


def _notes(rows: Sequence[Row], runs: dict[str, list[RunRecord]]) -> list[str]:
    """What weakens the comparison, in sentences."""
    notes = []
    for row in rows:
        hashes = {run.tags.get("flowmbpo.spec_hash") for run in runs[row.name]}
        if len(hashes) > 1:
            notes.append(f"{row.name} mixes runs of {len(hashes)} different specs: its figures are means over them")
        if row.runs > len(set(row.seed_list)):
            notes.append(f"{row.name} has {row.runs} runs of {row.seeds} seeds: repeated seeds are counted as they are")
        if row.collapsed:
            notes.append(f"{row.name}: {row.collapsed} of {row.runs} runs collapsed (final below 0.3 of the peak)")
        if row.nonfinite:
            notes.append(f"{row.name}: {row.nonfinite} logged points are not finite and were left out")
        if row.eval_reward is None:
            notes.append(f"{row.name} has no evaluation in the real environment: `flowmbpo eval {row.name}`")
        elif row.eval_runs < row.runs:
            notes.append(f"{row.name}: only {row.eval_runs} of {row.runs} runs were evaluated")
    few = [row.name for row in rows if row.is_experiment and row.eval_runs < 2 and row.runs < 2]
    if few:
        notes.append(f"one run only: {', '.join(few)}. An interval needs at least two seeds, a sound one about ten")
    return notes


def _since_start(frame: pd.DataFrame, runs: Sequence[RunRecord]) -> pd.DataFrame:
    start = {run.run_id: run.start_time for run in runs}
    return frame.assign(time=frame["time"] - frame["run_id"].astype(str).map(start))
