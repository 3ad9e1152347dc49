"""What others measured: published results and what earlier code reached. Nothing here was run by us."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated, Literal

from pydantic import Field

from flowmbpo.spec.sections import Hours, Line, Name, PositiveInt, Return, Section

Interval = tuple[float, float]
CURVES_FILE = "published_ant_curves.csv"


class _ReferenceBase(Section):
    title: Line = Field(description="what was run")
    source: Line = Field(description="where the numbers are from")
    env: Literal["ant", "pointmass"] = Field("ant", description="environment they were measured in")
    note: Annotated[str, Field(max_length=2000)] = Field("", description="what one must know to read them")


class PublishedReference(_ReferenceBase):
    """A published result: means over seeds of R, the undiscounted return of an episode."""

    kind: Literal["published"] = "published"
    seeds: Annotated[int, Field(ge=1, le=10_000)] | None = Field(None, description="seeds behind the numbers")
    final_reward: Return | None = Field(None, description="mean R at the end")
    final_range: tuple[Return, Return] | None = Field(None, description="lowest and highest seed at the end")
    peak_range: tuple[Return, Return] | None = Field(None, description="lowest and highest peak of a seed")
    steps_to_1200: Interval | None = Field(None, description="environment steps until R > 1,200, over seeds")
    steps_to_5000: Interval | None = Field(None, description="environment steps until R > 5,000, over seeds")
    seconds_to_1200: Interval | None = Field(None, description="seconds until R > 1,200, over seeds")
    seconds_to_5000: Interval | None = Field(None, description="seconds until R > 5,000, over seeds")
    total_steps: Annotated[float, Field(gt=0)] | None = Field(None, description="environment steps of the whole run")
    total_seconds: Annotated[float, Field(gt=0)] | None = Field(None, description="seconds of the whole run")
    curves: Line = Field("", description=f"`source` of its curves in {CURVES_FILE}; empty for none")


class EarlierReference(_ReferenceBase):
    """What an earlier program reached with the settings of one experiment."""

    kind: Literal["earlier"] = "earlier"
    experiment: Name = Field(description="the experiment here that has the same settings")
    epochs: PositiveInt | None = Field(None, description="epochs done")
    max_epochs: PositiveInt | None = Field(None, description="epochs planned")
    peak_reward: Return | None = Field(None, description="highest training R")
    last100_reward: Return | None = Field(None, description="mean training R over the last 100 epochs")
    last10_reward: Return | None = Field(None, description="mean R over the last 10 evaluations")
    hours: Hours | None = Field(None, description="wall time")
    end: Line = Field("", description="how the run ended")


Reference = Annotated[PublishedReference | EarlierReference, Field(discriminator="kind")]


class ReferenceTable(Section):
    """One entry of [references], named so that its `kind` chooses the class."""

    reference: Reference


@dataclass(frozen=True)
class Curve:
    """A published learning curve of one seed, thinned. x: environment steps or seconds; y: R."""

    seed: int
    x_axis: Literal["env_steps", "seconds"]
    x: tuple[float, ...]
    reward: tuple[float, ...]


@cache
def _all_curves() -> dict[str, tuple[Curve, ...]]:
    text = (resources.files("flowmbpo.spec") / "data" / CURVES_FILE).read_text(encoding="utf-8")
    points: dict[tuple[str, int, str], list[tuple[float, float]]] = {}
    for row in csv.DictReader(text.splitlines()):
        series = (row["source"], int(row["seed"]), row["x_axis"])
        points.setdefault(series, []).append((float(row["x"]), float(row["episode_reward"])))
    found: dict[str, list[Curve]] = {}
    for (source, seed, axis), pairs in points.items():
        x, reward = zip(*pairs, strict=True)
        found.setdefault(source, []).append(Curve(seed, "seconds" if axis == "seconds" else "env_steps", x, reward))
    return {source: tuple(curves) for source, curves in found.items()}


def curve_sources() -> tuple[str, ...]:
    """The names that `curves` may have."""
    return tuple(_all_curves())


def curves(reference: PublishedReference) -> tuple[Curve, ...]:
    """The curves of a published result, one per seed; empty where none were released."""
    return _all_curves()[reference.curves] if reference.curves else ()
