"""Figures of curves and estimates over seeds, against numbers worked out by hand and against invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowmbpo.reports import statistics
from flowmbpo.reports.statistics import band, improvement, interquartile_mean, stability_class, summarize_curve

values = st.lists(st.floats(-1e4, 1e4).map(lambda value: round(value, 2)), min_size=2, max_size=8)


def curve(*rewards: float):
    steps = 2048 * np.arange(1, len(rewards) + 1)
    return summarize_curve(steps, np.array(rewards, dtype=float), np.arange(1.0, len(rewards) + 1))


def test_a_curve_by_hand():
    found = curve(100, 1300, 5200, 900, 1040)
    assert (found.peak, found.final, found.last100) == (5200, 1040, (100 + 1300 + 5200 + 900 + 1040) / 5)
    assert found.stability == pytest.approx(0.2)
    assert found.env_steps == 5 * 2048
    assert found.steps_to == {1200: 2 * 2048, 5000: 3 * 2048}
    assert found.seconds_to == {1200: 2.0, 5000: 3.0}


def test_last100_is_the_mean_of_the_last_hundred_points():
    assert curve(*range(250)).last100 == pytest.approx(np.mean(range(150, 250)))


def test_a_threshold_counts_when_it_is_met_exactly_and_is_none_when_not():
    assert curve(1199.99).steps_to == {1200: None, 5000: None}
    assert curve(1200.0).steps_to[1200] == 2048


def test_points_that_are_not_finite_are_counted_and_left_out():
    found = curve(100, float("nan"), float("inf"), 1.7976931348623157e308, 50)
    assert (found.points, found.nonfinite, found.peak, found.final) == (5, 3, 100, 50)


@pytest.mark.parametrize("rewards", [(), (float("nan"),)])
def test_a_curve_without_numbers(rewards):
    found = curve(*rewards)
    assert (found.peak, found.final, found.last100, found.stability, found.env_steps) == (None, None, None, None, 0)


def test_stability_has_no_meaning_below_zero():
    assert curve(-5, -3, -4).stability is None


@pytest.mark.parametrize(
    ("stability", "word"),
    [(1.0, "stable"), (0.6, "stable"), (0.59, "unstable"), (0.3, "unstable"), (0.29, "collapsed"), (None, None)],
)
def test_verdicts_at_their_limits(stability, word):
    assert stability_class(stability) == word


def test_iqm_is_the_mean_below_four_runs_and_trims_a_quarter_above():
    assert interquartile_mean([1.0, 2.0, 6.0]).value == 3.0
    assert interquartile_mean([0.0, 10.0, 20.0, 1000.0]).value == 15.0
    assert interquartile_mean([1000.0, 3, 4, 5, -1000, 4.0, 4.0, 4.0]).value == pytest.approx(4.0)


def test_no_interval_without_two_runs_in_every_stratum():
    assert interquartile_mean([7.0]) == statistics.Estimate(7.0, None, None, 1)
    assert interquartile_mean([7.0, 8.0], [1.0]).low is None
    assert interquartile_mean() == statistics.Estimate(None, None, None, 0)


def test_strata_are_resampled_by_themselves():
    """Two strata without spread have no uncertainty together; pooled they would."""
    stratified = interquartile_mean([0.0, 0.0], [100.0, 100.0])
    pooled = interquartile_mean([0.0, 0.0, 100.0, 100.0])
    assert stratified.low == stratified.high == stratified.value == 50.0
    assert pooled.low < 50.0 < pooled.high


def test_the_interval_is_repeatable_and_covers_what_it_should():
    """Means of 20 draws: a percentile bootstrap interval covers the truth in roughly 90 to 97 of 100 cases."""
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(100):
        found = interquartile_mean(random.normal(3.0, 1.0, size=20))
        covered += found.low <= 3.0 <= found.high
    assert 85 <= covered <= 99
    assert interquartile_mean([1.0, 2.0, 4.0]) == interquartile_mean([1.0, 2.0, 4.0])


def test_probability_of_improvement_by_counting_pairs():
    found = improvement([2.0, 4.0], [1.0, 3.0, 4.0])
    assert found.probability == pytest.approx((1 + 2.5) / 6)  # 2 > 1; 4 > 1, 4 > 3, 4 = 4 counts half
    assert found.seeds == (2, 3)


def test_separated_samples_have_a_degenerate_interval_but_an_honest_p_value():
    found = improvement([10.0, 11.0], [1.0, 2.0])
    assert (found.probability, found.low, found.high) == (1.0, 1.0, 1.0)
    assert found.p_value == pytest.approx(1 / 3)  # 2 of the 6 orders of four runs are this extreme


def test_one_run_has_no_interval():
    found = improvement([5.0], [1.0, 2.0])
    assert (found.probability, found.low, found.high) == (1.0, None, None)


@settings(max_examples=25, deadline=None)
@given(values, values)
def test_improvement_is_symmetric(a, b):
    assert improvement(a, b).probability + improvement(b, a).probability == pytest.approx(1.0)


@settings(max_examples=25, deadline=None)
@given(values, st.randoms())
def test_order_of_seeds_does_not_matter(sample, random):
    shuffled = random.sample(sample, len(sample))
    assert interquartile_mean(shuffled).value == pytest.approx(interquartile_mean(sample).value, abs=1e-6)
    assert improvement(sample, shuffled).probability == pytest.approx(0.5)


@settings(max_examples=25, deadline=None)
@given(values, st.floats(0.5, 4.0), st.floats(-100, 100))
def test_scaling_and_shifting_carry_over_to_the_interval(sample, scale, shift):
    plain, moved = interquartile_mean(sample), interquartile_mean([scale * value + shift for value in sample])
    for name in ("value", "low", "high"):
        assert getattr(moved, name) == pytest.approx(scale * getattr(plain, name) + shift, abs=1e-4, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(values)
def test_the_interval_lies_within_the_data(sample):
    found = interquartile_mean(sample)
    assert min(sample) - 1e-6 <= found.low <= found.high <= max(sample) + 1e-6


def test_band_of_equal_curves_has_no_width_and_ends_with_the_shortest():
    x = np.arange(0.0, 11.0)
    grid, middle, low, high = band([(x, 2 * x), (x[:6], 2 * x[:6])])
    assert (grid[0], grid[-1]) == (0.0, 5.0)
    for line in (middle, low, high):
        np.testing.assert_allclose(line, 2 * grid, atol=1e-9)


def test_band_contains_its_middle_and_ignores_gaps():
    x = np.arange(0.0, 10.0)
    gap = np.where(x == 4, np.nan, x)
    grid, middle, low, high = band([(x, gap), (x, x + 2), (x, x + 4)])
    np.testing.assert_allclose(middle, grid + 2)
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert all(len(part) == 0 for part in band([]))
