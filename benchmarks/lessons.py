"""The two lessons at their defaults: Gaussian mixtures that merge modes, and Langevin chains that cannot cross.

Writes results/lessons.json and the figures docs/images/lesson_merging.png and lesson_crossing.png.

Usage: python benchmarks/lessons.py
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from everymode import plots
from everymode.lessons import Lesson, crossing, merging
from peers import write

SEED = 0
IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLOURS = 96  # of a palette: a figure needs no more, and is a third of the size


def draw(lesson: Lesson) -> None:
    """Save the lesson's figure under docs/images, on a palette."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        png = plots.save(plots.draw(lesson.name, lesson), folder, lesson.name)[0]
        with Image.open(png) as image:
            image.convert("RGB").quantize(COLOURS).save(IMAGES / f"lesson_{lesson.name}.png", optimize=True)


def main() -> None:
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    found = {}
    for run in (merging, crossing):
        started, processor = time.perf_counter(), time.process_time()
        lesson = run(seed=SEED, report=print)
        seconds = {
            "seconds": round(time.perf_counter() - started, 1),
            "processor_seconds": round(time.process_time() - processor, 1),
        }
        draw(lesson)
        found[lesson.name] = {**seconds, **lesson.to_dict(pictures=False)}
    write("lessons", {"seed": SEED, "threads": torch.get_num_threads(), **found})


if __name__ == "__main__":
    main()
