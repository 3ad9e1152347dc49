"""What is said of a training while it goes on: how long it still takes, and a word where no point comes for long."""

import pytest

from flowmbpo.runs.journal import PHASE_TAG
from flowmbpo.training import trainer as trainer_module
from flowmbpo.training.progress import Pace
from tests.training.test_trainer import make
from tests.training.tiny import MemoryTracker, QuietWatcher, tiny


def test_the_time_left_follows_from_the_epochs_after_the_first_updates():
    """Ten epochs at rest take a second, the first updates an hour, every later epoch ten seconds."""
    pace = Pace(resting_epochs=10)
    assert pace.eta(5, 1000, 0.5) is None
    assert pace.eta(10, 1000, 3601.0) is None
    assert pace.eta(20, 1000, 3701.0) == pytest.approx(9800)
    assert pace.eta(30, 1000, 3801.0) == pytest.approx(9700)
    assert pace.eta(1000, 1000, 13501.0) == 0


def test_a_run_that_is_continued_takes_its_pace_from_what_it_does_now():
    pace = Pace(resting_epochs=10)
    assert pace.eta(510, 1000, 100_000.0) is None
    assert pace.eta(520, 1000, 100_020.0) == pytest.approx(960)


def test_a_short_run_ends_without_time_left():
    assert Pace(resting_epochs=1).eta(5, 5, 3.0) == 0


def test_the_first_point_says_no_time_and_later_ones_do(tmp_path):
    trainer = make(tmp_path, tiny(max_epochs=8, warmup_epochs=3, log_interval=2))
    trainer.train()
    assert isinstance(trainer.watcher, QuietWatcher)
    first, second, third, last = (point.eta_seconds for point in trainer.watcher.points)
    assert (first, second, last) == (None, None, 0)
    assert third is not None
    assert third > 0


@pytest.mark.parametrize("slow", ["phase", "epochs"])
def test_no_word_of_a_phase_that_is_over_stays_and_none_is_missing(tmp_path, monkeypatch, slow):
    if slow == "phase":
        monkeypatch.setattr(trainer_module, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(trainer_module, "PHASE_SECONDS" if slow == "phase" else "SILENCE_SECONDS", 0.0)
    trainer = make(tmp_path, tiny(max_epochs=4, log_interval=4, wm_updates=1))
    shown = []
    begin = trainer.algorithm.begin_epoch

    def watched(epoch: int) -> str:
        assert isinstance(trainer.tracker, MemoryTracker)
        shown.append(trainer.tracker.tag_values.get(PHASE_TAG, ""))
        return begin(epoch)

    trainer.algorithm.begin_epoch = watched
    trainer.train()
    done = [f"epoch {epoch} of 4 is done" for epoch in (1, 2, 3)]
    # a single update is no phase that could be told of: after epoch 1 with its four there is nothing to add
    assert shown == (["", done[0], done[0], done[0]] if slow == "phase" else ["", *done])
    assert isinstance(trainer.tracker, MemoryTracker)
    assert trainer.tracker.tag_values[PHASE_TAG] == ""
