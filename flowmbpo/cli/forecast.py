"""How long an experiment takes on this machine, said before it starts, and what to run instead where that is days.

An experiment that has run here takes what it took. Otherwise its arithmetic is divided by this machine's speed, which
is measured for a tenth of a second: within a factor of two, which tells minutes from weeks.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from flowmbpo.cli import tables
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.lock import HOST_TAG, hostname
from flowmbpo.spec.estimates import estimate
from flowmbpo.spec.identity import spec_hash
from flowmbpo.spec.registry import Registry
from flowmbpo.spec.schema import Experiment, FlowWorldModelSpec, SimulatorWorldModelSpec
from flowmbpo.tracking.metrics import EPOCH_SECONDS
from flowmbpo.tracking.provenance import usable_cpus
from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.records import RunRecord
from flowmbpo.tracking.store import resolve_store

DAY = 86_400.0
_OVERNIGHT = DAY / 2  # what is proposed instead takes no longer
_LONG_REST = 600.0  # a policy that does not change for longer looks broken to who was not told
# Fitted to an epoch of eleven experiments on a core (docs/performance.md): what is there always, counted as products;
# and the width at which elementwise work takes as long as the products, which grow with the features times the width.
_FIXED_GFLOP, _EVEN_WIDTH = 9.0, 400.0


@dataclass(frozen=True)
class Forecast:
    """`epoch_seconds` is None where nothing can be said; `basis` says where it comes from, or why not.

    `first_seconds` of the model's many first updates come on top of the epochs, after the first `resting` of them; the
    policy does not change before. There are none where nothing is learned of a model.
    """

    name: str
    epochs: int
    epoch_seconds: float | None
    basis: str
    resting: int = 0
    first_seconds: float = 0.0

    @property
    def seconds(self) -> float | None:
        if self.epoch_seconds is None:
            return None
        return self.epochs * self.epoch_seconds + (self.first_seconds if self.resting <= self.epochs else 0.0)

    @property
    def rest_seconds(self) -> float:
        """Until the policy changes."""
        return self.resting * (self.epoch_seconds or 0.0) + self.first_seconds

    def ends_at_rest(self, limit: float | None) -> bool:
        """Whether the policy does not change at all in these epochs, or within `limit` seconds."""
        return self.epoch_seconds is not None and (
            self.resting > self.epochs or (limit is not None and limit < self.rest_seconds)
        )

    def document(self) -> dict[str, float | str | None]:
        return {
            "estimated_epoch_seconds": self.epoch_seconds,
            "estimated_first_updates_seconds": None if self.epoch_seconds is None else self.first_seconds,
            "estimated_seconds": self.seconds,
            "estimate_from": self.basis,
        }

    def __str__(self) -> str:
        if self.epoch_seconds is None or self.seconds is None:
            return f"{self.name}: how long it takes is not known ({self.basis})"
        rests = self.rest_seconds >= _LONG_REST
        rest = f"; its policy rests for the first {spoken(self.rest_seconds)} while the model begins" if rests else ""
        whole = f"{spoken(self.seconds)} for {self.epochs:,}"
        return f"{self.name}: about {spoken(self.epoch_seconds)} an epoch, {whole}{rest} ({self.basis})"


def forecast(spec: Experiment, epochs: int | None, device: str, past: Sequence[RunRecord]) -> Forecast:
    """For `epochs` (default: all) on `device`, `cpu` or the name of a GPU; `past` are the runs of the store."""
    count = min(epochs or spec.train.max_epochs, spec.train.max_epochs)
    took = [
        seconds
        for run in past
        if run.tags.get("flowmbpo.spec_hash") == spec_hash(spec)
        and device in run.tags.get("flowmbpo.device", "")
        and (device != "cpu" or run.tags.get(HOST_TAG) == hostname())
        and run.settled
        and (seconds := run.value(EPOCH_SECONDS)) is not None
    ]
    if took:
        return _forecast(spec, count, statistics.median(took[:5]), "measured in earlier runs")
    if device != "cpu":
        hours = spec.expected.hours if spec.expected else None
        expected = f"; the registry expects {hours[0]:g} to {hours[1]:g} hours on a suitable GPU" if hours else ""
        return Forecast(spec.name, count, None, f"this store has no run of it on {device or 'a GPU'}{expected}")
    work = estimate(spec).epoch_gflop
    seconds = _of_an_epoch(work, spec) / gigaflops()
    busy, cpus = os.getloadavg()[0], usable_cpus()
    shared = f"; {busy:,.0f} processes share its {cpus} core(s) now, so it takes longer" if busy > 1.5 * cpus else ""
    basis = f"estimated for this CPU in float32 when it is idle, from {tables.cell(work)} GFLOP an epoch{shared}"
    return _forecast(spec, count, seconds, basis)


def _forecast(spec: Experiment, epochs: int, epoch_seconds: float, basis: str) -> Forecast:
    """What the many first updates take follows from what an epoch takes, by their arithmetic."""
    cost, train = estimate(spec), spec.train
    if not cost.world_model_gflop:
        return Forecast(spec.name, epochs, epoch_seconds, basis)
    first = train.pretrain.updates if train.pretrain else train.wm_first_updates
    work = _with_elementwise(cost.world_model_gflop * first / train.wm_updates, spec)
    seconds = epoch_seconds * work / _of_an_epoch(cost.epoch_gflop, spec)
    return Forecast(spec.name, epochs, epoch_seconds, basis, train.resting_epochs, seconds)


def _of_an_epoch(gflop: float, spec: Experiment) -> float:
    """Everything of an epoch with matrix products of `gflop`, counted as products, GFLOP."""
    return _FIXED_GFLOP + _with_elementwise(gflop, spec)


def _with_elementwise(gflop: float, spec: Experiment) -> float:
    """Matrix products of `gflop` and the elementwise work beside them, counted as products, GFLOP."""
    model = spec.world_model
    width = (spec.actor if isinstance(model, SimulatorWorldModelSpec) else model).units[0]
    return gflop * (1 + _EVEN_WIDTH / width)


@cache
def gigaflops() -> float:
    """Speed of a core of this machine in matrix products of a network's size, GFLOP/s. Time in which others had the
    core does not count."""
    import numpy as np

    a, b = np.ones((1024, 512), np.float32), np.ones((512, 512), np.float32)
    begun, best = time.process_time(), float("inf")
    while time.process_time() - begun < 0.1:
        start = time.process_time()
        a @ b
        best = min(best, time.process_time() - start)
    return 2 * a.size * b.shape[1] / best / 1e9


def past_runs(tracking_uri: str | None) -> list[RunRecord]:
    """Runs of the store, if it is a file and can be read: nobody waits for a server to be told how long to wait."""
    try:
        store = resolve_store(tracking_uri)
        return open_reader(store).runs() if store.sqlite else []
    except (UserError, WorkFailed):
        return []


def announce(
    registry: Registry,
    specs: Sequence[Experiment],
    device: str,
    tracking_uri: str | None,
    epochs: int | None = None,
    limit: float | None = None,
) -> list[Forecast]:
    """Say on stderr how long each of `specs` takes on `device`, and whether its policy will not change in that time;
    where it is days and no time limit ends it before, also what to run instead. Returns the forecasts."""
    past = past_runs(tracking_uri)
    found = [forecast(spec, epochs, device, past) for spec in specs]
    for spec, one in zip(specs, found, strict=True):
        tables.say(str(one))
        if one.ends_at_rest(limit):
            tables.say(
                f"warning: the policy does not change in this part of {spec.name}: its model has its first updates in "
                f"epoch {one.resting:,}, about {spoken(one.rest_seconds)} from now",
                style="yellow",
            )
        if one.seconds is not None and min(one.seconds, limit or one.seconds) >= DAY:
            ways = [f"where a GPU is, `flowmbpo submit {spec.name}`"] if spec.resources.gpus else []
            if (other := _instead(spec, registry, past)) and other.seconds:
                ways.append(f"here, `flowmbpo run {other.name}` (about {spoken(other.seconds)})")
            hours = math.ceil(max(2.0, 2 * one.rest_seconds / 3600))
            ways.append(f"or a part of it, with --time-limit {hours}h; it can be continued")
            tables.say(f"warning: instead, {'; '.join(ways)}", style="yellow")
    return found


def _instead(spec: Experiment, registry: Registry, past: Sequence[RunRecord]) -> Forecast | None:
    """The largest experiment of the same task and the same kind of world model that is done overnight, if any."""
    wanted = _model(spec)
    known = [registry.resolve(name).spec for name in registry.names()]
    near = [other for other in known if other.env.kind == spec.env.kind and other.name != spec.name]
    same = [other for other in near if _model(other) == wanted] or [o for o in near if _model(o)[0] == wanted[0]]
    for others in (same, near):
        found = [forecast(other, None, "cpu", past) for other in others]
        short = [one for one in found if one.seconds is not None and one.seconds <= _OVERNIGHT]
        if short:
            return max(short, key=lambda one: one.seconds or 0.0)
    return None


def _model(spec: Experiment) -> tuple[str, str, int]:
    model = spec.world_model
    if isinstance(model, FlowWorldModelSpec):
        return model.kind, model.integrator, model.substeps
    return model.kind, "", 0


def spoken(seconds: float) -> str:
    """A duration as a person says it: one unit, two digits."""
    for unit, length in (("days", DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            amount = seconds / length
            return f"{amount:,.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"
    return f"{seconds:.2g} s"
