"""One process or many: the same loop, through Hugging Face Accelerate."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from torch import Tensor

from everymode.errors import SettingError, unknown_name

__all__ = ["Processes", "resolve_device"]


@dataclass(frozen=True)
class Processes:
    """The processes that train together.

    Attributes:
        rank: of this process, from 0.
        world: how many there are.
    """

    rank: int
    world: int

    @classmethod
    def here(cls, device: torch.device) -> Processes:
        """Return the processes that a launcher (`torchrun`, `accelerate launch`) started, or the only one."""
        state = PartialState(cpu=device.type == "cpu")
        if state.num_processes > 1:
            atexit.unregister(_leave)  # once, however often this is asked
            atexit.register(_leave)
        return cls(state.process_index, state.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def average_(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its mean over all processes."""
        if self.world > 1:
            tensor.copy_(reduce(tensor, "mean"))  # pyright: ignore[reportArgumentType]
        return tensor

    def agree(self, value: Any) -> Any:
        """Return the main process's `value` on every process."""
        if self.world == 1:
            return value
        return broadcast_object_list([value])[0]


def _leave() -> None:
    """End the threads of the process group: torch aborts a process that ends with them alive."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device: 'auto' is CUDA where there is one, else the CPU.

    Under a launcher of several processes each one gets the CUDA device of its own local rank.

    Raises:
        SettingError: there is no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        raise SettingError(unknown_name("device", str(device), ["auto", "cpu", "cuda", "mps"])) from None
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise SettingError(f"device={device!r}: torch sees no CUDA device here. Use device='cpu' or 'auto'.")
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise SettingError(f"device={device!r}: torch sees no MPS device here. Use device='cpu' or 'auto'.")
    if resolved.type == "cuda" and resolved.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return resolved
