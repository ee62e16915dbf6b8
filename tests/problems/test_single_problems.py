"""What only one problem promises."""

import numpy as np
import pytest
from scipy import integrate, stats

from everymode import problems


def test_inverse_kinematics_reaches_its_target_with_every_draw():
    arm = problems.get("inverse_kinematics")
    x = arm.sample_x(500, 0)
    draws = arm.sample_given(x, 20, 1)
    np.testing.assert_allclose(arm.forward(draws), np.broadcast_to(x[:, None], (500, 20, 2)), atol=1e-12)
    assert np.abs(draws).max() < np.pi  # no full turns, so no jumps


def test_inverse_kinematics_poses_move_smoothly_with_the_target():
    arm = problems.get("inverse_kinematics")
    angle = np.linspace(-0.7, 0.7, 400)
    x = 1.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    poses = np.stack([modes.locations for modes in arm.modes(x)])
    assert np.abs(np.diff(poses, axis=0)).max() < 0.01


def test_inverse_kinematics_refuses_what_it_cannot_know():
    arm = problems.get("inverse_kinematics")
    x, y = arm.sample(3, 0)
    with pytest.raises(problems.NotKnownError, match="curves in three dimensions"):
        arm.log_density(x, y[:, None])
    with pytest.raises(ValueError, match="distances from 5 to 5"):
        arm.modes(np.array([[3.0, 4.0]]))
    # Full turns are ignored; a pose tilted too far, or one that misses, is invalid.
    assert arm.valid(x, y[:, None] + 2 * np.pi * np.array([1, -1, 2])).all()
    assert not arm.valid(x, y[:, None] + 0.5).any()


def test_sine_fold_has_one_two_or_three_answers():
    fold = problems.get("sine_fold")
    names = [[fold.mode_names[i] for i in np.sort(m.labels)] for m in fold.modes([[0.1], [0.36], [0.5], [0.9]])]
    assert names == [["low"], ["low", "high"], ["low", "middle", "high"], ["high"]]


def test_sine_fold_modes_solve_the_curve():
    fold = problems.get("sine_fold")
    x = np.array([[0.48], [0.5], [0.53]])
    for target, modes in zip(x, fold.modes(x), strict=True):
        y = modes.locations
        np.testing.assert_allclose(y + 0.3 * np.sin(2 * np.pi * y), np.tile(target, (3, 1)), atol=1e-3)


def test_sine_fold_mean_is_invalid_between_two_answers():
    fold = problems.get("sine_fold")
    x = np.concatenate([np.linspace(0.34, 0.38, 9), np.linspace(0.62, 0.66, 9)])[:, None]
    assert not fold.valid(x, fold.mean(x)[:, None]).any()


@pytest.mark.parametrize("x", [-0.2, 0.3, 0.5, 1.2])
def test_sine_fold_density_is_as_accurate_as_it_says(x):
    fold = problems.get("sine_fold")

    def noise(y):
        return np.exp(-((x - y - 0.3 * np.sin(2 * np.pi * y)) ** 2) / (2 * 0.03**2))

    total, _ = integrate.quad(noise, 0, 1, points=[0.05, 0.2, 0.5, 0.8, 0.95], epsabs=0, epsrel=1e-10, limit=500)
    place = 0.02 if x < 0.1 else 0.15 if x < 0.4 else 0.5 if x < 1 else 0.98
    log_p = fold.log_density([[x]], [[[place]]])[0, 0]
    assert log_p == pytest.approx(np.log(noise(place) / total), abs=1e-4)


def test_sine_fold_answers_follow_the_density():
    """Kolmogorov-Smirnov: pushed through their distribution function, draws are uniform."""
    fold, x, y = problems.get("sine_fold"), np.array([[0.45]]), np.linspace(0, 1, 20_001)
    density = np.exp(fold.log_density(x, y[None, :, None]))[0]
    distribution = integrate.cumulative_trapezoid(density, y, initial=0)
    uniform = np.interp(fold.sample_given(x, 5000, 0)[0, :, 0], y, distribution)
    assert stats.kstest(uniform, "uniform").pvalue > 0.01


