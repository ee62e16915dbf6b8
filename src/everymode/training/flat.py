"""All parameters of a part as one tensor, so that a step, an average, a norm or a reduction is one call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from everymode.errors import SettingError

__all__ = ["FlatParameters"]


class FlatParameters:
    """Moves the trainable parameters of a module into one tensor `values`, and their gradients into `values.grad`.

    The parameters stay what they were, as views: the module works as before. A small network's training step is
    bound by the number of calls, not by arithmetic; this makes the optimiser, the average, the clipping and the
    exchange between processes one call each.

    Raises:
        SettingError: parameters of several dtypes or devices, or none at all.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = [p for p in module.parameters() if p.requires_grad]
        kinds = {(p.dtype, p.device) for p in parameters}
        if len(kinds) != 1:
            raise SettingError(
                f"a part needs trainable parameters of one dtype on one device; it has {kinds or 'none'}."
            )
        dtype, device = next(iter(kinds))
        size = sum(p.numel() for p in parameters)
        # aligned storage for each parameter would save nothing measurable; they lie side by side
        self.values = torch.empty(size, dtype=dtype, device=device)
        self.values.grad = torch.zeros_like(self.values)
        start = 0
        for parameter in parameters:
            part = slice(start, start + parameter.numel())
            self.values[part].copy_(parameter.detach().reshape(-1))
            parameter.data = self.values[part].view(parameter.shape)
            parameter.grad = self.values.grad[part].view(parameter.shape)
            start = part.stop

    @property
    def gradient(self) -> Tensor:
        """The gradient, (size,)."""
        if self.values.grad is None:
            raise SettingError("the gradient of a part was taken away while it was trained.")
        return self.values.grad

    @contextmanager
    def holding(self, values: Tensor) -> Iterator[None]:
        """Let the module work with other `values` inside the block."""
        kept = self.values.detach().clone()
        self.values.detach().copy_(values)
        try:
            yield
        finally:
            self.values.detach().copy_(kept)
