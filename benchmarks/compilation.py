"""What compiling the steps of a run gains, family by family, what it costs, and whether the same is learned.

Every family is trained on the same table, call by call and compiled, from the same seed, in float32 on one thread; the
steps of both are timed in turns. The weights after the first steps are compared: the difference of two runs that do the
same in another order of rounding.

Usage: python benchmarks/compilation.py [FAMILY ...]; the rows of families that are not asked for stay as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch

from everymode.families import Family, get_family, names
from everymode.randomness import new_generator
from everymode.spaces import VectorSpace
from everymode.training import Progress, TrainingSettings, train
from peers import UNIT, earlier, interleave, medians, ratio, timed, write

ROWS, WIDTH, BATCH = 2000, 64, 256
CHUNK, ROUNDS = 20, 6
CONDITION = VectorSpace((1,), (0.0,), (1.0,))


def table() -> tuple[torch.Tensor, torch.Tensor]:
    """Return (y, x): two answers, and a second value that follows x."""
    generator = new_generator(0)
    x = torch.randn(ROWS, 1, generator=generator)
    side = torch.randint(0, 2, (ROWS, 1), generator=generator) * 2.0 - 1.0
    noise = 0.1 * torch.randn(ROWS, 2, generator=generator)
    return torch.cat([side, x.sin()], dim=1) + noise, x


def run(name: str, compiled: bool) -> tuple[Family, Iterator[Progress]]:
    """Return a family and its training loop, which reports every so many steps."""
    family = get_family(name).build(UNIT, CONDITION, seed=0, width=WIDTH)
    settings = TrainingSettings(
        steps=100 * CHUNK, batch_size=BATCH, validate_every=CHUNK, compile=compiled, precision="float32", patience=None
    )
    y, x = table()
    return family, train(family, y, x, settings=settings)


def measure(name: str) -> dict:
    """Return what compiling gains with one family."""
    loops = {"call_by_call": run(name, False), "compiled": run(name, True)}
    runs = {how: lambda loop=loop: timed(lambda: next(loop), CHUNK) for how, (_, loop) in loops.items()}
    begun = {how: CHUNK / first() for how, first in runs.items()}  # seconds, compilation included
    plain, compiled = (list(family.parameters()) for family, _ in loops.values())
    apart = max(float((a - b).detach().abs().max()) for a, b in zip(plain, compiled, strict=True))
    rates = interleave(runs, ROUNDS)
    median = medians(rates)
    return {
        "family": name,
        "milliseconds_a_step": {how: round(1e3 / rate, 2) for how, rate in median.items()},
        "times_as_fast": ratio(rates, "compiled", "call_by_call"),
        "seconds_to_compile": round(begun["compiled"] - CHUNK / median["compiled"], 1),
        "largest_difference_of_weights": float(f"{apart:.1e}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    trained = [name for name in names() if get_family(name).abilities.gradient]
    parser.add_argument("families", nargs="*", default=trained)
    torch.set_num_threads(1)
    found = {row["family"]: row for row in earlier("compilation").get("families", [])}
    for name in parser.parse_args().families:
        found[name] = measure(name)
        print(found[name], flush=True)
    write(
        "compilation",
        {
            "seed": 0,
            "rows": ROWS,
            "width": WIDTH,
            "batch": BATCH,
            "steps_compared": CHUNK,
            "families": list(found.values()),
        },
    )


if __name__ == "__main__":
    main()
