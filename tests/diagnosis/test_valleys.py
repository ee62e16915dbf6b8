"""Evidence against one peak: what it promises of laws that have one, and what it finds where they have two."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

from everymode.diagnosis.valleys import (
    Lines,
    Mixtures,
    Valleys,
    directions,
    log_evidence,
    on_a_line,
    one_peak,
    valleys,
)


def on_lines(weights, means, scales, places):
    """Laws on lines, the same for every row, and what was observed."""
    rows = len(places)
    parts = (np.log(weights), np.asarray(means)[:, None], np.asarray(scales)[:, None, None])
    laws = Mixtures(*(np.broadcast_to(part, (rows, *part.shape)) for part in parts))
    summit = np.full(rows, means[int(np.argmax(np.asarray(weights) / scales))])
    return Lines(laws, np.asarray(places), summit, np.ones(rows, dtype=bool))


def random_law(rng, cells=40):
    """A density of some peaks on cells of different widths."""
    width = rng.uniform(0.2, 1.0, cells)
    mass = rng.gamma(0.7, size=cells) + 1e-3
    return mass / mass.sum() / width, width


def random_peak(rng, width, mode):
    """A density that rises up to the end of cell `mode` and falls from there."""
    steps = rng.gamma(0.3, size=len(width))
    left, right = np.sort(steps[: mode + 1]), np.sort(steps[mode + 1 :])[::-1]
    density = np.concatenate([left, right * rng.uniform(0.1, 3)]) + 1e-9
    return density / (density * width).sum()


@pytest.mark.parametrize("seed", range(5))
def test_the_nearest_law_with_one_peak_has_one_and_makes_an_e_value(seed):
    rng = np.random.default_rng(seed)
    density, width = random_law(rng)
    for mode in (0, 7, 20, 39):
        nearest = one_peak(density, width, mode)
        assert (nearest * width).sum() == pytest.approx(1)
        assert (np.diff(nearest[: mode + 1]) >= -1e-12).all()
        assert (np.diff(nearest[mode + 1 :]) <= 1e-12).all()
        gain = (density * width * np.log(density / nearest)).sum()
        for _ in range(50):
            other = random_peak(rng, width, mode)
            assert (density * width * np.log(density / other)).sum() >= gain - 1e-9  # none is nearer
            assert (other * width * density / nearest).sum() <= 1 + 1e-9  # the mean of the ratio, were that the truth


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: rng.standard_t(2, size=n),
        lambda rng, n: rng.exponential(size=n) - 1,
        lambda rng, n: rng.uniform(-2, 2, size=n),
    ],
)
def test_evidence_of_one_peak_is_large_as_rarely_as_it_says(draw):
    """Whatever mixture is believed in: here, ones of random valleys."""
    rng, logs = np.random.default_rng(0), []
    for _ in range(300):
        means, scales = np.sort(rng.normal(size=3)) * 1.5, rng.uniform(0.2, 0.8, 3)
        logs.append(log_evidence(valleys(on_lines(rng.dirichlet([2, 2, 2]), means, scales, draw(rng, 60)))))
    assert np.mean(np.array(logs) > np.log(20)) <= 0.05
    assert np.exp(logsumexp(logs) - np.log(len(logs))) < 1.5  # the mean of an e-value is 1 at most


def test_evidence_of_two_peaks_grows_with_the_rows():
    rng = np.random.default_rng(1)
    y = np.where(rng.random(400) < 0.3, -2.0, 2.0) + 0.7 * rng.normal(size=400)
    few, many = (log_evidence(valleys(on_lines([0.3, 0.7], [-2, 2], [0.7, 0.7], y[:n]))) for n in (40, 400))
    assert few > 1
    assert many > max(5 * few, np.log(20))


def test_a_valley_is_where_it_is():
    found = valleys(on_lines([0.3, 0.7], [-2.0, 2.0], [0.5, 0.5], [0.0, 2.0]))
    assert found.peaks[0] == pytest.approx([2.0, -2.0], abs=0.2)
    assert -1.5 < found.floor[0] < 1.0
    assert found.lesser == pytest.approx([0.3, 0.3], abs=0.02)
    assert (found.height < 0.05).all()
    assert (found.gains[0] < -1).all()  # in the valley
    assert found.gains[1] == pytest.approx([0.0, found.gains[1, 1]], abs=0.1)


def test_one_peak_has_no_valley_and_no_gain():
    found = valleys(on_lines([0.5, 0.5], [-0.3, 0.3], [1.0, 1.0], [0.0, 5.0]))
    assert (found.height == 1).all()
    assert (found.gains == 0).all()
    assert log_evidence(found) == pytest.approx(0)


def test_the_law_on_a_line_is_the_density_along_it():
    rng = np.random.default_rng(0)
    rows, k, d = 4, 3, 3
    roots = np.tril(rng.normal(size=(rows, k, d, d)) * 0.3)
    roots[..., range(d), range(d)] = rng.uniform(0.5, 1.5, (rows, k, d))
    mixtures = Mixtures(np.log(rng.dirichlet(np.ones(k), rows)), rng.normal(size=(rows, k, d)), roots)
    along = rng.normal(size=(rows, d))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    through = rng.normal(size=(rows, d))
    line = on_a_line(mixtures, along, through)
    np.testing.assert_allclose(line.place, (through * along).sum(axis=1))
    steps = np.linspace(-30, 30, 20_001)
    points = through[:, None] + (steps[:, None] - line.place[:, None, None]) * along[:, None]
    joint = np.exp(mixtures.log_density(points))
    joint /= joint.sum(axis=1, keepdims=True) * (steps[1] - steps[0])
    told = np.exp(line.laws.log_density(np.broadcast_to(steps[:, None], (rows, len(steps), 1))))
    np.testing.assert_allclose(told, joint, atol=1e-6)


def test_a_direction_leads_across_the_valley():
    means = np.array([[[0.0, 0.0], [0.5, 0.0], [0.0, 6.0]]])
    mixtures = Mixtures(np.log([[0.5, 0.2, 0.3]]), means, np.tile(np.eye(2), (1, 3, 1, 1)))
    assert np.abs(directions(mixtures)[0]) == pytest.approx([0.0, 1.0], abs=0.1)


def test_rows_of_a_group_count_as_one_and_never_more_than_their_average():
    rng = np.random.default_rng(2)
    y = np.where(rng.random(60) < 0.3, -2.0, 2.0) + 0.7 * rng.normal(size=60)
    law = ([0.3, 0.7], [-2, 2], [0.7, 0.7])
    copies = valleys(on_lines(*law, np.repeat(y, 4)))
    assert log_evidence(copies, np.repeat(np.arange(60), 4)) == pytest.approx(log_evidence(valleys(on_lines(*law, y))))
    other = np.where(rng.random(60) < 0.3, -2.0, 2.0) + 0.7 * rng.normal(size=60)
    both = log_evidence(valleys(on_lines(*law, np.concatenate([y, other]))), np.tile(np.arange(60), 2))
    apart = [log_evidence(valleys(on_lines(*law, one))) for one in (y, other)]
    assert both <= np.logaddexp(*apart) - np.log(2) + 1e-9


def test_rows_without_a_valley_cost_their_group_nothing():
    rng = np.random.default_rng(3)
    y = np.where(rng.random(40) < 0.5, -2.0, 2.0) + 0.7 * rng.normal(size=40)
    found = valleys(on_lines([0.5, 0.5], [-2, 2], [0.7, 0.7], y))
    plain = valleys(on_lines([0.5, 0.5], [-0.3, 0.3], [1.0, 1.0], y))
    joined = Valleys(
        **{k: np.concatenate([getattr(found, k), getattr(plain, k)]) for k in Valleys.__dataclass_fields__}
    )
    assert log_evidence(joined, np.tile(np.arange(40), 2)) == pytest.approx(log_evidence(found))
