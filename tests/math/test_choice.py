"""A solver that chooses itself: within its tolerance on x it has not seen, and not dearer than it must be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

import everymode as em
from everymode.curve import with_settings
from everymode.errors import SettingError
from everymode.families import Diffusion, FlowMatching
from everymode.paths import get_path
from everymode.randomness import new_generator
from everymode.solvers import get_method, integrate, last
from everymode.solvers.choice import KNOTS, choose, found_times


def turning(y, t):
    """A field that turns at t = 0.8 only."""
    return torch.sigmoid(100 * (t - 0.8)) * torch.ones_like(y) * 5 - y


def chosen(field, tolerance, rows=200):
    start = torch.randn(rows, 1, dtype=torch.float64, generator=new_generator(0))
    path = get_path("linear")

    def follow(method, times):
        if hasattr(method, "states"):
            return start + torch.inf  # no data to tell
        return last(integrate(field, start, times, method))

    return choose(start, field, follow, path, tolerance=tolerance), follow


def test_the_grid_is_fine_where_the_field_turns():
    (_, grid), _ = chosen(turning, 0.1)
    assert grid.shape == (KNOTS,)
    assert torch.all(grid.diff() > 0)
    inside = ((grid > 0.7) & (grid < 0.9)).double().mean()
    assert float(inside) > 0.4  # 0.2 of an even one
    for steps in (1, 7, 64, 200):
        times = found_times(grid, steps)
        assert len(times) == steps + 1
        assert (float(times[0]), float(times[-1])) == (0.0, 1.0)
        assert torch.all(times.diff() > 0)


def test_the_choice_is_the_cheapest_within_the_tolerance():
    (loose, _), _ = chosen(turning, 0.3)
    (tight, _), _ = chosen(turning, 0.01)
    assert loose.error <= 0.3
    assert tight.error <= 0.01
    costs = [get_method(c.method, prefer="solver").evaluations(c.steps) for c in (loose, tight)]
    assert costs[0] < costs[1]


def test_a_linear_field_takes_next_to_nothing():
    (choice, _), _ = chosen(lambda y, t: torch.ones_like(y) + 0 * y, 1e-6)
    assert get_method(choice.method, prefer="solver").evaluations(choice.steps) == 1


@pytest.fixture(scope="module")
def fork():
    """The problem and a flow that chose its solver."""
    problem = em.problems.get("fork")
    x, y = problem.sample(1000, seed=0)
    family = FlowMatching(solver="auto", tolerance=0.1)
    return problem, em.OneToManyRegressor(family, steps=300, width=32, batch_size=256, random_state=0).fit(x, y)


def test_the_chosen_solver_is_within_its_tolerance_on_other_x(fork):
    problem, model = fork
    family = model.family_
    assert family.choice.error <= 0.1
    x = model.x_space_.encode(problem.sample(100, seed=9)[0])
    with torch.no_grad():
        drawn = family.sample(x, 20, generator=new_generator(5))
        with with_settings(family, solver="rk4", steps=128, spacing="auto"):
            exact = family.sample(x, 20, generator=new_generator(5))
    assert float((drawn - exact).square().mean(dim=1).sqrt().mean()) <= 0.1
    assert family.nfe < 64


def test_the_choice_is_kept_in_the_file(fork, tmp_path):
    _, model = fork
    again = em.load(model.save(tmp_path / "model.safetensors"))
    assert again.family_.choice == model.family_.choice
    assert again.nfe == model.nfe
    x = np.zeros((2, 1))
    assert np.array_equal(again.sample(x, 3, random_state=0), model.sample(x, 3, random_state=0))


def test_a_tolerance_that_cannot_be_met_takes_the_best_and_says_so():
    x, y = em.problems.get("fork").sample(300, seed=0)
    family = Diffusion(sampler="auto", tolerance=1e-9)
    with pytest.warns(ConvergenceWarning, match="is taken"):
        model = em.OneToManyRegressor(family, steps=20, width=8, depth=1, random_state=0).fit(x, y)
    assert model.family_.choice.error > 1e-9
    assert np.isfinite(model.sample(x[:2], 3)).all()


def test_a_found_grid_can_be_taken_with_any_solver():
    x, y = em.problems.get("fork").sample(300, seed=0)
    family = FlowMatching(solver="heun", spacing="found", steps=6)
    model = em.OneToManyRegressor(family, steps=50, width=8, depth=1, random_state=0).fit(x, y)
    assert model.nfe == 12
    assert not torch.equal(model.family_.grid, torch.linspace(0, 1, KNOTS))
    assert np.isfinite(model.sample(x[:2], 3)).all()


def test_an_unfitted_auto_and_bad_settings():
    assert FlowMatching(solver="auto").choice is None
    assert FlowMatching(solver="auto").nfe == 32
    with pytest.raises(SettingError, match="tolerance"):
        FlowMatching(tolerance=0)
    with pytest.raises(SettingError, match="spacing"):
        FlowMatching(spacing="even")
    with pytest.raises(SettingError, match="solver"):
        FlowMatching(solver="rk5")
