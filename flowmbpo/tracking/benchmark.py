"""Measures what logging costs; `flowmbpo bench log` prints it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from flowmbpo.data_types import Document

_METRICS_PER_POINT = 24


def measure_logging(points: int = 60, interval: float = 0.5) -> Document:
    """Log `points` points of 24 metrics, one every `interval` seconds, to a fresh sqlite store.

    `call_seconds` is what the training thread spends in `log` per point, `background_seconds` the CPU time of the
    background thread per point (deliveries, system samples and signs of life). `share` is both in relation to the
    interval: an upper bound of what logging takes from training, reached only where every core is busy.
    """
    from flowmbpo.runs.layout import RUNS
    from flowmbpo.tracking.run_tracker import RunDescription, start_run
    from flowmbpo.tracking.store import resolve_store

    names = [f"model/latent_error_{step}" for step in range(1, _METRICS_PER_POINT + 1)]
    with tempfile.TemporaryDirectory(prefix="flowmbpo-bench-") as folder:
        store = resolve_store(None, Path(folder))
        about = RunDescription("bench", 0, {"train": {"horizon": 16}}, "0", "cpu")
        with start_run(store, about, Path(folder) / RUNS) as tracker:
            time.sleep(2.0)  # let the spec and the provenance pass
            calls, background, begun = tracker.seconds, tracker.delivery.cpu_seconds, time.perf_counter()
            for point in range(points):
                tracker.log(dict.fromkeys(names, point * 0.5), step=point + 1)
                time.sleep(interval)
            wall = time.perf_counter() - begun
            calls, background = tracker.seconds - calls, tracker.delivery.cpu_seconds - background
    return {
        "points": points,
        "metrics_per_point": _METRICS_PER_POINT,
        "interval_seconds": interval,
        "call_seconds": calls / points,
        "background_seconds": background / points,
        "share": (calls + background) / wall,
    }
