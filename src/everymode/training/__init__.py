"""Training: the loop, its settings, the average of the weights, checkpoints."""

from everymode.training.checkpoint import read_tensors, write_tensors
from everymode.training.loop import Progress, finish, train
from everymode.training.precision import bf16_speedup, choose_precision
from everymode.training.processes import Processes, resolve_device
from everymode.training.run import STATE_FILE
from everymode.training.settings import TrainingSettings, default_learning_rate, default_width
from everymode.training.step import find_compiler

__all__ = [
    "STATE_FILE",
    "Processes",
    "Progress",
    "TrainingSettings",
    "bf16_speedup",
    "choose_precision",
    "default_learning_rate",
    "default_width",
    "find_compiler",
    "finish",
    "read_tensors",
    "resolve_device",
    "train",
    "write_tensors",
]