def test_two_moons_density_is_as_accurate_as_it_says():
    moons = problems.get("two_moons", noise=0.05)
    angle = np.linspace(0, np.pi, 200_001)
    for y in ([-0.5, 0.75], [-1.5, -0.25], [0.55, -0.8]):
        arcs = [
            np.stack([side * np.cos(angle) + cx, side * np.sin(angle) + cy], axis=1)
            for cx, cy, side in ((-0.5, -0.25, 1), (0.5, 0.25, -1))
        ]
        squares = np.stack([((arc - y) ** 2).sum(axis=1) for arc in arcs])
        noise = np.exp(-squares / (2 * 0.05**2)) / (2 * np.pi * 0.05**2)
        exact = integrate.simpson(noise, x=angle, axis=1).sum() / (2 * np.pi)
        assert np.sqrt(squares.min()) < 4 * 0.05
        assert np.exp(moons.log_density([[0.0]], [[y]]))[0, 0] == pytest.approx(exact, rel=1e-8)


def test_turning_x_turns_the_moons_and_the_grid():
    for name in ("two_moons", "grid"):
        problem, angle = problems.get(name), 0.6
        y = problem.sample_given([[0.0]], 50, 0)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(problem.log_density([[0.0]], y), problem.log_density([[angle]], y @ rotation.T))


def test_mixtures_give_their_components():
    weights, means, scales = problems.get("branches").components([[0.9]])
    np.testing.assert_allclose(weights, [[0.35, 0.45, 0.2]])
    assert means.shape == (1, 3, 1)
    assert scales.shape == (1, 3)


def test_branches_count_one_two_three():
    branches = problems.get("branches")
    assert [len(m) for m in branches.modes([[-0.9], [0.0], [0.9]])] == [1, 2, 3]
    # A branch that does not exist yet is no answer.
    assert not branches.valid([[-0.9]], [[[0.9 - 0.6 * 0.9]]])[0, 0]


class TestGeyser:
    def test_table_is_a_copy_of_the_data(self):
        geyser = problems.get("geyser")
        table = geyser.table()
        assert list(table.columns) == ["waiting", "duration"]
        assert len(table) == 299
        table["waiting"] = 0
        assert geyser.table()["waiting"].mean() == pytest.approx(72.314, abs=1e-3)

    def test_real_rows_are_valid_even_if_they_may_not_count_themselves(self):
        data = problems.get("geyser").table().to_numpy()
        waits, durations = data.T
        assert problems.get("geyser").valid(waits[:, None], durations[:, None, None]).mean() > 0.98
        weights = np.exp(-(((waits[:, None] - waits) / 5) ** 2) / 2) * (1 - np.eye(299))
        near = np.abs(durations[:, None] - durations) <= 0.3
        assert ((weights * near).sum(axis=1) / weights.sum(axis=1) >= 0.04).mean() > 0.95

    def test_average_after_a_long_wait_is_no_answer(self):
        geyser = problems.get("geyser")
        waits = np.arange(73.0, 83.0)[:, None]
        average = geyser.sample_given(waits, 20_000, 0).mean(axis=1)
        assert not geyser.valid(waits, average[:, None]).any()

    def test_short_waits_have_one_mode_and_long_waits_two(self):
        assert [len(m) for m in problems.get("geyser").modes([[50.0], [80.0], [300.0]])] == [1, 2, 1]

    def test_what_is_not_known_is_refused(self):
        geyser = problems.get("geyser")
        with pytest.raises(problems.NotKnownError, match="no known density"):
            geyser.log_density([[80.0]], [[[2.0]]])
        with pytest.raises(problems.NotKnownError, match="no known mean"):
            geyser.mean([[80.0]])
