"""What the benchmarks share: data, the peer's network, interleaved timing, results as JSON."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

import everymode
from everymode.metrics import Measure
from everymode.runs import describe_machine
from everymode.spaces import VectorSpace

RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("EVERYMODE_DATA") or Path(__file__).parents[2] / "shared" / "data")

UNIT = VectorSpace((2,), (0.0, 0.0), (1.0, 1.0))  # targets that are standardised already
NOTHING = VectorSpace((0,), (), ())  # no condition


def moons(rows: int, seed: int) -> Tensor:
    """Return two moons with noise of .05, each coordinate standardised: (rows, 2)."""
    points, _ = make_moons(rows, noise=0.05, random_state=seed)
    standard = (np.asarray(points) - [0.5, 0.25]) / [0.8659, 0.4938]
    return torch.from_numpy(standard.astype(np.float32))


class PeerNetwork(nn.Module):
    """torchcfm's own two-dimensional network under our signature, `network(y_t, t, x_embedding)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        from torchcfm.models import MLP  # pyright: ignore[reportMissingImports]

        self.width = width
        self.mlp = MLP(dim=2, time_varying=True, w=width)

    def forward(self, y_t: Tensor, t: Tensor, x_embedding: Tensor) -> Tensor:
        return self.mlp(torch.cat([y_t, t[:, None]], dim=-1))


def interleave(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call each of `runs` in turn, `rounds` times; each returns a rate. The machine's moods then meet all alike."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            rates[name].append(run())
    return rates


def ratio(rates: Mapping[str, Sequence[float]], ours: str, peer: str) -> dict[str, float]:
    """Return the median, least and greatest of the round-by-round ratios ours / peer."""
    ratios = [a / b for a, b in zip(rates[ours], rates[peer], strict=True)]
    return {"median": round(statistics.median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)}


def medians(rates: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each loop's rates."""
    return {name: statistics.median(values) for name, values in rates.items()}


def timed(work: Callable[[], Any], amount: float) -> float:
    """Return `amount` a second of `work`."""
    start = time.perf_counter()
    work()
    return amount / (time.perf_counter() - start)


def write(name: str, content: Mapping[str, Any]) -> None:
    """Write a result beside its command, date and versions, and print it."""
    whole = {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "everymode": everymode.__version__,
        "machine": {key: value for key, value in describe_machine().items() if key != "argv"},
        **content,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")
    print(json.dumps(whole, indent=2))


def earlier(name: str) -> dict[str, Any]:
    """Return the result that was written before, nothing if there is none."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def interval_of(measure: Measure) -> list[float | None]:
    """Return the ends of a measure's interval, rounded."""
    return [None if end is None else round(end, 4) for end in (measure.low, measure.high)]


def kept(file: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is in `file`, or do the work and write it there."""
    if not file.exists():
        file.write_text(json.dumps(work()))
        print(file.stem, file.read_text(), file=sys.stderr, flush=True)
    return json.loads(file.read_text())
