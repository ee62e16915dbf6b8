"""The law of the ECDF of uniform numbers, its band, and p-values: against simulation and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, kstest

from everymode.calibration.uniform import (
    band_of,
    ecdf,
    ecdf_p_value,
    holm,
    least_tail,
    ranks,
    share_band,
    share_p,
)


@pytest.mark.parametrize("rows", [20, 137, 1000])
def test_the_band_holds_95_of_100_uniform_samples_and_agrees_with_the_statistic(rows):
    rng = np.random.default_rng(rows)
    band, tries = band_of(rows), 1500
    samples = rng.random((tries, rows))
    shares = np.stack([ecdf(sample, band.places) for sample in samples])
    held = ((shares >= band.low - 1e-12) & (shares <= band.high + 1e-12)).all(axis=1)
    least = np.array([least_tail(sample) for sample in samples])
    assert (held == (least >= band.bound)).all()
    assert held.mean() >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / tries)  # never too narrow
    assert held.mean() <= 0.97 + 3 * np.sqrt(0.05 * 0.95 / tries)  # nor needlessly wide: counts come in whole numbers


@pytest.mark.parametrize("rows", [25, 400])
def test_p_values_are_the_shares_of_a_simulation(rows):
    rng = np.random.default_rng(1)
    least = np.array([least_tail(rng.random(rows)) for _ in range(2000)])
    for asked in np.quantile(least, [0.02, 0.1, 0.5, 0.9]):
        assert ecdf_p_value(asked, rows) == pytest.approx((least <= asked).mean(), abs=0.035)
    assert ecdf_p_value(1.0, rows) == pytest.approx(1)
    assert 0 < ecdf_p_value(1e-40, rows) < 1e-37
    assert ecdf_p_value(0.0, rows) == 0


def test_with_two_parts_the_law_is_the_binomial_of_one_place():
    counts = np.array([0, 1])  # of two numbers, at most a half
    for count in counts:
        values = np.array([0.25] * count + [0.75] * (2 - count))
        tail = min(1.0, 2 * min(binom.cdf(count, 2, 0.5), binom.sf(count - 1, 2, 0.5)))
        assert least_tail(values) == pytest.approx(tail)
        assert ecdf_p_value(tail, 2) == pytest.approx(0.5 if count == 0 else 1.0)  # none or both: a half


def test_p_values_and_the_band_draw_the_same_line():
    bound = band_of(300).bound
    assert ecdf_p_value(bound * 0.999, 300) <= 0.05
    assert ecdf_p_value(bound * 1.001, 300) == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("n", [1, 7, 100])
def test_ranks_among_exchangeable_scores_are_uniform_ties_or_not(n):
    rng = np.random.default_rng(n)
    for scores in (rng.normal(size=(4000, n + 1)), rng.integers(3, size=(4000, n + 1)).astype(float)):
        assert kstest(ranks(scores[:, 0], scores[:, 1:], rng), "uniform").pvalue > 0.001
    lowest = ranks(np.zeros(1000), np.ones((1000, n)), rng)
    assert lowest.max() < 1 / (n + 1)
    assert ranks(np.full(1000, 2.0), np.ones((1000, n)), rng).min() > n / (n + 1) - 1e-12


def test_the_band_of_a_share_is_binomial():
    low, high = share_band(0.9, 200)
    counts = np.arange(201)
    inside = (counts / 200 >= low) & (counts / 200 <= high)
    held = binom.pmf(counts, 200, 0.9)[inside].sum()
    assert 0.95 <= held < 0.975
    p = np.array([share_p(count / 200, 0.9, 200) for count in counts])
    assert ((p >= 0.05) == inside).all()


def test_holm_is_the_step_down_procedure():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
