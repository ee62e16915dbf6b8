"""Every metric beside a published implementation on the same draws; where one differs, by how much, and no more."""

from typing import Any

import numpy as np
import ot
import pytest
import scoringrules as sr
from scipy import stats
from scipy.spatial.distance import cityblock
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GroupKFold, PredefinedSplit, cross_val_predict, cross_val_score
from sklearn.neighbors import KernelDensity, NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from everymode import metrics, problems
from everymode.metrics import wasserstein

scoringrules: Any = sr  # its annotations say None where it gives arrays
pot: Any = ot
SIZES = pytest.mark.parametrize(("rows", "n", "dy"), [(7, 2, 2), (5, 31, 3), (3, 100, 8)])


def _answers_and_draws(rows, n, dy):
    rng = np.random.default_rng(rows + n + dy)
    return rng.normal(size=(rows, dy)), 0.3 + rng.gamma(2, size=(rows, n, dy))


# Scores against scoringrules ----------------------------------------------------------------------------------------


@SIZES
def test_crps_is_the_fair_one_of_scoringrules(rows, n, dy):
    y, draws = _answers_and_draws(rows, n, dy)
    by_column = scoringrules.crps_ensemble(y, draws, m_axis=1, estimator="fair")
    np.testing.assert_allclose(metrics.crps_values(y, draws), by_column.mean(axis=1), rtol=1e-10)


@SIZES
def test_the_default_of_scoringrules_is_above_by_what_the_docstring_says(rows, n, dy):
    y, draws = _answers_and_draws(rows, n, dy)
    i, j = np.triu_indices(n, 1)
    apart = np.abs(draws[:, i] - draws[:, j]).mean(axis=1)
    excess = scoringrules.crps_ensemble(y, draws, m_axis=1).mean(axis=1) - metrics.crps_values(y, draws)
    np.testing.assert_allclose(excess, apart.mean(axis=1) / (2 * n), rtol=1e-9)
    apart = np.linalg.norm(draws[:, i] - draws[:, j], axis=2).mean(axis=1)
    excess = scoringrules.es_ensemble(y, draws) - metrics.energy_scores(y, draws)
    np.testing.assert_allclose(excess, apart / (2 * n), rtol=1e-9)


@SIZES
def test_the_energy_score_is_the_fair_one_of_scoringrules(rows, n, dy):
    y, draws = _answers_and_draws(rows, n, dy)
    fair = scoringrules.es_ensemble(y, draws, estimator="fair")
    np.testing.assert_allclose(metrics.energy_scores(y, draws), fair, rtol=1e-10)


@SIZES
@pytest.mark.parametrize("order", [0.5, 1.0])
def test_the_variogram_score_is_the_fair_one_of_scoringrules(rows, n, dy, order):
    y, draws = _answers_and_draws(rows, n, dy)
    weights = np.random.default_rng(0).uniform(size=(dy, dy))  # not symmetric
    for given in (None, weights):
        everywhere = None if given is None else np.broadcast_to(given, (rows, dy, dy))
        fair = scoringrules.vs_ensemble(y, draws, w=everywhere, p=order, estimator="fair")
        np.testing.assert_allclose(metrics.variogram_scores(y, draws, order=order, weights=given), fair, rtol=1e-9)


@SIZES
def test_the_default_variogram_score_of_scoringrules_is_above_by_the_variance_of_a_mean(rows, n, dy):
    y, draws = _answers_and_draws(rows, n, dy)
    powers = np.sqrt(np.abs(draws[..., None] - draws[:, :, None]))
    excess = scoringrules.vs_ensemble(y, draws) - metrics.variogram_scores(y, draws)
    np.testing.assert_allclose(excess, (powers.var(axis=1, ddof=1) / n).sum(axis=(1, 2)), rtol=1e-9)


def test_the_scores_of_many_draws_are_those_of_their_law():
    """CRPS and likelihood of a normal in closed form, by scoringrules."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    found = metrics.crps_values(y[:, None], rng.normal(0.5, 2, size=(200, 4000, 1)))
    np.testing.assert_allclose(found, scoringrules.crps_normal(y, 0.5, 2), atol=0.1)
    assert found.mean() == pytest.approx(scoringrules.crps_normal(y, 0.5, 2).mean(), abs=0.005)


def test_the_likelihood_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    model = KernelDensity(bandwidth=0.5).fit(rng.normal(size=(50, 2)))
    y = rng.normal(size=(30, 2))
    measure = metrics.log_likelihood(model.score_samples(y))
    assert measure.value == pytest.approx(model.score(y) / 30)
    assert metrics.log_likelihood(stats.norm.logpdf(y[:, 0])).value == pytest.approx(
        -scoringrules.logs_normal(y[:, 0], 0, 1).mean()
    )


# Distances ----------------------------------------------------------------------------------------------------------


def test_the_energy_score_of_real_answers_holds_the_energy_distance_of_scipy():
    """scipy's squares to 2 E|a - b| - E|a - a'| - E|b - b'| with the pairs i = j left in."""
    rng = np.random.default_rng(2)
    n = 40
    draws, real = rng.normal(size=n), rng.gamma(2, size=n)
    scores = metrics.energy_scores(real[:, None], np.broadcast_to(draws[:, None], (n, n, 1)))
    fair = 2 * scores.mean() - np.abs(real[:, None] - real).sum() / (n * (n - 1))
    left_in = sum(np.abs(one[:, None] - one).mean() for one in (draws, real)) / (n - 1)
    assert stats.energy_distance(draws, real) ** 2 == pytest.approx(fair + left_in, rel=1e-10)


