"""The replay page as text: its data are the episode's, it fetches nothing, and no name can break out of it."""

import base64
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from flowmbpo.errors import WorkFailed
from flowmbpo.reports.replay import html, write_replay_html
from tests.reports.walking import ball, walk

PAGE = Path(html.__file__).parent / "page"


def data_of(page):
    """The episode as the browser parses it."""
    return json.loads(re.search(r'<script id="recording" type="application/json">(.*?)</script>', page, re.S)[1])


def unpack(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype=dtype)


def test_the_page_holds_the_recording():
    episode = walk(300)
    found = data_of(html.replay_html(episode))
    assert (found["steps"], found["links"], found["dt"]) == (300, 9, pytest.approx(1 / 60))
    np.testing.assert_array_equal(unpack(found["reward"], "<f4"), episode.reward)
    np.testing.assert_array_equal(unpack(found["cumulative"], "<f4"), 4.0 * np.arange(1, 301))
    np.testing.assert_array_equal(unpack(found["clearance"], "<f4").reshape(300, 4), episode.clearance())
    assert [found["capsules"][index]["part"] for index in found["feet"]] == ["foot 1", "foot 2", "foot 3", "foot 4"]
    assert len(found["capsules"]) == 13


def test_poses_are_exact_to_a_hair():
    episode = walk(300)
    poses = data_of(html.replay_html(episode))["poses"]
    codes = unpack(poses["data"], "<u2").reshape(300, -1)
    restored = np.array(poses["low"]) + np.array(poses["step"]) * codes
    error = np.abs(restored - episode.poses.reshape(300, -1)).max(axis=0)
    spread = np.ptp(episode.poses.reshape(300, -1), axis=0)
    assert (error <= 0.5001 * spread / 65535 + 1e-7).all()
    assert error.max() < 0.2e-3  # m, on a run of 15 m


def test_what_does_not_move_needs_no_step():
    found = html.quantised(np.full((3, 2), 7.0))
    assert found["low"] == [7.0, 7.0]
    assert found["step"] == [0.0, 0.0]


def test_it_fetches_nothing_and_may_not():
    page = html.replay_html(walk(10))
    assert "default-src 'none'" in page
    ours = page.replace((PAGE / "three.bundle.min.js").read_text(), "")
    assert "http" not in re.sub(r"http-equiv", "", ours)
    assert not re.search(r"\b(src|href|@import|fetch|XMLHttpRequest|localStorage)\b\s*[=(]", ours)


def test_it_is_small():
    assert len((PAGE / "three.bundle.min.js").read_bytes()) < 1_000_000
    assert len(html.replay_html(walk(1000)).encode()) < 1_000_000


def test_the_library_is_named_with_its_licence():
    page = html.replay_html(walk(10))
    assert "Permission is hereby granted, free of charge" in page
    assert "three.js authors" in page
    revision = html.THREE_VERSION.removeprefix("r")
    assert f'"{revision}"' in (PAGE / "three.bundle.min.js").read_text()
    assert f"three@0.{revision}.0" in (PAGE / "README.md").read_text()


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "{{three}}", "<!--<script>", "a & \"b\" 'c'"])
def test_names_cannot_break_out(name):
    episode = dataclasses.replace(walk(5), title=name, details=((name, name),))
    page = html.replay_html(episode)
    assert data_of(page)["title"] == name
    assert data_of(page)["details"] == [[name, name]]
    assert page.count("<script") == html.replay_html(walk(5)).count("<script")


def test_a_body_without_feet_or_speed():
    found = data_of(html.replay_html(ball()))
    assert found["feet"] == []
    assert np.isnan(unpack(found["speed"], "<f4")).all()


def test_written_completely_or_not_at_all(tmp_path):
    target = tmp_path / "replay.html"
    write_replay_html(walk(5), target)
    assert target.read_text() == html.replay_html(walk(5))
    with pytest.raises(WorkFailed, match="could not write"):
        write_replay_html(walk(5), tmp_path / "missing" / "replay.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(WorkFailed, match=r"folder\.html"):
        write_replay_html(walk(5), tmp_path / "folder.html")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.html", "replay.html"]
