"""`bench log` measures what it says; how large the figure is depends on the machine and is not asserted."""

from flowmbpo.cli.bench_log import measure_log


def test_measure_log():
    found = measure_log(points=5, interval=0.1)
    assert (found["points"], found["metrics_per_point"], found["interval_seconds"]) == (5, 24, 0.1)
    assert found["call_seconds"] > 0
    assert found["background_seconds"] >= 0
    assert found["share"] > 0
