"""Seconds of an epoch's phases, measured where the work runs and without waiting for it inside the epoch."""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch


class PhaseClock:
    """A stopwatch with laps. On a GPU the laps are events in its queue, and only `stop` waits for the device."""

    def __init__(self, device: str) -> None:
        self._waits = device == "cuda"
        self._laps: list[tuple[str, Any]] = []

    def start(self) -> None:
        """Begin; laps of an epoch that was not stopped are forgotten."""
        self._laps = [("", self._now())]

    def lap(self, name: str) -> None:
        """What ran since the last lap was `name`."""
        self._laps.append((name, self._now()))

    def stop(self) -> dict[str, float]:
        """Seconds by lap, and `epoch`, their sum. Waits until the device has done all of it."""
        stamps = [stamp for _, stamp in self._laps]
        if self._waits:
            stamps[-1].synchronize()
            stamps = [stamps[0].elapsed_time(stamp) / 1000 for stamp in stamps]  # of milliseconds
        names = [name for name, _ in self._laps[1:]]
        lengths = [end - begin for begin, end in itertools.pairwise(stamps)]
        return {**dict(zip(names, lengths, strict=True)), "epoch": stamps[-1] - stamps[0]}

    def _now(self) -> Any:
        if not self._waits:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
