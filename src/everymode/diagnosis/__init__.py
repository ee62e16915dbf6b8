"""Is a problem one-to-many, where, and what does averaging cost?"""

from __future__ import annotations

from everymode.diagnosis.verdict import VERDICTS, Diagnosis, diagnose

__all__ = ["VERDICTS", "Diagnosis", "diagnose"]
