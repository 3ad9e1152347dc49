"""What stands on the report's page: questions, tables, pictures, remarks, origins and commands of a comparison.

Computes no number itself (`comparison`, `statistics`). Not here: the page's looks (`templates`), its file (`report`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flowmbpo import __version__
from flowmbpo.reports import formats, plots
from flowmbpo.reports.comparison import Comparison
from flowmbpo.reports.figure_style import to_svg
from flowmbpo.reports.formats import Table
from flowmbpo.reports.known import Known, Published, published
from flowmbpo.reports.rows import EVALUATED, TRAINED
from flowmbpo.spec.groups import Group
from flowmbpo.spec.references import PublishedReference
from flowmbpo.spec.registry import Registry
from flowmbpo.tracking.metrics import GRADIENT_COSINE

CORRELATION = "train/reward_correlation"
GpuHours = Mapping[str, tuple[float, float]]  # by experiment: asked for, used
_MOST_RUNS = 200  # lines in the table of runs
_MODEL_KEYS = ("integrator", "substeps", "units", "latent_dim")


@dataclass(frozen=True)
class Picture:
    """A figure for the page; `svg` is ours and not escaped again."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Question:
    """One comparison group of the registry with its answer, as far as there is one."""

    key: str
    text: str
    answers: Sequence[str] = ()
    cautions: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    to_run: str = ""


def collect(
    comparison: Comparison,
    known: Mapping[str, Known],
    registry: Registry,
    *,
    store: str,
    latent: Mapping[int, str],
    everything: bool,
    gpu_hours: GpuHours,
) -> dict[str, object]:
    """What the template shows of a comparison. `latent`: metric names of the model's error by open-loop steps;
    `everything`: also questions of the registry that no run answers yet."""
    references, present = published(registry), set(comparison.places)
    groups = {key: group for key, group in registry.groups.items() if everything or present.intersection(group.members)}
    shown = {member for group in groups.values() for member in group.members} | present
    best = next((row.published for row in comparison.rows if row.published), None)
    overview = formats.tables(comparison)
    if gpu_hours:
        rows = [[name, f"{asked:,.1f}", f"{used:,.1f}"] for name, (asked, used) in gpu_hours.items()]
        headings = ["name", "GPU hours asked for", "GPU hours used"]
        overview.append(Table("Jobs on the cluster", headings, rows, ["name"]))
    return {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "store": store,
        "registry": str(registry.path),
        "summary": sorted(comparison.rows, key=lambda row: -(row.eval_reward or float("-inf")))[:4],
        "best": best,
        "questions": [_question(key, group, comparison, references) for key, group in groups.items()],
        "design": _design([known[name] for name in known if name in shown]),
        "overview": overview,
        "curves": _curves(comparison, references),
        "checkpoints": _checkpoints(comparison, best),
        "model": _model(comparison, latent),
        "remarks": formats.remarks(comparison, verdicts=False),
        "runs": _runs(comparison),
        "origins": _origins(comparison),
        "references": _references(references),
        "commands": _commands(comparison),
    }


def _question(key: str, group: Group, comparison: Comparison, references: Mapping[str, PublishedReference]) -> Question:
    absent = [member for member in group.members if member not in comparison.places]
    to_run = f"flowmbpo run {shlex.join(absent)} --seeds 0,1,2,3,4" if absent else ""
    present = [member for member in group.members if member in comparison.places]
    if not present:
        return Question(key, group.question, to_run=to_run)
    part = comparison.subset(present)
    answers = [str(verdict) for verdict in part.verdicts]
    cautions = list(part.notes)
    shared = [key for key, by_row in part.spec_diff.items() if None not in by_row.values()]  # not of one kind only
    if len(shared) > 1 and len(present) > 1:
        cautions.append(f"they differ in {', '.join(shared)}: no effect belongs to one of these alone")
    if absent:
        cautions.append(f"no finished runs of {', '.join(absent)}")
    tables, different = formats.tables(part), formats.spec_table(part)
    if different.rows and len(present) > 1:
        tables.append(different)
    pictures: list[Picture] = []
    for metric, words in ((TRAINED, "training"), (EVALUATED, "evaluated checkpoints")):
        alt = f"R ({words}) over environment steps: {', '.join(present)}"
        caption = f"R, {words}: interquartile mean over seeds with its 95% interval."
        look = {"references": references} if metric == TRAINED else {"markers": True}
        pictures += _picture(part, metric, f"{key}-{words[:5]}", alt, caption, label=f"R ({words})", **look)
    return Question(key, group.question, answers, cautions, tables, pictures, to_run)


