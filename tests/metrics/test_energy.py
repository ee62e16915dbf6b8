import numpy as np
import pytest
import torch

from everymode.families import get_family
from everymode.families.base import energy_score as judge_by_energy
from everymode.metrics import energy_score, energy_scores
from everymode.spaces import VectorSpace


def brute_force(y, draws):
    n = len(draws)
    to_truth = sum(np.linalg.norm(d - y) for d in draws) / n
    among = sum(np.linalg.norm(a - b) for a in draws for b in draws)
    return to_truth - among / (2 * n * (n - 1))


def test_equals_brute_force():
    rng = np.random.default_rng(0)
    y, draws = rng.normal(size=(6, 3)), rng.normal(size=(6, 9, 3))
    np.testing.assert_allclose(energy_scores(y, draws), [brute_force(a, b) for a, b in zip(y, draws, strict=True)])


def test_equals_a_value_found_by_hand():
    # Distances to 0 are 1 and 3, mean 2; the pair is 4 apart: 2 - (4 + 4) / (2 * 2 * 1) = 0.
    assert energy_scores([[0.0]], [[[-1.0], [3.0]]])[0] == pytest.approx(0.0)


def test_training_judges_by_the_same_number():
    space = VectorSpace((3,), (0.0,) * 3, (1.0,) * 3)
    family = get_family("gaussian").build(space, VectorSpace((2,), (0.0,) * 2, (1.0,) * 2), seed=0, width=8)
    rng = torch.Generator().manual_seed(0)
    y, x = torch.randn(5, 3, generator=rng), torch.randn(5, 2, generator=rng)
    scores = judge_by_energy(family, y, x, generator=torch.Generator().manual_seed(1)).detach().numpy()
    draws = family.sample(x, 8, generator=torch.Generator().manual_seed(1)).detach().numpy().reshape(5, 8, 3)
    np.testing.assert_allclose(scores, energy_scores(y.numpy(), draws), rtol=1e-4)


def test_blocks_change_nothing():
    rng = np.random.default_rng(1)
    y, draws = rng.normal(size=(1, 1)), rng.normal(size=(1, 1300, 1))
    ordered = np.sort(draws[0, :, 0])
    among = 2 * np.sum((2 * np.arange(1300) - 1299) * ordered)
    expected = np.abs(draws - y[0]).mean() - among / (2 * 1300 * 1299)
    assert energy_scores(y, draws)[0] == pytest.approx(expected, rel=1e-12)


def test_fair_score_is_unbiased_for_any_number_of_draws():
    """For y and draws from N(0, 1) the score of the distribution is E|a - b| / 2 = 1 / sqrt(pi)."""
    rng = np.random.default_rng(2)
    for n in (2, 3, 10):
        scores = energy_scores(rng.normal(size=(20_000, 1)), rng.normal(size=(20_000, n, 1)))
        assert abs(scores.mean() - 1 / np.sqrt(np.pi)) < 4 * scores.std() / np.sqrt(20_000)


def test_the_truth_scores_best():
    rng = np.random.default_rng(3)
    y = rng.choice([-3.0, 3.0], size=(2000, 1)) + 0.1 * rng.normal(size=(2000, 1))
    truth = rng.choice([-3.0, 3.0], size=(2000, 20, 1)) + 0.1 * rng.normal(size=(2000, 20, 1))
    average = np.zeros((2000, 20, 1))
    one_mode = 3 + 0.1 * rng.normal(size=(2000, 20, 1))
    real = energy_scores(y, truth).mean()
    assert real < energy_scores(y, average).mean() - 0.5
    assert real < energy_scores(y, one_mode).mean() - 0.5


def test_one_draw_scores_its_distance_as_do_copies_of_it():
    y, draw = np.array([[0.0, 0.0]]), np.array([[[3.0, 4.0]]])
    assert energy_scores(y, draw)[0] == 5
    assert energy_scores(y, draw.repeat(7, axis=1))[0] == pytest.approx(5)


def test_scale_divides_each_column():
    rng = np.random.default_rng(4)
    y, draws, scale = rng.normal(size=(5, 2)), rng.normal(size=(5, 4, 2)), np.array([2.0, 0.1])
    np.testing.assert_allclose(energy_scores(y, draws, scale), energy_scores(y / scale, draws / scale))
    with pytest.raises(ValueError, match="2 positive numbers"):
        energy_scores(y, draws, [1.0, 0.0])


def test_measure_has_interval_and_floor():
    rng = np.random.default_rng(5)
    y, draws, real = rng.normal(size=(400, 1)), 1 + rng.normal(size=(400, 8, 1)), rng.normal(size=(400, 8, 1))
    measure = energy_score(y, draws, reference=real)
    assert measure.low < measure.value < measure.high
    assert measure.floor == pytest.approx(energy_scores(y, real).mean())
    assert measure.floor < measure.low
    assert measure.n == 400
    assert energy_score(y, draws).floor is None


def test_wrong_shapes_are_refused_with_both_named():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(3, 4, 1\)"):
        energy_scores(np.zeros((3, 2)), np.zeros((3, 4, 1)))
    with pytest.raises(ValueError, match="finite"):
        energy_scores([[np.nan]], [[[0.0]]])
