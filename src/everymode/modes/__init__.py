"""Finding the distinct answers among draws."""

from everymode.modes.answers import Answers, RowAnswers
from everymode.modes.basins import basins
from everymode.modes.points import middle, most_probable, spread_out

__all__ = ["Answers", "RowAnswers", "basins", "middle", "most_probable", "spread_out"]
