"""Families side by side, on equal terms, each number beside its floor."""

from everymode.comparison.budget import Budget
from everymode.comparison.cells import Result, label_of
from everymode.comparison.judging import judge, judge_on_rows
from everymode.comparison.sweep import COMPARISON_FILE, Comparison, Sweep, compare
from everymode.comparison.table import TRUTH, ModeTable, Row
from everymode.comparison.tasks import ProblemTask, TableTask

__all__ = [
    "COMPARISON_FILE",
    "TRUTH",
    "Budget",
    "Comparison",
    "ModeTable",
    "ProblemTask",
    "Result",
    "Row",
    "Sweep",
    "TableTask",
    "compare",
    "judge",
    "judge_on_rows",
    "label_of",
]
