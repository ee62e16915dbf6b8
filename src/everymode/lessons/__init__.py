"""Lessons: what the methods can and cannot do, on problems whose truth is known, in numbers that a figure can read.

Each lesson is one function of settings and a seed; it returns a `Lesson`, and `plots.draw` has a figure of its name.
"""

from __future__ import annotations

from everymode.lessons.base import Lesson
from everymode.lessons.crossing import Crossing, crossing
from everymode.lessons.merging import Merging, merging

__all__ = ["Crossing", "Lesson", "Merging", "crossing", "merging"]
