"""Predict every valid answer, not their average."""

__version__ = "0.1.0"