def _design(known: Sequence[Known]) -> Table:
    headings = ["name", "model", "size", "built", *_MODEL_KEYS, "epochs", "horizon", "batch", "expected", "what it is"]
    rows = []
    for about in known:
        spec, values = about.spec, about.values
        model = [formats.value(values.get(f"world_model.{key}")) for key in _MODEL_KEYS]
        size = f"{about.params.world_model / 1e6:.1f} M"
        train = [formats.value(values[f"train.{key}"]) for key in ("max_epochs", "horizon", "wm_batch_size")]
        nominal, expected = spec.family or formats.NOTHING, formats.expectation(spec.expected)
        rows.append([spec.name, spec.world_model.kind, nominal, size, *model, *train, expected, spec.description])
    return Table("", headings, rows, headings)


def _picture(
    comparison: Comparison, metric: str, key: str, alt: str, caption: str, axis: plots.Axis = "env_steps", **look: Any
) -> list[Picture]:
    """The curves of a metric, `look` as `curves_figure` takes it; nothing where no run has it."""
    series = plots.series_of(comparison, metric, axis)
    return [Picture(to_svg(plots.curves_figure(series, axis=axis, **look), key, alt), caption)] if series else []


def _curves(comparison: Comparison, references: Mapping[str, PublishedReference]) -> list[Picture]:
    pictures: list[Picture] = []
    by_axis: tuple[tuple[plots.Axis, str], ...] = (("env_steps", "environment steps"), ("seconds", "wall time"))
    for axis, words in by_axis:
        alt = f"Training R by {words}"
        caption = f"{alt}. Line: interquartile mean over seeds; band: its 95% interval; thin: seeds; "
        caption += "dotted: published results."
        pictures += _picture(comparison, TRAINED, f"curves-{axis}", alt, caption, axis=axis, references=references)
    return pictures


def _checkpoints(comparison: Comparison, best: Published | None) -> list[Picture]:
    alt = "Evaluated R of the checkpoints over training"
    caption = "Each checkpoint in the real environment: deterministic policy, fixed seeds, full episodes."
    pictures = _picture(comparison, EVALUATED, "checkpoints", alt, caption, label="R (evaluated)", markers=True)
    if pictures:
        final = to_svg(plots.evaluated_figure(comparison, best), "evaluated", "Evaluated R with intervals")
        caption = "Best checkpoint of each run: diamond, interquartile mean; bar, its 95% interval; dots, runs."
        pictures.append(Picture(final, caption))
    return pictures


def _model(comparison: Comparison, latent: Mapping[int, str]) -> list[Picture]:
    figures = [
        (
            CORRELATION,
            "correlation",
            "Correlation of predicted and real reward",
            "Correlation of predicted and real reward on real steps. Near 0 the policy has nothing to follow.",
        ),
        (
            GRADIENT_COSINE,
            "cosine",
            "Cosine between the model's gradient and the simulator's",
            "How true the gradient is that the policy follows: cosine between the model's and the simulator's gradient "
            "of 16 steps' return with respect to the actions. 1 is the true direction, 0 says nothing.",
        ),
    ]
    for horizon, metric in latent.items():
        words = f"after {horizon} open-loop step{'s' if horizon > 1 else ''}"
        caption = f"Error of the predicted latent {words}, against the encoded real observation."
        figures.append((metric, "mean squared error", f"Latent error {words}", caption))
    pictures: list[Picture] = []
    for metric, label, alt, caption in figures:
        key, log = metric.replace("/", "-"), metric in latent.values()
        pictures += _picture(comparison, metric, key, alt, caption, label=label, thresholds=False, log=log)
    return pictures


