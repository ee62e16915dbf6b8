"""Do draws spread as the answers do? Tests of p(y | x) on rows that a model has not seen."""

from __future__ import annotations

from everymode.calibration.verdict import LEVELS, VERDICTS, Calibration, Check, Sharpness, calibrate, calibrate_draws

__all__ = ["LEVELS", "VERDICTS", "Calibration", "Check", "Sharpness", "calibrate", "calibrate_draws"]
