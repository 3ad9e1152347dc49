"""Compares experiments (all their finished runs) or single runs: rows, what differs between their specs, verdicts.

Reads the store in bulk through the tracking reader. Not here: the statistics (`statistics`), one row (`rows`), how a
comparison looks (`formats`, `plots`, `report`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowmbpo.errors import UserError
from flowmbpo.reports.differences import Entry, spec_difference, stale_runs
from flowmbpo.reports.known import Known, as_registry, known_experiments
from flowmbpo.reports.rows import EVALUATED, TRAINED, Row, RunFigures, make_row, run_figures
from flowmbpo.reports.verdicts import Verdict, judge_all
from flowmbpo.spec.problems import did_you_mean
from flowmbpo.tracking.places import runs_as_they_are
from flowmbpo.tracking.reader import Reader, open_reader, select_run
from flowmbpo.tracking.records import WHY_TAG, RunRecord

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from flowmbpo.spec.registry import Registry


@dataclass(frozen=True)
class Comparison:
    """Rows in the order asked for, and everything that a reader must know before believing them.

    spec_diff: dotted key -> row name -> value, only keys that differ. missing, failed, running, set_aside, stale: runs
    that are not in the rows, or are there with a spec that is not today's, each with the reason. curves: points of
    `train/*` and `eval/*` behind the rows (columns run_id, metric, step, time, value), with times in seconds since the
    run's start. figures: each row's runs. places: by row, what decides its colour, the same in every figure and subset.
    """

    rows: list[Row]
    places: Mapping[str, int]
    spec_diff: dict[str, dict[str, object]] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    missing: list[Entry] = field(default_factory=list)
    failed: list[Entry] = field(default_factory=list)
    running: list[Entry] = field(default_factory=list)
    stale: list[Entry] = field(default_factory=list)
    set_aside: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, list[RunFigures]] = field(default_factory=dict, repr=False)
    curves: pd.DataFrame | None = field(default=None, repr=False)
    _subset: Callable[[Sequence[str]], Comparison] | None = field(default=None, repr=False)

    def document(self) -> dict[str, object]:
        as_they_are = ("missing", "failed", "running", "stale", "set_aside", "notes")
        return {
            "rows": [row.document() for row in self.rows],
            "spec_diff": self.spec_diff,
            "verdicts": [verdict.document() for verdict in self.verdicts],
            **{key: getattr(self, key) for key in as_they_are},
        }

    def subset(self, names: Sequence[str]) -> Comparison:
        """The same comparison of some of its experiments, without reading the store again."""
        assert self._subset is not None, "made by `compare`"
        return self._subset(names)

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
    groups = _select(list(selectors), runs_as_they_are(reader), known)
    chosen = list({run.run_id: run for group in groups for run in group.counted}.values())
    if not chosen:
        raise UserError(_nothing_finished(groups))
    frame = reader.curves(chosen, list(dict.fromkeys([TRAINED, EVALUATED, *curves])))
    return _assemble(groups, known, run_figures(chosen, frame), _since_start(frame, chosen))


@dataclass(frozen=True)
class _Group:
    """The runs behind one row: all of an experiment's, of which the finished ones count, or a single run."""

    name: str
    is_experiment: bool
    runs: list[RunRecord]

    @property
    def counted(self) -> list[RunRecord]:
        return [run for run in self.runs if not self.is_experiment or (run.status == "FINISHED" and not run.set_aside)]

    @property
    def imported(self) -> bool:
        return any(run.origin for run in self.runs)


def _assemble(
    groups: Sequence[_Group],
    known: Mapping[str, Known],
    figures: Mapping[str, RunFigures],
    curves: pd.DataFrame,
    places: Mapping[str, int] | None = None,
) -> Comparison:
    present = [group for group in groups if group.counted]
    counted = {group.name: [figures[run.run_id] for run in group.counted] for group in present}
    rows = [make_row(g.name, counted[g.name], known.get(g.runs[0].name), g.is_experiment) for g in present]
    runs = {group.name: group.counted for group in present}
    everything = [run for group in groups for run in group.runs]
    colours = places or {row.name: place for place, row in enumerate(rows)}
    return Comparison(
        rows=rows,
        places=colours,
        spec_diff=spec_difference(runs),
        verdicts=judge_all({group.name: counted[group.name] for group in present if not group.imported}),
        missing=_missing([group for group in groups if group.is_experiment and not group.imported]),
        failed=[_named(run) for run in everything if run.status in ("FAILED", "KILLED")],
        running=[_named(run) for run in everything if run.status == "RUNNING"],
        stale=stale_runs([run for found in runs.values() for run in found], known),
        set_aside=[{**_named(run), "reason": run.tags.get(WHY_TAG, "")} for run in everything if run.set_aside],
        notes=_notes(rows, runs) + [f"note on {_label(run)}: {run.note}" for run in everything if run.note],
        figures=counted,
        curves=curves,
        _subset=lambda names: _assemble([g for g in groups if g.name in names], known, figures, curves, colours),
    )


