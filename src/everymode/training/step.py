"""One step of a part, and three ways to make it: call by call, compiled, and as a CUDA graph.

A small network's step is bound by the number of calls, not by arithmetic. What does not change from step to step,
which calls there are, is noted once: by tracing the step operation by operation and compiling all of it, loss,
gradient, clipping, AdamW and average, into one function; on a GPU by recording what is launched, as a CUDA graph. The
draws are the same numbers in the same order in all three, and a graph gives the same weights bit for bit.

Both note what is done with tensors: whatever else a loss does is done once. Where a module counts or keeps something
in Python from step to step, its steps are therefore made call by call; `Part.recorded` says where else they must be.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from shutil import which
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from everymode.errors import SettingError
from everymode.families.base import Family
from everymode.randomness import Script, Source
from everymode.spaces import Condition
from everymode.training.processes import Processes
from everymode.training.state import PartState

__all__ = ["Compiled", "Eager", "Recorded", "Step", "find_compiler"]

_OPTIONS = {"compile_threads": 1, "deterministic": True}  # a process for one kernel does not pay; no choice by time
_NOT_TRACED = ("best", "optimizer.steps")
_CALLS_BEFORE_RECORDING = 3  # in which libraries choose kernels and caches are filled

Step = Callable[[Tensor, Condition, Any, Any], None]
"""(y, x, learning rate, weight of the new values in their average): changes the state of a part."""


def find_compiler(device: torch.device) -> str | None:
    """Return by what steps on a device are compiled, or None where there is nothing: a C++ compiler, or Triton."""
    if device.type == "cuda":
        return "triton" if find_spec("triton") else None
    return which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))


class Eager:
    """A step, call by call.

    Args:
        state: of the part.
        source: where the loss draws from.
        autocast: the precision that the loss is computed in.
        clip: largest norm of the gradient; None for no clipping.
        processes: over which the gradient is averaged.
    """

    def __init__(
        self,
        state: PartState,
        source: Source,
        *,
        autocast: AbstractContextManager[Any],
        clip: float | None,
        processes: Processes,
    ) -> None:
        self.state, self.source = state, source
        self.autocast, self.clip, self.processes = autocast, clip, processes

    def __call__(self, y: Tensor, x: Condition, rate: float | Tensor, weight: float | Tensor) -> None:
        """Make one step on a batch (y, x)."""
        state, flat = self.state, self.state.flat
        flat.clear()
        with self.autocast:
            losses = state.part.loss(y, x, generator=self.source)
        loss = losses.mean()
        loss.backward()
        gradient = self.processes.average_(flat.collect())
        state.optimizer.step(flat.values, gradient, rate, self.clip)
        flat.publish()
        state.average.lerp_(flat.values, weight)
        state.running_loss += loss.detach()


class Compiled:
    """A step as one compiled function, by torch's inductor; it needs a C++ compiler, or on a GPU Triton.

    The step is traced on copies, so that making this changes nothing.

    Args:
        family: that the part belongs to.
        state: of the part.
        generator: where the loss draws from.
        autocast: the precision that the loss is computed in.
        clip: largest norm of the gradient; None for no clipping.
        y: targets of a batch, as in every call.
        x: conditions of a batch, as in every call.

    Raises:
        SettingError: the step cannot be traced or compiled.
    """

    def __init__(
        self,
        family: Family,
        state: PartState,
        generator: torch.Generator,
        *,
        autocast: AbstractContextManager[Any],
        clip: float | None,
        y: Tensor,
        x: Condition,
    ) -> None:
        self.state, self.autocast, self.clip = state, autocast, clip
        self.half = isinstance(autocast, torch.autocast)
        self.script = Script(generator)
        self.rate, self.weight = (torch.zeros((), device=y.device) for _ in range(2))
        before = generator.get_state()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's, about itself
                self.loss = _Loss(family, state)
                self._compile(y, x)
        except Exception as error:  # whatever a user's loss or the compiler raises
            told = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SettingError(
                f"the step of part {state.part.name!r} cannot be compiled: {told[:200]}. Leave compile at 'auto'."
            ) from error
        finally:
            generator.set_state(before)

    def _compile(self, y: Tensor, x: Condition) -> None:
        from torch._inductor import compile as compile_graph
        from torch.fx.experimental.proxy_tensor import make_fx

        state = {name: tensor for name, tensor in self.state.tensors().items() if name not in _NOT_TRACED}
        rest = self.loss.rest()
        names, others = list(state), list(rest)
        columns = list(x) if isinstance(x, dict) else None
        values = [y, *(x.values() if isinstance(x, dict) else [x])]

        with self.autocast:
            self._rehearse(y, x, Script(self.script.generator))  # caches are filled
            before = _kept(self.loss.family)
            self._rehearse(y, x, self.script)
        if _kept(self.loss.family) != before:
            raise SettingError("its loss counts in Python")
        draws = self.script.draw()

        def work(*given: Tensor) -> tuple[()]:
            left = iter(given)
            state = {name: next(left) for name in names}
            rest = {name: next(left) for name in others}
            y, *parts = (next(left) for _ in values)
            x = parts[0] if columns is None else dict(zip(columns, parts, strict=True))
            rate, weight, corrections, *draws = left
            self._work(state, rest, y, x, rate, weight, corrections, draws)
            return ()

        corrections = torch.ones(2, device=y.device)
        given = [*state.values(), *rest.values(), *values, self.rate, self.weight, corrections, *draws]
        given = [tensor.detach().clone() for tensor in given]
        graph = make_fx(work, tracing_mode="fake", _allow_non_fake_inputs=True)(*given)  # fake: no value can be read
        self._changed, self._rest, self._constants = [*state.values()], [*rest.values()], _lift_constants(graph)
        _share_sums(graph)
        for node in graph.graph.nodes:
            node.meta.clear()  # of the trace; the compiler makes its own
        options = _OPTIONS | ({"cpp_wrapper": True} if y.device.type == "cpu" else {})
        self._function: Callable[..., Any] = compile_graph(graph, [*given, *self._constants], options=options)  # pyright: ignore[reportAttributeAccessIssue]
        self._function(*given, *self._constants)  # on the copies: what is compiled late is compiled now

    def _rehearse(self, y: Tensor, x: Condition, script: Script) -> None:
        """Make the loss once, on copies; the script notes its draws."""
        every = self.loss.trained() | self.loss.rest()
        self.loss.of({name: tensor.detach().clone() for name, tensor in every.items()}, y, x, script)

    def _work(
        self,
        state: dict[str, Tensor],
        rest: dict[str, Tensor],
        y: Tensor,
        x: Condition,
        rate: Tensor,
        weight: Tensor,
        corrections: Tensor,
        draws: Sequence[Tensor],
    ) -> None:
        """Make a step with the tensors that are given: what is traced."""
        values = state["values"].detach().requires_grad_()
        trained = [part.bfloat16() if self.half else part for part in self.state.flat.cut(values)]
        parameters = dict(zip(self.loss.trained(), trained, strict=True))
        with self.autocast:
            losses = self.loss.of(parameters | rest, y, x, self.script.perform(draws))
        loss = losses.mean()
        (gradient,) = torch.autograd.grad(loss, [values])
        with torch.no_grad():
            averages = state["optimizer.first"], state["optimizer.second"]
            self.state.optimizer.written_out(state["values"], gradient, rate, self.clip, corrections, *averages)
            state["average"].lerp_(state["values"], weight)
            state["running_loss"].add_(loss.detach())

    def __call__(self, y: Tensor, x: Condition, rate: float | Tensor, weight: float | Tensor) -> None:
        """Make one step on a batch (y, x)."""
        for own, new in ((self.rate, rate), (self.weight, weight)):
            own.copy_(new) if isinstance(new, Tensor) else own.fill_(new)
        parts = x.values() if isinstance(x, dict) else [x]
        with torch.no_grad():
            self._function(
                *self._changed,
                *(tensor.detach() for tensor in self._rest),
                y,
                *parts,
                self.rate,
                self.weight,
                self.state.optimizer.corrections(),
                *self.script.draw(),
                *self._constants,
            )


class _Loss(nn.Module):
    """The loss of a part as a function of every tensor of its family."""

    def __init__(self, family: Family, state: PartState) -> None:
        super().__init__()
        self.family, self._part = family, state.part
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        self._trained = {names[id(parameter)]: parameter for parameter in state.flat.parameters}

    def trained(self) -> dict[str, Tensor]:
        """Return the trained parameters by name, in the order of the flat tensor."""
        return dict(self._trained)

    def rest(self) -> dict[str, Tensor]:
        """Return the other parameters and the buffers by name."""
        every = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        return {name: tensor for name, tensor in every.items() if name not in self._trained}

    def forward(self, y: Tensor, x: Condition, source: Source) -> Tensor:
        return self._part.loss(y, x, generator=source)

    def of(self, tensors: dict[str, Tensor], y: Tensor, x: Condition, source: Source) -> Tensor:
        """Return the loss of each row with `tensors` in the place of the family's own."""
        return functional_call(self, tensors, (y, x, source))


