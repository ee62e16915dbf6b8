"""Chains of linear layers and activations, trained as one node of autograd.

Around a small network, what autograd does besides takes as long as the arithmetic: a node a layer and one a parameter,
transposes, casts, and the derivative of an activation computed anew from its input. Here a whole `nn.Sequential` of
`nn.Linear` and elementwise activations is one node. Its forward pass overwrites what its backward pass needs no more,
and that adds the gradients of the weights to where the optimiser reads them, and stops before an input that wants none.

Only the loop's own backward pass takes this short cut. Whoever asks for a gradient inside a loss, to differentiate it
again perhaps, is answered by the plain modules, and so are transforms of `torch.func` and passes without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

__all__ = ["Chains"]

_aten = torch.ops.aten
_NARROW = 8  # outputs an input from which on a weight's gradient is multiplied the other way round: MKL is slow so


@dataclass(frozen=True)
class _Activation:
    """An elementwise function and its derivative.

    Attributes:
        forward: z -> its value.
        backward: (gradient with respect to the value, what was kept) -> gradient with respect to z.
        overwrite: z -> its value, in the place of z, where the value is what `backward` needs; None where it needs z.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    overwrite: Callable[[Tensor], Tensor] | None = None


def _selu_backward(gradient: Tensor, value: Tensor) -> Tensor:
    return _aten.elu_backward(gradient, 1.6732632423543772, 1.0507009873554805, 1.0, True, value)


def _relu_backward(gradient: Tensor, value: Tensor) -> Tensor:
    return _aten.threshold_backward(gradient, value, 0)


def _gelu(how: str) -> _Activation:
    return _Activation(
        lambda z: functional.gelu(z, approximate=how),
        lambda gradient, z: _aten.gelu_backward(gradient, z, approximate=how),
    )


_ACTIVATIONS: dict[type[nn.Module], Callable[[Any], _Activation]] = {
    nn.SELU: lambda _: _Activation(torch.selu, _selu_backward, torch.selu_),
    nn.ReLU: lambda _: _Activation(torch.relu, _relu_backward, torch.relu_),
    nn.Tanh: lambda _: _Activation(torch.tanh, _aten.tanh_backward, torch.tanh_),
    nn.Sigmoid: lambda _: _Activation(torch.sigmoid, _aten.sigmoid_backward, torch.sigmoid_),
    nn.SiLU: lambda _: _Activation(functional.silu, _aten.silu_backward),
    nn.GELU: lambda module: _gelu(module.approximate),
}


class Chains:
    """The chains of a module: between `engage` and `release` each is one node, and `backward` is the short cut.

    A sequence with anything else in it (another layer, a subclass, a hook, a `forward` of its own, parameters of
    several dtypes or without a place for their gradients) stays as it is.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._engaged: list[nn.Module] = []
        self.gathering = False  # whether the backward pass under way is the loop's own

    def engage(self) -> None:
        """Put one node in the place of each chain, for the parameters and gradients as they are now."""
        for module in self._module.modules():
            steps = _steps(module)
            if steps is not None:
                module.__dict__["forward"] = _Chain(module, steps, self)  # an instance's own, before its class's
                self._engaged.append(module)

    def release(self) -> None:
        """Give the chains their own `forward` back."""
        for module in self._engaged:
            del module.__dict__["forward"]
        self._engaged.clear()

    def backward(self, losses: Tensor) -> None:
        """Add the gradient of the mean of losses (batch,) to that of every parameter."""
        self.gathering = True
        try:
            torch.autograd.backward(losses, torch.full_like(losses, 1 / losses.numel()))
        finally:
            self.gathering = False


def _steps(module: nn.Module) -> list[nn.Linear | _Activation] | None:
    """Return what a chain does, one step after another; None if the module is no chain."""
    if type(module) is not nn.Sequential or not _untouched(module):
        return None
    steps: list[nn.Linear | _Activation] = []
    for layer in module:
        kind = type(layer)
        if not _untouched(layer) or (kind is not nn.Linear and kind not in _ACTIVATIONS):
            return None
        steps.append(layer if isinstance(layer, nn.Linear) else _ACTIVATIONS[kind](layer))
    parameters = list(module.parameters())
    placed = all(p.grad is not None or not p.requires_grad for p in parameters)
    return steps if placed and len({p.dtype for p in parameters}) == 1 else None


def _untouched(module: nn.Module) -> bool:
    """Whether calling a module does what its class says and no more."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return not any(hooks) and "forward" not in module.__dict__ and module._compiled_call_impl is None


