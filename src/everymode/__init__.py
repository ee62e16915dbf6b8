"""Predict every valid answer, not their average.

A model trained with squared error returns E[y | x]. Where one x has several valid y, that average is often no answer at
all. everymode fits p(y | x), and shows which valid answers a model finds, loses or invents.
"""

from typing import TYPE_CHECKING

from everymode.lazy import attach
from everymode.version import __version__

if TYPE_CHECKING:
    from everymode import (
        families,
        guidance,
        metrics,
        networks,
        paths,
        plots,
        policies,
        problems,
        solvers,
        spaces,
        training,
    )
    from everymode.calibration import Calibration, calibrate, calibrate_draws
    from everymode.comparison import ModeTable, compare, judge
    from everymode.conformal import Conformal
    from everymode.costs import guidance_cost
    from everymode.diagnosis import Diagnosis, diagnose
    from everymode.distillation import distill
    from everymode.errors import (
        CheckpointError,
        DataError,
        FileError,
        MissingExtraError,
        SettingError,
        UnsupportedError,
        ValleyWarning,
    )
    from everymode.estimator import OneToManyRegressor, load
    from everymode.families import (
        GAN,
        GMM,
        MDN,
        MIP,
        MSE,
        VAE,
        VAEGAN,
        VQ,
        Autoregressive,
        Consistency,
        Diffusion,
        Drifting,
        Family,
        FlowMatching,
        Gaussian,
        GMFlow,
        MeanFlow,
        NormalizingFlow,
        Reflow,
        Shortcut,
        Trees,
    )
    from everymode.policies import Demonstrations, Policy, load_policy
    from everymode.recording import record
    from everymode.tape import Tape

__all__ = [
    "GAN",
    "GMM",
    "MDN",
    "MIP",
    "MSE",
    "VAE",
    "VAEGAN",
    "VQ",
    "Autoregressive",
    "Calibration",
    "CheckpointError",
    "Conformal",
    "Consistency",
    "DataError",
    "Demonstrations",
    "Diagnosis",
    "Diffusion",
    "Drifting",
    "Family",
    "FileError",
    "FlowMatching",
    "GMFlow",
    "Gaussian",
    "MeanFlow",
    "MissingExtraError",
    "ModeTable",
    "NormalizingFlow",
    "OneToManyRegressor",
    "Policy",
    "Reflow",
    "SettingError",
    "Shortcut",
    "Tape",
    "Trees",
    "UnsupportedError",
    "ValleyWarning",
    "__version__",
    "calibrate",
    "calibrate_draws",
    "compare",
    "diagnose",
    "distill",
    "families",
    "guidance",
    "guidance_cost",
    "judge",
    "load",
    "load_policy",
    "metrics",
    "networks",
    "paths",
    "plots",
    "policies",
    "problems",
    "record",
    "solvers",
    "spaces",
    "training",
]

_HOMES = {
    "calibration": ("Calibration", "calibrate", "calibrate_draws"),
    "comparison": ("ModeTable", "compare", "judge"),
    "conformal": ("Conformal",),
    "costs": ("guidance_cost",),
    "errors": (
        "CheckpointError",
        "DataError",
        "FileError",
        "MissingExtraError",
        "SettingError",
        "UnsupportedError",
        "ValleyWarning",
    ),
    "diagnosis": ("Diagnosis", "diagnose"),
    "distillation": ("distill",),
    "estimator": ("OneToManyRegressor", "load"),
    "families": (
        "GAN",
        "GMM",
        "MDN",
        "MIP",
        "MSE",
        "VAE",
        "VAEGAN",
        "VQ",
        "Autoregressive",
        "Consistency",
        "Drifting",
        "GMFlow",
        "Reflow",
        "Shortcut",
        "Diffusion",
        "Family",
        "FlowMatching",
        "Gaussian",
        "MeanFlow",
        "NormalizingFlow",
        "Trees",
    ),
    "policies": ("Demonstrations", "Policy", "load_policy"),
    "recording": ("record",),
    "tape": ("Tape",),
}
_MODULES = (
    "families",
    "guidance",
    "metrics",
    "networks",
    "paths",
    "plots",
    "policies",
    "problems",
    "solvers",
    "spaces",
    "training",
)

__getattr__, __dir__ = attach(
    __name__,
    {**{name: f"everymode.{home}" for home, names in _HOMES.items() for name in names}, **dict.fromkeys(_MODULES, "")},
)
