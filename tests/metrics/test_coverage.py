import json

import numpy as np
import pytest

from everymode import metrics, problems
from everymode.metrics import Tally


@pytest.fixture
def fork():
    return problems.get("fork")


LEFT, RIGHT, MIDDLE = [-3.0, 0.0], [3.0, 0.0], [0.0, 0.0]
X = np.array([[1.0], [1.0]])


def test_values_found_by_hand(fork):
    draws = np.array([[LEFT, LEFT, LEFT, RIGHT], [LEFT, LEFT, MIDDLE, MIDDLE]])
    share = metrics.valid_share(fork, X, draws)
    assert share.value == 6 / 8
    assert (share.low, share.high) == metrics.wilson_interval(6, 8)
    assert share.n == 8
    # Row 1: .75 and .25 against .5 and .5. Row 2: its two valid draws are all left.
    assert metrics.probability_error(fork, X, draws).value == pytest.approx((0.25 + 0.5) / 2)
    assert metrics.mode_recall(fork, X, draws).value == pytest.approx((1 + 0.5) / 2)
    # Left is found in both rows. Right in one; real draws would find it in 15/16 of two rows, and 1 > 15/16.
    assert metrics.modes_found(fork, X, draws) == (2, 2)


def test_a_row_without_a_valid_draw_scores_the_worst(fork):
    draws = np.array([[MIDDLE] * 4, [MIDDLE] * 4])
    assert metrics.valid_share(fork, X, draws).value == 0
    assert metrics.probability_error(fork, X, draws).value == 1
    assert metrics.mode_recall(fork, X, draws).value == 0
    assert metrics.modes_found(fork, X, draws) == (0, 2)


@pytest.mark.parametrize("name", problems.names())
@pytest.mark.parametrize(("rows", "n"), [(2000, 1), (100, 100)])
def test_real_draws_find_all_modes(name, rows, n):
    problem = problems.get(name)
    x = problem.sample_x(rows, 0)
    found, total = metrics.modes_found(problem, x, problem.sample_given(x, n, 1))
    assert found == total == len(problem.mode_names)


@pytest.mark.parametrize("name", ["fork", "two_moons", "rings", "grid", "imbalanced", "inverse_kinematics"])
def test_the_average_finds_nothing(name):
    problem = problems.get(name)
    x = problem.sample_x(50, 0)
    draws = np.repeat(problem.mean(x)[:, None], 100, axis=1)
    assert metrics.modes_found(problem, x, draws) == (0, len(problem.mode_names))
    assert metrics.valid_share(problem, x, draws).value == 0


def test_one_answer_an_x_finds_only_the_mode_it_prefers(fork):
    x = fork.sample_x(200, 0)
    answer = np.where(np.arange(200)[:, None] < 120, [LEFT], [RIGHT])
    draws = np.repeat(answer[:, None], 100, axis=1)
    assert metrics.modes_found(fork, x, draws) == (1, 2)
    assert metrics.mode_recall(fork, x, draws).value == 0.5


def test_a_lost_rare_mode_is_noticed():
    problem = problems.get("imbalanced")
    x = problem.sample_x(200, 0)
    draws = problem.sample_given(x, 100, 1)
    labels = problem.assign(x, draws)
    common = 0.5 * np.sin(np.pi * x)[:, None]
    without = np.where((labels == 2)[..., None], common, draws)
    assert metrics.modes_found(problem, x, draws) == (3, 3)
    assert metrics.modes_found(problem, x, without) == (2, 3)
    thinned = np.where((labels == 2)[..., None] & (np.arange(100) % 10 > 0)[:, None], common, draws)
    assert metrics.modes_found(problem, x, thinned) == (2, 3)


def test_probability_error_sees_a_shifted_balance(fork):
    x = fork.sample_x(100, 0)
    draws = fork.sample_given(x, 200, 1)
    draws[:, :100, 0] = np.abs(draws[:, :100, 0])  # now 3 in 4 go right
    assert metrics.probability_error(fork, x, draws).value == pytest.approx(0.25, abs=0.02)


def test_real_draws_score_their_floor(fork):
    x = fork.sample_x(200, 0)
    draws, reference = fork.sample_given(x, 50, 1), fork.sample_given(x, 50, 2)
    error = metrics.probability_error(fork, x, draws, reference)
    assert error.low < error.floor < error.high
    assert metrics.valid_share(fork, x, draws, reference).floor > 0.99
    assert metrics.mode_recall(fork, x, draws, reference).floor == 1
    with pytest.raises(ValueError, match="200 x 40 beside 200 x 50"):
        metrics.probability_error(fork, x, draws, reference[:, :40])