def _select(selectors: list[str], runs: Sequence[RunRecord], known: Mapping[str, Known]) -> list[_Group]:
    """For each row its runs; aliases become names, doubles disappear."""
    aliases = {alias: name for name, about in known.items() for alias in about.spec.aliases}
    names = {run.name for run in runs}
    labels = Counter(run.run_name for run in runs)
    found: dict[str, _Group] = {}
    for selector in selectors:
        name = aliases.get(selector, selector)
        if name in names or name in known:
            own = [run for run in runs if run.name == name]
            own = [run for run in own if not run.origin] or own  # what is imported is no seed of ours
            own.sort(key=lambda run: (run.seed is None, run.seed or 0, run.start_time))
            found[name] = _Group(name, True, own)
        else:
            run = _single(runs, selector, [*known, *aliases])
            label = run.run_name if run.run_name and labels[run.run_name] == 1 else run.run_id
            found[label] = _Group(label, False, [run])
    return list(found.values())


def _single(runs: Sequence[RunRecord], selector: str, names: Sequence[str]) -> RunRecord:
    try:
        return select_run(runs, selector)
    except UserError as error:
        raise UserError(f"{error}. The registry has {', '.join(names)}. {did_you_mean(selector, names)}") from None


def _nothing_finished(groups: Sequence[_Group]) -> str:
    parts = [f"{group.name}: {_counts(group.runs)}" for group in groups]
    aside = any(run.set_aside for group in groups for run in group.runs)
    return (
        f"nothing to compare yet: no finished runs ({'; '.join(parts)}). `flowmbpo run {groups[0].name}` makes one; a "
        "single run of any status can be named by its id"
        + ("; `flowmbpo tag RUN usable=yes` takes one that was set aside back in" if aside else "")
    )


def _counts(runs: Sequence[RunRecord]) -> str:
    words = [
        f"{count} {status.lower()}"
        for status in ("FINISHED", "RUNNING", "FAILED", "KILLED")
        if (count := sum(run.status == status and not run.set_aside for run in runs))
    ]
    if aside := sum(run.set_aside for run in runs):
        words.append(f"{aside} set aside")
    return ", ".join(words) or "no runs"


def _missing(groups: Sequence[_Group]) -> list[Entry]:
    """Experiments without a finished run, and seeds that other rows have finished but this one has not."""
    done = {group.name: {run.seed for run in group.counted} for group in groups}
    wanted = sorted({seed for seeds in done.values() for seed in seeds if seed is not None})
    missing: list[Entry] = []
    for group in groups:
        if not done[group.name]:
            missing.append({"name": group.name, "seed": None, "reason": f"none finished ({_counts(group.runs)})"})
            continue
        for seed in wanted:
            if seed not in done[group.name]:
                same = [run for run in group.runs if run.seed == seed]
                missing.append({"name": group.name, "seed": seed, "reason": _counts(same) if same else "not run"})
    return missing


def _named(run: RunRecord) -> Entry:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "seed": run.seed,
        "status": run.status,
        "env_steps": run.env_steps,
        "episode_reward": run.episode_reward,
    }


def _label(run: RunRecord) -> str:
    return f"{run.run_name} ({run.run_id[:8]})"


def _notes(rows: Sequence[Row], runs: Mapping[str, Sequence[RunRecord]]) -> list[str]:
    """What weakens the comparison, one sentence for each weakness."""
    mixed = [row.name for row in rows if len({run.tags.get("flowmbpo.spec_hash") for run in runs[row.name]}) > 1]
    repeated = [f"{row.name} ({row.runs} runs of {row.seeds} seeds)" for row in rows if row.runs > row.seeds]
    collapsed = [f"{row.name} ({row.collapsed} of {row.runs})" for row in rows if row.collapsed]
    nonfinite = [f"{row.name} ({row.nonfinite})" for row in rows if row.nonfinite]
    single = [row.name for row in rows if row.is_experiment and row.runs < 2]
    imported = [row.name for row in rows if row.origin]
    judged = [f"{row.name} ({row.eval_runs} of {row.runs})" for row in rows if 0 < row.eval_runs < row.runs]
    unjudged = [row.name for row in rows if not row.eval_runs and not row.origin]
    devices = {row.name: sorted({run.tags.get("flowmbpo.device", "") for run in runs[row.name]} - {""}) for row in rows}
    several = len({device for names in devices.values() for device in names}) > 1
    found = {
        "wall times and steps/s are of different devices, so compare only R": [
            f"{name} on {' and '.join(names)}" for name, names in devices.items() if several and names
        ],
        "figures are means over runs with different specs": mixed,
        "repeated seeds are counted as they are": repeated,
        "runs that collapsed, final below 0.3 of the peak": collapsed,
        "points that are not finite and were left out": nonfinite,
        "imported, references and not judged against our runs": imported,
        "one seed only, and an interval needs at least two, a sound one about ten": single,
        "only some runs were evaluated": judged,
        "not evaluated in the real environment yet, which `flowmbpo eval` does": unjudged,
    }
    return [f"{text}: {', '.join(names)}" for text, names in found.items() if names]


def _since_start(frame: pd.DataFrame, runs: Sequence[RunRecord]) -> pd.DataFrame:
    start = {run.run_id: run.start_time for run in runs}
    return frame.assign(time=frame["time"] - frame["run_id"].astype(str).map(start).astype(float))
