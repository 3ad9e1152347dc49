"""Pictures: what is drawn, that it is a picture, that the same data give the same bytes."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from flowmbpo.errors import UserError
from flowmbpo.reports import compare, plots, run_picture
from flowmbpo.reports.figure_style import COLOURS, PICTURES, to_svg
from flowmbpo.reports.known import published
from flowmbpo.runs.files import check_output
from flowmbpo.runs.journal import Create, Journal, Metrics
from flowmbpo.runs.layout import RunFiles
from flowmbpo.spec.registry import load_registry

PNG = b"\x89PNG"


@pytest.fixture
def comparison(store, registry):
    for seed in range(3):
        store.run("5M-baseline", seed, [100.0 * point + seed for point in range(20)], evaluations={19: 1900.0 + seed})
    store.run("48M-flow-v2", 0, [50.0] * 9 + [float("nan")], evaluations={9: 60.0})
    return compare(["5M-baseline", "48M-flow-v2"], tracking_uri=store.uri, registry=registry)


def test_series_have_a_curve_per_run_by_steps_and_by_seconds(comparison):
    baseline, flow = plots.series_of(comparison, "train/episode_reward")
    assert [len(baseline.curves), len(flow.curves)] == [3, 1]
    np.testing.assert_array_equal(baseline.curves[2][0], 2048 * np.arange(1, 21))
    np.testing.assert_array_equal(baseline.curves[2][1], 100 * np.arange(20) + 2)
    by_time = plots.series_of(comparison, "train/episode_reward", "seconds")
    np.testing.assert_allclose(by_time[0].curves[0][0], np.arange(1.0, 21.0))
    assert plots.series_of(comparison, "train/reward_loss") == []


def test_a_row_keeps_its_colour_in_every_figure(comparison):
    (flow,) = plots.series_of(comparison.subset(["48M-flow-v2"]), "train/episode_reward")
    assert flow.look["color"] == COLOURS[1]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_curves_are_saved_in_the_format_of_the_suffix(comparison, registry, tmp_path, suffix):
    path = plots.save_curves(comparison, tmp_path / f"curves{suffix}", published(load_registry(registry)))
    begin = {".png": PNG, ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(begin)


def test_wrong_picture_files_are_the_users_mistake(tmp_path):
    for path in (tmp_path / "curves.gif", tmp_path / "no" / "curves.png", tmp_path):
        with pytest.raises(UserError):
            check_output(path, PICTURES)


def test_svg_is_well_formed_follows_the_page_and_repeats(comparison):
    series = plots.series_of(comparison, "train/episode_reward")
    first, second = (to_svg(plots.curves_figure(series), "key", "a <title>") for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)
    assert root.find("{http://www.w3.org/2000/svg}title").text == "a <title>"
    assert "var(--c0)" in first
    assert not re.search(r"#(0b62c4|1b1f27)", first)
    ids = re.findall(r'\bid="([^"]+)"', first)
    assert ids
    assert all(name.startswith("key-") for name in ids)
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', first):
        assert target in ids


def test_names_with_dollar_signs_are_not_mathematics(store, registry):
    store.run("a$\\frac$b", 0, [1.0, 2.0])
    comparison = compare(["a$\\frac$b"], tracking_uri=store.uri, registry=registry)
    svg = to_svg(plots.curves_figure(plots.series_of(comparison, "train/episode_reward")), "k", "t")
    assert "a$\\frac$b" in svg


def test_the_picture_of_one_run(tmp_path):
    history = {"train/episode_reward": ([1, 2, 3], [10.0, float("nan"), 1500.0]), "eval/mean_reward": ([3], [1400.0])}
    assert plots.learning_curve_picture(history, tmp_path / "curve.png", "a/seed-0").read_bytes().startswith(PNG)
    assert plots.learning_curve_picture({}, tmp_path / "none.png", "empty").read_bytes().startswith(PNG)


def test_the_picture_is_drawn_from_the_journal_of_the_run(tmp_path, monkeypatch):
    files = RunFiles(tmp_path / "run")
    journal = Journal(files.journal)
    journal.append(Create("run", "a/seed-0", 1, {}, ""))
    journal.append(Metrics(2, 10, {"train/episode_reward": 5.0, "train/epoch": 1.0}))
    journal.append(Metrics(3, 20, {"train/episode_reward": 6.0, "eval/mean_reward": 7.0}))
    with open(files.journal, "a") as file:
        file.write('{"op": "metr')
    seen = []
    monkeypatch.setattr(run_picture, "learning_curve_picture", lambda *given: seen.append(given) or given[1])
    assert run_picture.picture_of_run(tmp_path / "run", tmp_path) == tmp_path / "learning_curve.png"
    history, _, title = seen[0]
    assert title == "a/seed-0"
    assert history["train/episode_reward"] == ([10, 20], [5.0, 6.0])
    assert history["eval/mean_reward"] == ([20], [7.0])


def test_matplotlib_is_left_as_it_was(comparison):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.evaluated_figure(comparison, None)
    assert dict(matplotlib.rcParams) == before
