"""Phases are timed where they run; only the end of an epoch waits for a GPU."""

import time

import pytest
import torch

from flowmbpo.training.clock import PhaseClock


def test_laps_add_up_to_the_epoch():
    clock = PhaseClock("cpu")
    clock.start()
    clock.lap("short")
    time.sleep(0.02)
    clock.lap("long")
    seconds = clock.stop()
    assert list(seconds) == ["short", "long", "epoch"]
    assert seconds["long"] >= 0.02 > seconds["short"]
    assert seconds["epoch"] == pytest.approx(seconds["short"] + seconds["long"])


def test_starting_again_forgets_an_epoch_that_was_not_stopped():
    clock = PhaseClock("cpu")
    clock.start()
    clock.lap("lost")
    clock.start()
    clock.lap("kept")
    assert list(clock.stop()) == ["kept", "epoch"]


class Queue:
    """Stands for a GPU's queue: an event has a time only after somebody waited for it."""

    def __init__(self):
        self.milliseconds, self.waited = 0.0, 0

    def event(self, enable_timing):
        assert enable_timing
        queue = self

        class Event:
            def record(self):
                queue.milliseconds += 250.0
                self.at = queue.milliseconds

            def synchronize(self):
                queue.waited += 1

            def elapsed_time(self, other):
                assert queue.waited, "read before the device was done"
                return other.at - self.at

        return Event()


def test_on_a_gpu_only_the_end_of_the_epoch_waits(monkeypatch):
    queue = Queue()
    monkeypatch.setattr(torch.cuda, "Event", queue.event)
    clock = PhaseClock("cuda")
    clock.start()
    clock.lap("rollout")
    clock.lap("actor")
    assert queue.waited == 0
    assert clock.stop() == {"rollout": 0.25, "actor": 0.25, "epoch": 0.5}
    assert queue.waited == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_real_events():
    clock, x = PhaseClock("cuda"), torch.randn(4096, 4096, device="cuda")
    clock.start()
    clock.lap("nothing")
    for _ in range(20):
        x = (x @ x).clamp(-1, 1)
    clock.lap("products")
    seconds = clock.stop()
    assert 0 <= seconds["nothing"] < seconds["products"]