def _runs(comparison: Comparison) -> Table:
    headings = ["run", "name", "seed", "status", "env steps", "peak R", "final R", "best evaluated", "wall time"]
    rows = []
    for figures in (figures for row in comparison.rows for figures in comparison.figures[row.name]):
        run, curve = figures.run, figures.curve
        seed = formats.NOTHING if run.seed is None else str(run.seed)
        measured = [formats.reward(value) for value in (curve.peak, curve.final, figures.evaluated)]
        steps, seconds = formats.steps(curve.env_steps), formats.duration(run.wall_seconds)
        rows.append([run.run_id[:12], run.name, seed, run.status, steps, *measured, seconds])
    caption = f"The first {_MOST_RUNS} of {len(rows)} runs" if len(rows) > _MOST_RUNS else ""
    return Table(caption, headings, rows[:_MOST_RUNS], ["run", "name", "status"])


def _origins(comparison: Comparison) -> Table:
    """Which code, version and device the runs come from, with how many of them."""
    counts: dict[tuple[str, ...], int] = {}
    for row in comparison.rows:
        for figures in comparison.figures[row.name]:
            tags = figures.run.tags
            dirty = " with uncommitted changes" if tags.get("flowmbpo.git_dirty") == "true" else ""
            commit = tags.get("flowmbpo.git_commit", "unknown")[:12] + dirty
            origin = (row.name, commit, tags.get("flowmbpo.version", formats.NOTHING), tags.get("flowmbpo.device", ""))
            spec = tags.get("flowmbpo.spec_hash", formats.NOTHING)
            counts[*origin, spec] = counts.get((*origin, spec), 0) + 1
    headings = ["name", "commit", "flowmbpo", "device", "spec hash", "runs"]
    return Table("", headings, [[*origin, str(n)] for origin, n in counts.items()], headings[:-1])


def _references(references: Mapping[str, PublishedReference]) -> Table:
    rows = []
    for reference in references.values():
        span = formats.interval(*(reference.final_range or (None, None)))
        seeds = str(reference.seeds) if reference.seeds else formats.NOTHING
        mean = formats.reward(reference.final_reward) if reference.final_reward is not None or not span else ""
        final = f"{mean} {span}".strip()
        rows.append([reference.title, seeds, final, *_until(reference), reference.note, reference.source])
    headings = ["system", "seeds", "final R [min, max]", "to R 1,200", "to R 5,000", "note", "source"]
    return Table("", headings, rows, ["system", "note", "source"])


def _until(reference: PublishedReference) -> list[str]:
    texts = []
    for level in (1200, 5000):
        steps, seconds = getattr(reference, f"steps_to_{level}"), getattr(reference, f"seconds_to_{level}")
        spans = [" to ".join(map(formats.steps, steps))] if steps else []
        spans += [" to ".join(map(formats.duration, seconds))] if seconds else []
        texts.append(", ".join(spans) or formats.NOTHING)
    return texts


def _commands(comparison: Comparison) -> list[str]:
    """What was typed for these runs, as their provenance has it, and what makes the tables from them."""
    runs = [figures.run for row in comparison.rows for figures in comparison.figures[row.name]]
    typed = dict.fromkeys(run.tags["flowmbpo.command"] for run in runs if run.tags.get("flowmbpo.command"))
    names = shlex.join(row.name for row in comparison.rows)
    return [*typed, "flowmbpo eval --rerun-all", f"flowmbpo compare {names}", "flowmbpo report --out report.html"]