@SIZES
def test_sliced_wasserstein_is_that_of_pot_in_the_same_directions(rows, n, dy):
    rng = np.random.default_rng(3)
    draws, reference = rng.normal(size=(rows, n, dy)), rng.gamma(2, size=(rows, n, dy))
    units = wasserstein._directions(dy, 64, 5)
    found = metrics.sliced_wassersteins(draws, reference, seed=5)
    theirs = [pot.sliced_wasserstein_distance(a, b, projections=units.T) for a, b in zip(draws, reference, strict=True)]
    np.testing.assert_allclose(found, theirs, rtol=1e-9)
    own = [
        pot.sliced_wasserstein_distance(a, b, n_projections=2000, seed=0) for a, b in zip(draws, reference, strict=True)
    ]
    np.testing.assert_allclose(found, own, rtol=0.15)  # its own directions, and their chance


def test_wasserstein_in_one_dimension_is_the_exact_one_of_pot_and_not_of_order_1():
    rng = np.random.default_rng(4)
    draws, reference = rng.normal(size=(6, 30, 1)), rng.gamma(2, size=(6, 30, 1))
    found = metrics.sliced_wassersteins(draws, reference)
    plan = np.full(30, 1 / 30)
    exact = [pot.emd2(plan, plan, pot.dist(a, b)) for a, b in zip(draws, reference, strict=True)]
    np.testing.assert_allclose(found**2, np.asarray(exact, float), rtol=1e-9)
    order_1 = [stats.wasserstein_distance(a[:, 0], b[:, 0]) for a, b in zip(draws, reference, strict=True)]
    assert (np.array(order_1) < found).all()
    shifted = metrics.sliced_wassersteins(reference + 2, reference)  # where both are the length of the shift
    np.testing.assert_allclose(shifted, stats.wasserstein_distance(reference[0, :, 0] + 2, reference[0, :, 0]))


def _mmd_by_a_double_loop(a, b, s):
    """MMD_u^2 of Gretton et al. (2012), the mean over Gaussians of the widths `s`."""
    n = len(a)
    total = 0.0
    for width in s:

        def kernel(p, q, width=width):
            return np.exp(-((p - q) ** 2).sum() / (2 * width**2))

        within = sum(kernel(a[i], a[j]) + kernel(b[i], b[j]) for i in range(n) for j in range(n) if i != j)
        across = sum(kernel(a[i], b[j]) for i in range(n) for j in range(n))
        total += within / (n * (n - 1)) - 2 * across / n**2
    return total / len(s)


def test_mmd_is_the_published_sum_over_pairs():
    rng = np.random.default_rng(5)
    draws, reference = rng.normal(size=(4, 12, 3)), rng.gamma(2, size=(4, 12, 3))
    found = metrics.mmd_values(draws, reference, bandwidth=0.8)
    widths = [0.8 * factor for factor in (0.25, 0.5, 1, 2, 4)]
    theirs = [_mmd_by_a_double_loop(a, b, widths) for a, b in zip(draws, reference, strict=True)]
    np.testing.assert_allclose(found, theirs, rtol=1e-10)


def test_mmd_with_the_pairs_of_one_point_left_in_is_above_by_at_most_2_over_n():
    """MMD_b^2, as many packages have it, by scikit-learn's kernels."""
    rng = np.random.default_rng(6)
    draws, reference = rng.normal(size=(2, 50, 12, 3))
    biased = np.zeros(50)
    for row, (a, b) in enumerate(zip(draws, reference, strict=True)):
        for width in (0.25, 0.5, 1, 2, 4):
            kernels = (rbf_kernel(p, q, gamma=0.5 / width**2).mean() for p, q in ((a, a), (b, b), (a, b)))
            biased[row] += np.dot([1, 1, -2], list(kernels)) / 5
    excess = biased - metrics.mmd_values(draws, reference, bandwidth=1.0)
    assert (excess > 0).all()
    assert (excess < 2 / 12).all()


# Neighbours and classifiers -----------------------------------------------------------------------------------------


def _prdc_by_definition(real, fake, k):
    """Precision and recall of Kynkäänniemi et al. (2019), density and coverage of Naeem et al. (2020)."""

    def radii(points):
        return NearestNeighbors(n_neighbors=k).fit(points).kneighbors()[0][:, -1]  # not its own neighbour

    def in_balls(points, centres):
        near = NearestNeighbors().fit(points)
        held = [near.radius_neighbors([c], r)[1][0] for c, r in zip(centres, radii(centres), strict=True)]
        return np.array([np.isin(np.arange(len(points)), each) for each in held])  # (centres, points)

    fakes_in_real, reals_in_fake = in_balls(fake, real), in_balls(real, fake)
    return (
        fakes_in_real.any(axis=0).mean(),
        reals_in_fake.any(axis=0).mean(),
        fakes_in_real.sum() / (k * len(fake)),
        fakes_in_real.any(axis=1).mean(),
    )


