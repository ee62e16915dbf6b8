"""Data that break models: no family leaves NaN in its weights, its draws or its densities."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

import everymode as em
from everymode.families import MSE, get_family, names

ROWS = 120


def _plain(rng, rows=ROWS):
    x = rng.normal(size=(rows, 2))
    return x, x @ rng.normal(size=(2, 2)) + 0.1 * rng.normal(size=(rows, 2))


def constant_columns(rng):
    """Columns of x that never vary, one of them huge; a target that hardly varies."""
    x, y = _plain(rng)
    return np.column_stack([np.zeros(ROWS), x, np.full(ROWS, 1e9)]), y * [1.0, 1e-9] + [0.0, 7.0]


def duplicated_rows(rng):
    """Three distinct rows, forty times each."""
    x, y = _plain(rng, 3)
    return np.tile(x, (40, 1)), np.tile(y, (40, 1))


def heavy_tails(rng):
    """Cauchy noise in x and y: some values are thousands of quartiles away."""
    x = rng.standard_cauchy(size=(ROWS, 2))
    return x, 0.1 * x + rng.standard_cauchy(size=(ROWS, 2))


def twenty_rows(rng):
    """Too few to learn from, and to hold any out."""
    return _plain(rng, 20)


def wide_targets(rng):
    """Sixty-four outputs that are five numbers, mixed."""
    x = rng.normal(size=(ROWS, 2))
    hidden = np.column_stack([x, rng.normal(size=(ROWS, 3))])
    return x, hidden @ rng.normal(size=(5, 64)) + 0.01 * rng.normal(size=(ROWS, 64))


CASES = (constant_columns, duplicated_rows, heavy_tails, twenty_rows, wide_targets)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("name", names())
def test_hard_data_leave_no_nan(name, case):
    x, y = case(np.random.default_rng(0))
    family = get_family(name, {"max_trees": 20, "members": 1} if name == "trees" else None)
    model = em.OneToManyRegressor(family, width=16, depth=1, steps=60, random_state=0, precision="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing diverges, and nothing is said of it
        model.fit(x, y)
    for key, tensor in model.family_.state_dict().items():
        assert not tensor.is_floating_point() or torch.isfinite(tensor).all(), key
    draws = model.sample(x[:10], 5)
    assert draws.shape == (10, 5, y.shape[1])
    assert np.isfinite(draws).all()
    assert np.isfinite(model.predict(x[:10])).all()
    if model.has_density:
        assert np.isfinite(model.log_prob(x, y)).all()


class Exploding(MSE):
    """Learns for a while, then its loss is NaN for good."""

    name = "exploding"

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def loss(self, y, x, *, generator=None):
        self.calls += 1
        return super().loss(y, x, generator=generator) * (1.0 if self.calls < 150 else float("nan"))


@pytest.mark.parametrize("rows", [40, 400])  # without and with rows to watch the run by; it ends before a look at them
def test_a_diverging_run_keeps_its_last_good_state_and_says_so(rows):
    x, y = _plain(np.random.default_rng(0), rows)
    model = em.OneToManyRegressor(Exploding(), width=16, depth=1, steps=400, random_state=0, precision="float32")
    with pytest.warns(ConvergenceWarning, match=r"diverged at step \d+; the model keeps the best state before it, of"):
        model.fit(x, y)
    assert model.stopped_ == "diverged"
    assert all(torch.isfinite(p).all() for p in model.family_.parameters())
    assert model.score(x, y) > 0.3  # it had learned something
