"""`bench log` measures what it says; how large the figure is depends on the machine and is not asserted."""

from flowmbpo.tracking.benchmark import measure_logging


def test_measure_logging():
    found = measure_logging(points=5, interval=0.1)
    assert (found["points"], found["metrics_per_point"], found["interval_seconds"]) == (5, 24, 0.1)
    assert found["call_seconds"] > 0
    assert found["background_seconds"] >= 0
    assert found["share"] > 0