@pytest.mark.parametrize("k", [1, 5])
def test_prdc_is_that_of_its_paper_row_by_row(k):
    rng = np.random.default_rng(7)
    reference = rng.normal(size=(6, 30, 2))
    draws = 0.7 + rng.normal(size=(6, 30, 2))
    found = metrics.prdc(draws, reference, neighbours=k)
    scale = reference.std(axis=(0, 1))
    theirs = [_prdc_by_definition(real / scale, fake / scale, k) for real, fake in zip(reference, draws, strict=True)]
    expected = np.mean(theirs, axis=0)
    assert len(set(expected)) == 4
    np.testing.assert_allclose([found[name].value for name in metrics.PRDC], expected, rtol=1e-12)


@pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__name__}")
@pytest.mark.parametrize("classifier", ["forest", "mlp"])
def test_c2st_is_cross_validation_by_scikit_learn(classifier):
    rng = np.random.default_rng(8)
    rows, n = 60, 4
    x = rng.uniform(-1, 1, (rows, 1))
    draws, reference = x[:, None] + 0.5 * rng.normal(size=(2, rows, n, 1))
    draws = 0.8 + 1.6 * draws
    measure = metrics.c2st(x, draws, reference, classifier=classifier, seed=3)
    pairs = [np.column_stack([np.repeat(x, n), side.ravel()]) for side in (draws, reference)]
    features, is_real = np.concatenate(pairs), np.repeat([False, True], rows * n)
    features = StandardScaler().fit(pairs[1]).transform(features)  # by the real side
    model = {
        "forest": RandomForestClassifier(50, min_samples_leaf=3, random_state=3),
        "mlp": MLPClassifier((20, 20), learning_rate_init=0.005, max_iter=60, random_state=3),
    }[classifier]
    chance = np.random.default_rng(3)
    chance.permutation(rows)  # which rows are kept: all
    fold = np.tile(np.repeat(chance.permutation(rows) % 5, n), 2)
    guessed = cross_val_predict(model, features, is_real, cv=PredefinedSplit(fold))
    assert measure.value == np.mean(guessed == is_real)
    folds = GroupKFold(5, shuffle=True, random_state=0)
    groups = np.tile(np.repeat(np.arange(rows), n), 2)
    other = cross_val_score(make_pipeline(StandardScaler(), model), features, is_real, groups=groups, cv=folds)
    assert measure.low is not None
    assert measure.high is not None
    assert measure.low < other.mean() < measure.high
    assert 0.55 < measure.value < 0.95


# Counts and intervals -----------------------------------------------------------------------------------------------


def test_entropy_and_total_variation_are_those_of_scipy():
    problem = problems.get("imbalanced")
    x = problem.sample_x(20, 0)
    draws = problem.sample_given(x, 50, 1) + 0.3 * np.random.default_rng(0).normal(size=(20, 50, 1))
    labels = problem.assign(x, draws)
    counts = np.array([np.bincount(row[row >= 0], minlength=3) for row in labels])
    assert (labels < 0).any()
    shares = counts / counts.sum(axis=1, keepdims=True)
    truth = problem.modes(x[:1])[0].probabilities
    entropy = metrics.mode_entropy(problem, x, draws).value
    assert entropy == pytest.approx(np.mean(stats.entropy(counts, axis=1)), rel=1e-12)
    error = metrics.probability_error(problem, x, draws).value
    assert error == pytest.approx(np.mean([cityblock(row, truth) / 2 for row in shares]), rel=1e-12)
    share = metrics.valid_share(problem, x, draws)
    interval = stats.binomtest(int(counts.sum()), 1000).proportion_ci(method="wilson")
    assert (share.low, share.high) == pytest.approx((interval.low, interval.high), rel=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (1, 29), (81, 263), (20, 20)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_wilson_is_that_of_scipy(successes, trials, level):
    interval = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    found = metrics.wilson_interval(successes, trials, level)
    assert found == pytest.approx((interval.low, interval.high), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_bootstrap_is_that_of_scipy(level):
    values = np.random.default_rng(9).gamma(1, size=40)
    settings = {"confidence_level": level, "n_resamples": 1000, "rng": np.random.default_rng(7)}
    theirs = stats.bootstrap((values,), np.mean, method="percentile", **settings).confidence_interval
    low, high = metrics.bootstrap_interval(values, 7, level)
    assert low is not None
    assert high is not None
    assert (low, high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    default = stats.bootstrap((values,), np.mean, **settings).confidence_interval
    assert (low, high) == pytest.approx((default.low, default.high), abs=0.3 * (high - low))
    assert (low, high) != pytest.approx((default.low, default.high), rel=1e-3)