class _Chain:
    """What stands in the place of a sequence's `forward` while it is trained."""

    def __init__(self, module: nn.Module, steps: Sequence[nn.Linear | _Activation], owner: Chains) -> None:
        self.module, self.steps, self.owner = module, steps, owner
        linear = [step for step in steps if isinstance(step, nn.Linear)]
        self.parameters: list[Tensor | None] = [p for layer in linear for p in (layer.weight, layer.bias)]
        self.dtype = linear[0].weight.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """Return what the modules one after another would, (..., out) for x (..., in)."""
        if x.ndim < 2 or not torch.is_grad_enabled() or _transformed():
            return self.plain(x)
        rows = x if x.ndim == 2 else x.flatten(0, -2)
        out: Any = _Node.apply(self, rows.to(self.dtype), *self.parameters)
        return out if x.ndim == 2 else out.unflatten(0, x.shape[:-1])

    def plain(self, x: Tensor) -> Tensor:
        """Return what the modules one after another do."""
        return type(self.module).forward(self.module, x)


class _Node(torch.autograd.Function):
    """The node of a chain. The parameters are its inputs for those who ask for their gradients in a loss."""

    @staticmethod
    def forward(ctx: Any, chain: _Chain, x: Tensor, *parameters: Tensor | None) -> Tensor:  # type: ignore[override]
        kept, h, left = [], x, iter(parameters)
        for step in chain.steps:
            z = h
            if isinstance(step, nn.Linear):
                h = functional.linear(z, next(left), next(left))  # type: ignore[arg-type]
            elif step.overwrite is None or z is x:
                h = step.forward(z)
            else:
                h = step.overwrite(z)
            kept.append(z if isinstance(step, nn.Linear) or step.overwrite is None else h)
        ctx.chain = chain
        ctx.save_for_backward(x, *kept)
        return h

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        chain, needed = ctx.chain, ctx.needs_input_grad[1:]
        x, *kept = ctx.saved_tensors
        if not chain.owner.gathering:
            return None, *_plain_gradients(chain, x, gradient, needed)
        below = len(chain.parameters)  # those of the layers that are still to come
        for step, seen in zip(reversed(chain.steps), reversed(kept), strict=True):
            if isinstance(step, nn.Linear):
                below -= 2
                _add(step, gradient, seen, needed[1 + below : 3 + below])
                if not below and not needed[0]:
                    break
                gradient = gradient @ step.weight
            else:
                gradient = step.backward(gradient, seen)
        return None, gradient if needed[0] else None, *(None for _ in chain.parameters)


def _add(layer: nn.Linear, gradient: Tensor, h: Tensor, needed: Sequence[bool]) -> None:
    """Add the gradients of a layer's weight and bias to theirs, for that of its answers (rows, out) to h (rows, in)."""
    if needed[0]:
        weight: Any = layer.weight.grad
        if h.shape[1] * _NARROW <= gradient.shape[1]:
            weight.add_((h.t() @ gradient).t())
        else:
            weight.addmm_(gradient.t(), h)
    if needed[1]:
        bias: Any = layer.bias.grad
        bias.add_(gradient.sum(0))


def _plain_gradients(chain: _Chain, x: Tensor, gradient: Tensor, needed: Sequence[bool]) -> list[Tensor | None]:
    """Return the gradients with respect to x and the parameters, as autograd finds them: they may have a history."""
    wanted = [tensor for tensor, need in zip((x, *chain.parameters), needed, strict=True) if need]
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        found = iter(torch.autograd.grad(chain.plain(x), wanted, gradient, create_graph=again))  # type: ignore[arg-type]
    return [next(found) if need else None for need in needed]


def _transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is under way."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