def _lift_constants(module: torch.fx.GraphModule) -> list[Tensor]:
    """Make inputs of the tensors that a traced graph holds, after the others, and return them: they stay live."""
    graph, constants = module.graph, []
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        constants.append(getattr(module, node.target).detach())
        with graph.inserting_after(last):
            last = graph.placeholder(f"constant_{len(constants)}")
        node.replace_all_uses_with(last)
        graph.erase_node(node)
    module.recompile()
    return constants


def _share_sums(module: torch.fx.GraphModule) -> None:
    """Make one of equal sums (biases that are added have one gradient): in bf16, torch's C++ for two is not valid."""
    seen: dict[Any, torch.fx.Node] = {}
    for node in list(module.graph.nodes):
        if node.target is not torch.ops.aten.sum.dim_IntList or any(map(_changes, node.args[0].users)):
            continue
        first = seen.setdefault(str((node.args, node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)
            module.graph.erase_node(node)
    module.recompile()


def _kept(family: nn.Module) -> list[Any]:
    """Return what the modules of a family keep in Python: their numbers and texts, and how long their lists are."""
    found = []
    for module in family.modules():
        for name, value in vars(module).items():
            if isinstance(value, str | int | float):
                found.append((name, value))
            elif isinstance(value, list | dict | set):
                found.append((name, len(value)))
    return found


def _changes(node: torch.fx.Node) -> bool:
    """Return whether an operation changes one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


class Recorded:
    """A step as a CUDA graph: what took a hundred launches takes one.

    The first steps are made call by call; then one is recorded, and from it on the record is played. A step that
    cannot be recorded (it waits for the device, say) is made call by call for good.

    Args:
        step: what is recorded.
        family: whose step it is.
        generator: where it draws from.
    """

    def __init__(self, step: Step, family: Family, generator: torch.Generator) -> None:
        self.step, self.family, self.generator = step, family, generator
        self.same = True
        self.graph: torch.cuda.CUDAGraph | None = None
        self._calls, self._given = 0, []
        self._rate, self._weight = (torch.zeros((), device=generator.device) for _ in range(2))
        self._stream = torch.cuda.Stream(generator.device)

    def __call__(self, y: Tensor, x: Condition, rate: float | Tensor, weight: float | Tensor) -> None:
        """Make one step on a batch (y, x)."""
        self._rate.fill_(rate)
        self._weight.fill_(weight)
        given = [y, *(x.values() if isinstance(x, dict) else [x])]
        if self.graph is not None:
            torch._foreach_copy_(self._given, given)
            self.graph.replay()
            return
        self._calls += 1
        if self._calls == _CALLS_BEFORE_RECORDING:
            before = _kept(self.family)
            self._aside(y, x)
            self.same = _kept(self.family) == before
        elif self._calls == _CALLS_BEFORE_RECORDING + 1 and self.same:
            self._given = [tensor.clone() for tensor in given]
            y, *parts = self._given
            self._record(y, dict(zip(x, parts, strict=True)) if isinstance(x, dict) else parts[0])
        else:
            self._aside(y, x)

    def _aside(self, y: Tensor, x: Condition) -> None:
        """Make the step on the stream that is recorded later: its caches are filled there."""
        here = torch.cuda.current_stream(self.generator.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            self.step(y, x, self._rate, self._weight)
        here.wait_stream(self._stream)

    def _record(self, y: Tensor, x: Condition) -> None:
        """Record the step and play it, or make it call by call if it cannot be recorded."""
        graph, state = torch.cuda.CUDAGraph(), self.generator.clone_state()
        try:
            graph.register_generator_state(self.generator)
            with torch.cuda.graph(graph, stream=self._stream):
                self.step(y, x, self._rate, self._weight)
        except Exception:  # what waits for the device raises as it likes
            self.generator.graphsafe_set_state(state)  # the old one is part of what failed
            self._aside(y, x)
            return
        self.graph = graph
        graph.replay()
