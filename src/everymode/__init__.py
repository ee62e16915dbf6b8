"""Predict every valid answer, not their average.

A model trained with squared error returns E[y | x]. Where one x has several valid y, that average is often no answer at
all. everymode fits p(y | x), and shows which valid answers a model finds, loses or invents.
"""

__version__ = "0.1.0"

from everymode import families, metrics, networks, paths, problems, solvers, spaces, training
from everymode.errors import CheckpointError, DataError, MissingExtraError, SettingError, UnsupportedError
from everymode.estimator import OneToManyRegressor, load
from everymode.families import MSE, Family, FlowMatching

__all__ = [
    "MSE",
    "CheckpointError",
    "DataError",
    "Family",
    "FlowMatching",
    "MissingExtraError",
    "OneToManyRegressor",
    "SettingError",
    "UnsupportedError",
    "__version__",
    "families",
    "load",
    "metrics",
    "networks",
    "paths",
    "problems",
    "solvers",
    "spaces",
    "training",
]
