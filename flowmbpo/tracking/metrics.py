"""Names of metrics: which there are, and what the catalogue, the tables of `metrics.md` beside this file, says of each.

A name that is not in the catalogue cannot be logged. Not here: computing values (that happens where they are known)
and storing them (`mlflow_writer`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import NamedTuple

EPISODE_REWARD = "train/episode_reward"
EPOCH = "train/epoch"
EPOCH_SECONDS = "perf/epoch_seconds"
ENV_STEPS_PER_SECOND = "perf/env_steps_per_second"
EVALUATED_REWARD = "eval/mean_reward"
GRADIENT_COSINE = "model/gradient_cosine_16"


class Metric(NamedTuple):
    """One row of the catalogue. `name` may hold `{placeholders}`; `better` is an arrow where a direction is good."""

    name: str
    unit: str
    better: str
    meaning: str
    source: str


_ROW = re.compile(r"^\| `(.+?)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", re.MULTILINE)
_TABLES = Path(__file__).with_name("metrics.md").read_text(encoding="utf-8")
CATALOGUE = tuple(Metric(*row) for row in _ROW.findall(_TABLES))

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
def find(name: str) -> Metric | None:
    """The catalogue's row for `name`; None for a name that is not in it."""
    return next((row for pattern, row in _patterns() if pattern.match(name)), None)


def metric(name: str) -> Metric:
    """The catalogue's row for `name`.

    Raises:
        ValueError: the name is not in the catalogue; the message names the nearest one.
    """
    if row := find(name):
        return row
    near = get_close_matches(name, [row.name for row in CATALOGUE], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown metric {name!r}{hint} (every metric has a row in flowmbpo/tracking/metrics.md)")


def check_names(names: Iterable[str]) -> None:
    """Raises ValueError for the first name that is not in the catalogue."""
    for name in names:
        metric(name)
