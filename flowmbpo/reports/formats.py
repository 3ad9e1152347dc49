"""How figures and comparisons look as text: tables, Markdown, CSV, LaTeX. The terminal and HTML use the same tables.

Not here: printing (`flowmbpo.cli.tables`) and the page around the tables (`report`).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowmbpo.reports.differences import Entry
from flowmbpo.reports.rows import EVALUATED, Row
from flowmbpo.spec.schema import ExpectedSpec

if TYPE_CHECKING:
    from flowmbpo.reports.comparison import Comparison

NOTHING = "–"
_MOST_KEYS = 4  # of a stale spec


@dataclass(frozen=True)
class Table:
    """Headings, rows of texts, and which columns hold figures: on a terminal, a page and in Markdown alike."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Collection[str] = ()  # headings of columns that hold words

    @property
    def right(self) -> list[str]:
        """Headings of the columns of figures."""
        return [heading for heading in self.headings if heading not in self.left]


def reward(value: float | None) -> str:
    """R as a whole number, with one decimal below 10."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.1f}"


def ratio(value: float | None) -> str:
    """A number around 1 with three significant digits."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.3g}"


def fraction(value: float | None) -> str:
    """A cosine or a correlation with two decimals."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.2f}"


def interval(low: float | None, high: float | None) -> str:
    """`[1,100, 1,300]`, or nothing."""
    return "" if low is None or high is None else f"[{reward(low)}, {reward(high)}]"


def steps(value: float | None) -> str:
    """Environment steps with k or M."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """`45 s`, `12.5 min` or `3.2 h`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def expectation(expected: ExpectedSpec | None) -> str:
    """`1,200–1,400, stability high`: what the author wrote down before the run."""
    if expected is None:
        return NOTHING
    parts = []
    if span := expected.peak_reward:
        parts.append(reward(span[0]) if span[0] == span[1] else f"{reward(span[0])}–{reward(span[1])}")
    if expected.stability:
        parts.append(f"stability {expected.stability}")
    return ", ".join(parts) or expected.note or NOTHING


def value(item: object) -> str:
    """A value of a spec; None is a key that the other kind of model does not have."""
    if item is None:
        return NOTHING
    if isinstance(item, dict) and "mixed" in item:
        return " | ".join(value(part) for part in item["mixed"])
    return item if isinstance(item, str) else json.dumps(item)


def _stability(row: Row) -> str:
    if row.stability is None:
        return NOTHING
    return f"{row.stability:.2f} {row.stability_verdict}"


def _until(row: Row, level: int) -> str:
    if not row.reached[level]:
        return "not reached" if row.env_steps else NOTHING
    some = f" ({row.reached[level]} of {row.runs})" if row.reached[level] < row.runs else ""
    return f"{steps(row.steps_to[level])} / {duration(row.seconds_to[level])}{some}"


def _earlier(row: Row) -> str:
    peaks = [reference.peak_reward for reference in row.earlier if reference.peak_reward is not None]
    return reward(max(peaks, default=None))


def _published(row: Row) -> str:
    return f"{reward(row.published.result.final_reward)} ({row.published.key})" if row.published else NOTHING


def _params(row: Row) -> str:
    count = f"{row.params / 1e6:.1f} M" if row.params else NOTHING
    return f"{count} ({row.nominal_params})" if row.nominal_params else count


Columns = Mapping[str, Callable[[Row], str]]
_WORDS = ("name", "final/peak", "expected", "published")  # columns that hold no figures
RESULTS: Columns = {
    "name": lambda row: row.name,
    "seeds": lambda row: str(row.seeds),
    "evaluated R [95%]": lambda row: f"{reward(row.eval_reward)} {interval(row.eval_low, row.eval_high)}".rstrip(),
    "peak R": lambda row: reward(row.peak_reward),
    "final R": lambda row: reward(row.final_reward),
    "last 100": lambda row: reward(row.last100_reward),
    "final/peak": _stability,
    "gradient": lambda row: fraction(row.gradient_cosine),
    "expected": lambda row: expectation(row.expected),
    "earlier peak": _earlier,
    "published": _published,
}
MODEL: Columns = {
    "name": lambda row: row.name,
    "error, 1 step": lambda row: ratio(row.scores["latent_error_1_relative"]),
    "error, 16 steps": lambda row: ratio(row.scores["latent_error_16_relative"]),
    "energy score, 1 step": lambda row: ratio(row.scores["energy_score_relative"]),
    "energy score, 16 steps": lambda row: ratio(row.scores["energy_score_16_relative"]),
    "in 50% interval": lambda row: ratio(row.scores["coverage_50"]),
    "in 90% interval": lambda row: ratio(row.scores["coverage_90"]),
}
COST: Columns = {
    "name": lambda row: row.name,
    "world model": _params,
    "env steps": lambda row: steps(row.env_steps),
    "wall time": lambda row: duration(row.wall_seconds),
    "env steps/s": lambda row: reward(row.env_steps_per_second),
    "to R 1,200": lambda row: _until(row, 1200),
    "to R 5,000": lambda row: _until(row, 5000),
}


def tables(comparison: Comparison) -> list[Table]:
    """The tables of a comparison; that of the world models where any of them was measured."""
    measured = any(value is not None for row in comparison.rows for value in row.scores.values())
    shown = {"Results": RESULTS, **({"World model": MODEL} if measured else {}), "Cost": COST}
    return [
        Table(caption, list(columns), [[cell(row) for cell in columns.values()] for row in comparison.rows], _WORDS)
        for caption, columns in shown.items()
    ]


