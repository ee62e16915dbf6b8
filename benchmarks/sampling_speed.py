"""Draws per second of our sampler against a plain loop at equal NFE, and the peak memory of both.

The plain loop is what one writes by hand: repeat x for every draw, then Euler steps through the same trained network,
the encoder included, under `torch.no_grad`. Ours encodes x once a row and works in bounded batches.
Each side runs in a fresh process for its memory, and interleaved in one process for its speed.

Usage: python benchmarks/sampling_speed.py
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import numpy as np
import torch
from torch import Tensor

import everymode as em
from peers import interleave, medians, ratio, timed, write

STEPS = 32
SIZES = ((100, 100), (4, 2500), (400, 25))  # rows, draws: 10,000 each
MEMORY_SIZE = (2000, 100)  # for peak memory, with few steps: it does not grow with their number


def trained(steps: int = STEPS) -> em.OneToManyRegressor:
    x, y = em.problems.get("fork").sample(2000, seed=0)
    family = em.FlowMatching(solver="euler", steps=steps)
    return em.OneToManyRegressor(family, width=64, depth=3, steps=50, random_state=0).fit(x, y)


def plain_loop(model: em.OneToManyRegressor, x: np.ndarray, draws: int) -> np.ndarray:
    """Return (rows, draws, 2) by the loop that one writes by hand."""
    steps = model.nfe
    family, x_space, y_space = model.family_, model.x_space_, model.y_space_
    encoded = x_space.encode(x)
    repeated = (encoded if isinstance(encoded, Tensor) else encoded["numeric"]).repeat_interleave(draws, dim=0)
    y = torch.randn(len(repeated), *y_space.shape)
    with torch.no_grad():
        for step in range(steps):
            t = torch.full((len(y),), step / steps)
            y = y + family.velocity(y, t, repeated) / steps
    return y_space.decode(y).reshape(len(x), draws, -1)


def peak_memory(side: str, rows: int, draws: int) -> float:
    """Return what sampling adds to the peak memory of a fresh process, in MiB."""
    command = [sys.executable, __file__, "--memory", side, str(rows), str(draws)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _measure_memory(side: str, rows: int, draws: int) -> None:
    model, x = trained(steps=2), em.problems.get("fork").sample_x(rows, seed=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _ = model.sample(x, draws) if side == "everymode" else plain_loop(model, x, draws)
    print(round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1))


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        _measure_memory(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    model = trained()
    rows = []
    for n, draws in SIZES:
        x = em.problems.get("fork").sample_x(n, seed=1)
        runs = {
            "everymode": lambda x=x, n=n, draws=draws: timed(lambda: model.sample(x, draws), n * draws),
            "plain loop": lambda x=x, n=n, draws=draws: timed(lambda: plain_loop(model, x, draws), n * draws),
        }
        rates = interleave(runs, 5)
        rows.append(
            {
                "rows": n,
                "draws_a_row": draws,
                "nfe": STEPS,
                "draws_per_second": {name: round(rate) for name, rate in medians(rates).items()},
                "ratio": ratio(rates, "everymode", "plain loop"),
            }
        )
    memory = {side: peak_memory(side, *MEMORY_SIZE) for side in ("everymode", "plain loop")}
    peak = {"rows": MEMORY_SIZE[0], "draws_a_row": MEMORY_SIZE[1], "added_mib": memory}
    write("sampling_speed", {"seed": 0, "threads": torch.get_num_threads(), "speed": rows, "peak_memory": peak})


if __name__ == "__main__":
    main()
