"""Silence of a run elsewhere, measured by one clock only."""

from __future__ import annotations

import pytest

from flowmbpo.runs import heartbeats
from flowmbpo.runs.lock import SILENCE_SECONDS, is_dead

ELSEWHERE = {"flowmbpo.host": "another-machine", "flowmbpo.directory": "/runs/a"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(heartbeats, "_seen", {})
    return tmp_path / "cache"


def dead(beat: float, now: float) -> bool:
    heartbeats._seen.clear()  # every look is a process of its own
    return is_dead({**ELSEWHERE, "flowmbpo.heartbeat": str(int(beat))}, now=now)


@pytest.mark.parametrize("behind", [-86_400.0, 0.0, 900.0, 86_400.0])
def test_a_run_lives_whatever_its_clock_says_as_long_as_its_heart_beats(behind):
    now = 1_000_000.0
    for _ in range(10):
        now += SILENCE_SECONDS - 1
        assert not dead(now - behind, now)


def test_a_run_whose_heart_stands_still_is_dead_once_we_have_seen_that_for_long_enough():
    now = 1_000_000.0
    assert not dead(now, now)
    assert not dead(now, now + SILENCE_SECONDS - 1)
    assert dead(now, now + SILENCE_SECONDS + 1)
    assert not dead(now + 1, now + SILENCE_SECONDS + 2)  # it beats again


def test_without_a_cache_only_a_process_that_keeps_looking_notices(cache, monkeypatch):
    cache.touch()
    tags = {**ELSEWHERE, "flowmbpo.heartbeat": "5"}
    assert not is_dead(tags, now=1_000.0)
    assert is_dead(tags, now=1_001.0 + SILENCE_SECONDS)
    monkeypatch.setattr(heartbeats, "_seen", {})
    assert not is_dead(tags, now=9_000.0)