def spec_table(comparison: Comparison) -> Table:
    headings = ["key", *(row.name for row in comparison.rows)]
    rows = [[key, *(value(by_row.get(name)) for name in headings[1:])] for key, by_row in comparison.spec_diff.items()]
    return Table("Spec keys that differ", headings, rows, headings)


def remarks(comparison: Comparison, *, verdicts: bool = True) -> list[str]:
    """Everything a reader must know beside the tables, one sentence each; the verdicts first."""
    lines: list[str] = []
    if verdicts:
        lines += [str(verdict) for verdict in comparison.verdicts]
        lines += [f"verdicts are by {metric}" for metric in sorted({found.metric for found in comparison.verdicts})]
    lines += comparison.notes
    lines += _listed("missing", [f"{_run(m)}: {m['reason']}" for m in comparison.missing])
    lines += _listed("failed", [f"{_run(r)} {r['status']} at {steps(r['env_steps'])} steps" for r in comparison.failed])
    lines += _listed("running", [f"{_run(r)} at {steps(r['env_steps'])} steps" for r in comparison.running])
    lines += _listed("set aside, not counted", [f"{_run(r)}: {r['reason']}" for r in comparison.set_aside])
    lines += _listed("stale, with another spec than the registry has today", _stale(comparison.stale))
    return lines


def _run(entry: Entry) -> str:
    name = entry["name"] if entry["seed"] is None else f"{entry['name']}/seed-{entry['seed']}"
    return f"{name} ({entry['run_id'][:8]})" if "run_id" in entry else name


def _stale(entries: Sequence[Entry]) -> list[str]:
    """One text per experiment: how many runs, and what changed since."""
    texts = []
    for name in dict.fromkeys(entry["name"] for entry in entries):
        same = [entry for entry in entries if entry["name"] == name]
        changed = {key: change for entry in same for key, change in entry["changed"].items()}
        keys = [f"{key} was {value(change['run'])}, is {value(change['registry'])}" for key, change in changed.items()]
        more = f", and {len(keys) - _MOST_KEYS} more keys" if len(keys) > _MOST_KEYS else ""
        runs = _run(same[0]) if len(same) == 1 else f"{name} ({len(same)} runs)"
        texts.append(f"{runs}: {', '.join(keys[:_MOST_KEYS])}{more}" if keys else runs)
    return texts


def _listed(title: str, entries: Sequence[str], most: int = 12) -> list[str]:
    if not entries:
        return []
    more = f"; and {len(entries) - most} more" if len(entries) > most else ""
    return [f"{title}: {'; '.join(entries[:most])}{more}"]


def to_markdown(comparison: Comparison) -> str:
    """Tables, verdicts and remarks as Markdown."""
    parts = [_pipes(table) for table in tables(comparison)]
    if (different := spec_table(comparison)).rows:
        parts.append(f"{different.caption}:\n\n{_pipes(different)}")
    if lines := remarks(comparison):
        parts.append("\n".join(f"- {_escape(line)}" for line in lines))
    return "\n\n".join(parts) + "\n"


def _pipes(table: Table) -> str:
    lines = [list(map(_escape, table.headings)), ["---:" if name in table.right else "---" for name in table.headings]]
    lines += [list(map(_escape, row)) for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    """Text that cannot break a Markdown table or become HTML."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ").replace("\r", " ")


def to_latex(comparison: Comparison) -> str:
    """A table for a paper (needs booktabs): R with 95% intervals, bold for a row that is established as better than all
    other rows that were judged."""
    verdicts = [verdict for verdict in comparison.verdicts if verdict.metric == EVALUATED]
    judged = {name for verdict in verdicts for name in (verdict.better, verdict.worse)}
    beaten = {name: {v.worse for v in verdicts if v.better == name and v.established} for name in judged}
    lines = [
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r"name & seeds & evaluated $R$ & peak $R$ & final $R$ \\",
        r"\midrule",
    ]
    for row in comparison.rows:
        bold = row.name in judged and beaten[row.name] == judged - {row.name}
        evaluated = _tex(reward(row.eval_reward))
        spread = f" [{_tex(reward(row.eval_low))}, {_tex(reward(row.eval_high))}]" if row.eval_low is not None else ""
        figure = rf"\textbf{{{evaluated}}}{spread}" if bold else evaluated + spread
        cells = [_tex(row.name), str(row.seeds), figure, _tex(reward(row.peak_reward)), _tex(reward(row.final_reward))]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    """Text without characters that mean something to LaTeX."""
    replaced = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$"}
    replaced |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(replaced.get(character, character) for character in text)


def to_csv(comparison: Comparison) -> str:
    """One line per row with the columns of the JSON document; nested values as JSON."""
    documents = [row.document() for row in comparison.rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(documents[0]), lineterminator="\n")
    writer.writeheader()
    for document in documents:
        writer.writerow({key: _plain(item) for key, item in document.items()})
    return out.getvalue()


def _plain(item: object) -> object:
    if isinstance(item, str) and item[:1] in ("=", "+", "@", "\t"):
        return "'" + item  # a spreadsheet would run it as a formula
    return json.dumps(item) if isinstance(item, list | tuple | dict) else item