@pytest.mark.parametrize("name", problems.names())
def test_evaluate_works_on_every_problem(name):
    problem = problems.get(name)
    x, y = problem.sample(20, 0)
    draws, reference = problem.sample_given(x, 10, 1), problem.sample_given(x, 10, 2)
    result = metrics.evaluate(problem, x, y, draws, reference, seed=0)
    assert list(result) == [
        "valid_share",
        "modes_found",
        "modes_total",
        "mode_recall",
        "probability_error",
        "mode_entropy",
        "energy_score",
        "sliced_wasserstein",
        "c2st",
        "precision",
        "recall",
        "density",
        "coverage",
    ]
    assert result["valid_share"] == metrics.valid_share(problem, x, draws, reference)
    assert result["mode_entropy"] == metrics.mode_entropy(problem, x, draws, reference, seed=0)
    assert result["mode_recall"] == metrics.mode_recall(problem, x, draws, reference, seed=0)
    assert result["probability_error"] == metrics.probability_error(problem, x, draws, reference, seed=0)
    ready = {key: part if isinstance(part, int) else part.to_dict() for key, part in result.items()}
    assert json.loads(json.dumps(ready, allow_nan=False)) == ready


def test_evaluate_without_a_second_real_sample_has_no_floors_for_distances(fork):
    x, y = fork.sample(10, 0)
    draws, reference, real = (fork.sample_given(x, 5, seed) for seed in (1, 2, 3))
    result = metrics.evaluate(fork, x, y, draws, reference)
    with_floors = metrics.evaluate(fork, x, y, draws, reference, real)
    assert with_floors == metrics.evaluate(fork, x, y, draws, reference, real)
    assert all(part.floor is not None for part in with_floors.values() if isinstance(part, metrics.Measure))
    for name in ("sliced_wasserstein", "c2st", "precision", "recall", "density", "coverage"):
        assert result[name].floor is None
        assert result[name].value == with_floors[name].value
    for name in ("valid_share", "mode_recall", "probability_error", "mode_entropy", "energy_score"):
        assert result[name] == with_floors[name]


def test_evaluate_leaves_out_what_too_little_data_cannot_say(fork):
    x, y = fork.sample(10, 0)
    one_draw = metrics.evaluate(fork, x, y, fork.sample_given(x, 1, 1), fork.sample_given(x, 1, 2))
    assert [name for name, part in one_draw.items() if part is None] == ["precision", "recall", "density", "coverage"]
    one_row = metrics.evaluate(fork, x[:1], y[:1], fork.sample_given(x[:1], 9, 1), fork.sample_given(x[:1], 9, 2))
    assert [name for name, part in one_row.items() if part is None] == ["c2st"]


def test_entropy_of_known_shares(fork):
    draws = np.array([[LEFT, LEFT, LEFT, RIGHT], [LEFT, LEFT, MIDDLE, MIDDLE]])
    quarter = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    even = np.array([[LEFT, RIGHT, LEFT, RIGHT]] * 2)
    measure = metrics.mode_entropy(fork, X, draws, even)
    assert measure.value == pytest.approx((quarter + 0) / 2)
    assert measure.floor == pytest.approx(np.log(2))
    assert measure.n == 2
    assert metrics.mode_entropy(fork, X, np.array([[MIDDLE] * 4] * 2)).value == 0


@pytest.mark.parametrize("name", ["grid", "imbalanced"])
def test_entropy_of_real_draws_is_the_true_one_less_the_known_bias(name):
    problem = problems.get(name)
    x, n = problem.sample_x(100, 0), 2000
    draws, reference = problem.sample_given(x, n, 1), problem.sample_given(x, n, 2)
    shares = problem.modes(x[:1])[0].probabilities  # the same for every x in both
    expected = -(shares * np.log(shares)).sum() - (len(shares) - 1) / (2 * n)
    measure = metrics.mode_entropy(problem, x, draws, reference)
    assert measure.low < expected < measure.high
    assert measure.high - measure.low < 0.01
    assert abs(measure.floor - expected) < 0.005
    lost = draws.copy()
    lost[problem.assign(x, draws) == 1] = problem.sample_given(x, 1, 3)[0, 0]
    assert metrics.mode_entropy(problem, x, lost, reference).high < measure.floor


def test_no_draws_are_refused(fork):
    with pytest.raises(ValueError, match=r"got draws of shape \(2, 0, 2\)"):
        metrics.valid_share(fork, X, np.zeros((2, 0, 2)))


def test_tally_counts_by_label(fork):
    tally = Tally.of(fork, X, np.array([[LEFT, RIGHT, MIDDLE], [RIGHT, RIGHT, RIGHT]]))
    np.testing.assert_array_equal(tally.counts, [[1, 1], [0, 3]])
    np.testing.assert_array_equal(tally.truth, np.full((2, 2), 0.5))
