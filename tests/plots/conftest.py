"""Tapes of two problems whose every number is known in closed form, so no model has to be trained."""

import itertools

import numpy as np
import pytest

from everymode.tape import Motion, Tape

SPREAD = 0.35


def velocity(y_t, t, centres, weights, spread=SPREAD):
    """E[y - noise | y_t] for y from a Gaussian mixture (centres (k, d)) and y_t = t y + (1 - t) noise."""
    variance = (t * spread) ** 2 + (1 - t) ** 2
    away = y_t[..., None, :] - t * centres  # (..., k, d)
    weight = np.log(weights) - (away**2).sum(-1) / (2 * variance)
    weight = np.exp(weight - weight.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True)
    each = centres + (t * spread**2 - (1 - t)) / variance * away
    return (weight[..., None] * each).sum(-2)


def motion(centres, weights, particles, grid, x, seed=0):
    times = np.linspace(0, 1, 101)
    states = [np.random.default_rng(seed).standard_normal((particles, centres.shape[1]))]
    for before, after in itertools.pairwise(times):
        states.append(states[-1] + (after - before) * velocity(states[-1], before, centres, weights))
    field_times = np.linspace(0, 1, 17)
    field = np.stack([velocity(grid, t, centres, weights) for t in field_times])
    return Motion(times, np.stack(states), field_times, grid, field, x)


@pytest.fixture(scope="session")
def fork():
    """y of two numbers: left or right of an obstacle, for one x."""
    random = np.random.default_rng(0)
    centres, weights = np.array([[-3.0, 0.0], [3.0, 0.0]]), np.array([0.5, 0.5])

    def answers(n):
        return centres[random.integers(0, 2, n)] + SPREAD * random.standard_normal((n, 2))

    line = np.linspace(-4.2, 4.2, 13)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    moved = motion(centres, weights, 600, grid, np.zeros(1))
    flow = moved.states[-1][None, :400]
    near = np.linalg.norm(flow[:, :, None] - centres, axis=3).min(axis=2) < 3 * SPREAD
    return Tape(
        title="Left or right of the obstacle",
        x_names=["obstacle (m)"],
        y_names=["sideways (m)", "ahead (m)"],
        observed_x=np.zeros((500, 1)),
        observed_y=answers(500),
        x=np.zeros((1, 1)),
        draws={"mse": np.zeros((1, 400, 2)) + 0.02, "flow_matching": flow},
        truth=answers(400)[None],
        valid={"mse": np.zeros((1, 400), dtype=bool), "flow_matching": near},
        modes=[(centres, weights)],
        motion={"flow_matching": moved},
        scores=[
            score("mse", 0.0, 0.0, 0.01, 0),
            score("mdn", 0.87, 0.83, 0.91, 2),
            score("flow_matching", 0.97, 0.95, 0.985, 2),
            score("diffusion", None, None, None, None),
        ],
    )


def score(family, share, low, high, found):
    return {
        "family": family,
        "valid_share": share,
        "valid_share_low": low,
        "valid_share_high": high,
        "modes_found": found,
        "modes_total": 2,
    }


def branches(x):
    """One valid answer below 0.3, two up to 0.72, three above: (centres (k, 1), weights (k,))."""
    if x < 0.3:
        return np.array([[1.0 + x]]), np.ones(1)
    gap = 7 * (x - 0.3)
    centres = [1.3 - gap, 1.3 + 0.6 * gap] if x < 0.72 else [1.3 - gap, 1.3 + 0.6 * gap, 1.9]
    return np.array(centres)[:, None], np.full(len(centres), 1 / len(centres))


@pytest.fixture(scope="session")
def table():
    """y of one number that splits along x: one branch, then two, then three."""
    random = np.random.default_rng(1)
    spread = 0.22

    def answers(x, n):
        centres, weights = branches(x)
        return centres[random.choice(len(weights), n, p=weights)] + spread * random.standard_normal((n, 1))

    probes = np.linspace(0, 1, 41)
    draws = np.stack([answers(x, 400) for x in probes])
    average = np.stack([branches(x)[0].mean(axis=0) for x in probes])[:, None]  # (rows, 1, 1)

    def valid(values):
        return np.stack(
            [(np.abs(v - branches(x)[0].T).min(axis=1) < 3 * spread) for x, v in zip(probes, values, strict=True)]
        )

    seen = random.random(700)
    centres, weights = branches(0.9)
    return Tape(
        title="Which branch will it take?",
        x_names=["time of day"],
        y_names=["height (m)"],
        observed_x=seen[:, None],
        observed_y=np.concatenate([answers(x, 1) for x in seen]),
        x=probes[:, None],
        draws={"mse": average, "flow_matching": draws},
        valid={"mse": valid(average), "flow_matching": valid(draws)},
        modes=[branches(x) for x in probes],
        motion={"flow_matching": motion(centres, weights, 600, np.linspace(-4, 5, 31)[:, None], probes[36:37])},
    )
