"""Names of metrics: which there are, and what the catalogue says about each.

A name that is not in the catalogue cannot be logged. Not here: the catalogue (`catalogue`), computing values (that
happens where they are known) and storing them (`mlflow_writer`). The table as text:
`python -m flowmbpo.tracking.metrics > docs/metrics.md`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache

from flowmbpo.tracking.catalogue import CATALOGUE, Metric

EPISODE_REWARD = "train/episode_reward"
EPOCH = "train/epoch"
EPOCH_SECONDS = "perf/epoch_seconds"
ENV_STEPS_PER_SECOND = "perf/env_steps_per_second"
EVALUATED_REWARD = "eval/mean_reward"
GRADIENT_COSINE = "model/gradient_cosine_16"

# What a `{placeholder}` in a name of the table stands for.
PLACEHOLDERS = {
    "steps": r"[1-9]\d*",
    "percent": r"[1-9]\d",
    "phase": r"[a-z]+(?:_[a-z]+)*",
    "part": r"(?:actor|critic|world_model)",
    "gpu": r"\d+",
    "quartile": r"q(?:25|75)",
}


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], Metric], ...]:
    """Compiled names; exact ones first, so that `perf/epoch_seconds` is not taken for a phase."""
    rows = sorted(CATALOGUE, key=lambda row: "{" in row.name)
    return tuple((re.compile(_as_regex(row.name)), row) for row in rows)


def _as_regex(name: str) -> str:
    parts = re.split(r"\{(\w+)\}", name)
    return "".join(PLACEHOLDERS[part] if index % 2 else re.escape(part) for index, part in enumerate(parts)) + r"\Z"


@cache
def metric(name: str) -> Metric:
    """The catalogue's row for `name`.

    Raises:
        ValueError: the name is not in the catalogue; the message names the nearest one.
    """
    for pattern, row in _patterns():
        if pattern.match(name):
            return row
    near = get_close_matches(name, [row.name for row in CATALOGUE], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown metric {name!r}{hint} (every metric has a row in flowmbpo/tracking/catalogue.py)")


def check_names(names: Iterable[str]) -> None:
    """Raises ValueError for the first name that is not in the catalogue."""
    for name in names:
        metric(name)


def as_markdown() -> str:
    """The catalogue as the text of `docs/metrics.md`."""
    arrows = {"higher": "↑", "lower": "↓", "": ""}
    lines = [
        "# Metrics",
        "",
        "Every metric that a run writes. The MLflow step is the number of real environment steps taken so far.",
        "R is the undiscounted sum of the environment's rewards over one episode. ↑ more is better, ↓ less is better.",
        "`{steps}`, `{percent}`, `{phase}`, `{part}`, `{gpu}` and `{quartile}` stand for a number of control steps, a",
        "nominal share, a phase of the epoch, `actor`, `critic` or `world_model`, the index of a GPU, `q25` or `q75`.",
        "",
        "This file is `python -m flowmbpo.tracking.metrics > docs/metrics.md`; a test compares the two.",
    ]
    groups: dict[str, list[Metric]] = {}
    for row in CATALOGUE:
        groups.setdefault(row.name.split("/")[0], []).append(row)
    for group, rows in groups.items():
        lines += ["", f"## {group}", "", "| metric | unit | better | meaning | from |", "|---|---|---|---|---|"]
        lines += [f"| `{r.name}` | {r.unit} | {arrows[r.better]} | {r.meaning} | {r.source} |" for r in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
