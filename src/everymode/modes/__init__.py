"""Finding the distinct answers among draws."""

from everymode.modes.answers import Answers, RowAnswers, answers_among, in_a_valley
from everymode.modes.basins import basins
from everymode.modes.points import middle, most_probable, spread_out

__all__ = [
    "Answers",
    "RowAnswers",
    "answers_among",
    "basins",
    "in_a_valley",
    "middle",
    "most_probable",
    "spread_out",
]
