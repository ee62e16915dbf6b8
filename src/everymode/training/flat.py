"""All parameters of a part as one tensor, so that a step, an average, a norm or a reduction is one call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from everymode.errors import SettingError

__all__ = ["FlatAdamW", "FlatParameters"]

_EPSILON = 1e-8


class FlatParameters:
    """Moves the trainable parameters of a module into one tensor `values`, and their gradients into `gradient`.

    The parameters stay what they were, as views: the module works as before. A small network's training step is bound
    by the number of calls, not by arithmetic; this makes the optimiser, the average, the clipping and the exchange
    between processes one call each. With `use_half` the module computes on a bf16 copy that `publish` refreshes: one
    cast a step in place of autocast's cast of every weight in every pass.

    Raises:
        SettingError: parameters of several dtypes or devices, or none at all.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        kinds = {(p.dtype, p.device) for p in self._parameters}
        if len(kinds) != 1:
            raise SettingError(
                f"a part needs trainable parameters of one dtype on one device; it has {kinds or 'none'}."
            )
        self.values = torch.cat([p.detach().reshape(-1) for p in self._parameters])
        self.gradient = torch.zeros_like(self.values)
        self._half: tuple[Tensor, Tensor] | None = None  # values and gradient, while the module computes on them
        self._kept_half: tuple[Tensor, Tensor] | None = None
        self._attach(self.values, self.gradient)

    def _attach(self, values: Tensor, gradient: Tensor) -> None:
        for parameter, value, slope in zip(self._parameters, self.cut(values), self.cut(gradient), strict=True):
            parameter.grad = None  # a gradient of another dtype would be refused
            parameter.data = value
            parameter.grad = slope

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters, in the order of the values."""
        return list(self._parameters)

    def cut(self, values: Tensor) -> list[Tensor]:
        """Return views of a tensor like `values`, one in the shape of each parameter."""
        parts = values.split([p.numel() for p in self._parameters])
        return [part.view(p.shape) for part, p in zip(parts, self._parameters, strict=True)]

    def use_half(self) -> None:
        """Let the module compute on a bf16 copy of the values, the same tensor every time."""
        if self._kept_half is None:
            half = self.values.bfloat16()
            self._kept_half = (half, torch.zeros_like(half))
        self._half = self._kept_half
        self.publish()
        self._attach(*self._half)

    def use_full(self) -> None:
        """Let the module compute on the values themselves again."""
        self._half = None
        self._attach(self.values, self.gradient)

    def clear(self) -> None:
        """Set the gradient to zero."""
        (self.gradient if self._half is None else self._half[1]).zero_()

    def collect(self) -> Tensor:
        """Return the gradient that the backward pass left, in full precision."""
        if self._half is not None:
            self.gradient.copy_(self._half[1])
        return self.gradient

    def publish(self) -> None:
        """Let the module see changed values."""
        if self._half is not None:
            self._half[0].copy_(self.values)

    def set(self, values: Tensor) -> None:
        """Take other values, and let the module see them."""
        self.values.copy_(values)
        self.publish()

    @contextmanager
    def holding(self, values: Tensor) -> Iterator[None]:
        """Let the module work with other `values` inside the block."""
        kept = self.values.clone()
        self.set(values)
        try:
            yield
        finally:
            self.set(kept)


class FlatAdamW:
    """AdamW on one tensor, by torch's fused kernel, with the clipping of the gradient folded into the same pass.

    `torch.optim.AdamW(fused=True)` calls the same kernel; around one small tensor, what it does besides takes three
    times as long as the kernel.

    References:
        Decoupled weight decay regularization (Loshchilov and Hutter, 2019), https://arxiv.org/abs/1711.05101
    """

    def __init__(self, values: Tensor, *, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.first, self.second = torch.zeros_like(values), torch.zeros_like(values)
        self.steps = torch.zeros((), dtype=torch.float32, device=values.device)
        self.weight_decay, self.betas = weight_decay, betas
        self._decays = torch.tensor(betas, device=values.device)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state by name."""
        return {"first": self.first, "second": self.second, "steps": self.steps}

    @torch.no_grad()
    def step(self, values: Tensor, gradient: Tensor, learning_rate: float | Tensor, clip: float | None) -> None:
        """Change `values` by one step; a gradient of a norm above `clip` is shortened to it."""
        shrink = None if clip is None else _excess(gradient, clip)
        self.steps += 1
        torch._fused_adamw_(
            [values],
            [gradient],
            [self.first],
            [self.second],
            [],
            [self.steps],
            lr=learning_rate,  # pyright: ignore[reportArgumentType]
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=_EPSILON,
            amsgrad=False,
            maximize=False,
            grad_scale=shrink,
        )

    def corrections(self) -> Tensor:
        """Count a step, and return 1 - beta^steps for both averages, (2,): `written_out` asks for it."""
        self.steps += 1
        return 1 - torch.pow(self._decays, self.steps)

    def written_out(
        self,
        values: Tensor,
        gradient: Tensor,
        learning_rate: Tensor,
        clip: float | None,
        corrections: Tensor,
        first: Tensor,
        second: Tensor,
    ) -> None:
        """Change `values` and the averages `first` and `second` as `step` does, by plain operations that a compiler
        fuses with what is around them.
        """
        if clip is not None:
            gradient = gradient / _excess(gradient, clip)
        first.lerp_(gradient, 1 - self.betas[0])
        second.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        values.mul_(1 - learning_rate * self.weight_decay)
        values.sub_(learning_rate / corrections[0] * first / (second.sqrt() / corrections[1].sqrt() + _EPSILON))


def _excess(gradient: Tensor, clip: float) -> Tensor:
    """Return by how much a gradient is to be divided for its norm to be `clip` at most."""
    return (torch.linalg.vector_norm(gradient) / clip).clamp(min=1.0)
