"""The contract of a family: a way to represent p(y given x).

A family is made with settings only, `FlowMatching(path="cosine")`; `build` returns a copy of it with parameters, for
one space of y and one of x. It sees standardised tensors and nothing else. What it can do is declared once, in
`abilities`, and read by the estimator, the command line, the figures and the tests alike.

A new family subclasses `Family`, sets `name` and `abilities`, and writes `loss` and `draw`; one that is not trained by
gradients writes `solve` in place of `loss`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from everymode.control import Control
from everymode.errors import SettingError, UnsupportedError, unknown_name
from everymode.networks import NetworkFactory, Sizes, default_for, sizes_for
from everymode.randomness import Source, seeded
from everymode.spaces import ArraySpace, Condition, Space, count_rows, repeat_rows

__all__ = ["Abilities", "Family", "Part"]

_JUDGED = 8  # draws a row

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Abilities:
    """What a family can do.

    Attributes:
        spaces: the kinds of y that it models.
        several: whether two draws for one x may differ.
        modes: whether its p(y | x) can have several modes.
        gradient: whether it is trained by gradient steps on the losses of its parts; if not, it has `solve`.
        own_network: whether a user's own network can take the place of the default one.
        networks: the names of the networks that can be chosen; None for all of them.
        density: whether it has `log_prob`.
        velocity: whether it has `velocity(y_t, t, x)`.
        trajectory: whether it has `trajectory(x, times)`.
        temperature: whether `controlled` takes a temperature.
        steered: whether `controlled` takes values of y that are known, and guides.
        why_not: a sentence for a kind of y that it does not model.
    """

    spaces: tuple[str, ...] = ("vector", "sequence", "image")
    several: bool = True
    modes: bool = True
    gradient: bool = True
    own_network: bool = True
    networks: tuple[str, ...] | None = None
    density: bool = False
    velocity: bool = False
    trajectory: bool = False
    temperature: bool = False
    steered: bool = False
    why_not: str = ""


@dataclass(frozen=True)
class Part:
    """A set of parameters trained by a loss of its own.

    Parts of one stage are stepped in turn on every batch; stages follow one another and share the steps by `share`.

    Attributes:
        name: what progress and checkpoints call it.
        module: whose parameters are trained.
        loss: (y, x, generator=...) -> (batch,).
        stage: 0 for what is trained first.
        share: part of all steps that this stage gets, against the other stages.
        rate: learning rate of this part, in learning rates of the run.
        betas: decay of AdamW's averages of the gradient and of its square.
        judge: what the held-out rows are judged by, in place of the loss: an adversarial loss says nothing of quality.
        judged: whether this part is looked at on the held-out rows at all.
        chosen: whether what is kept is the average that does best on the held-out rows, which may also stop the run;
            else it is the last average. A stage takes the last where any of its parts does.
        given: whether its loss is of the rows that it is given; else it makes rows of its own, as many.
        recorded: whether a step may be noted once and repeated, compiled or as a CUDA graph: its loss is the same
            operations on tensors in every step, and reads no value of one. What modules count in Python is seen, and
            need not be told here.
    """

    name: str
    module: nn.Module
    loss: Loss
    stage: int = 0
    share: float = 1.0
    rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    judge: Loss | None = None
    judged: bool = True
    chosen: bool = True
    given: bool = True
    recorded: bool = True


class Family(nn.Module):
    """Base of all families. Settings are keyword arguments of the constructor, kept under the same names."""

    name: ClassVar[str] = ""
    abilities: ClassVar[Abilities] = Abilities()
    sized_by_data: ClassVar[tuple[str, ...]] = ()
    """Names of buffers whose shape follows from the data: a saved model's decide."""
    batch_share: ClassVar[float] = 1.0
    """Of the batch that suits the rows: where a row is dear, more steps on fewer rows do better in equal time."""

    judged_by_draws: ClassVar[bool] = False
    """Whether the held-out rows are judged by the energy score of draws, where `loss` says nothing of quality."""

    method_setting: ClassVar[str] = ""
    """Name of the setting that says by which method draws are made, where there is a choice."""
    methods: ClassVar[tuple[str, ...]] = ()
    """What that setting may be."""

    usual_depth: ClassVar[int | None] = None
    """Blocks of its networks where no number is asked for; None for what suits the space of y."""

    y_space: ArraySpace | None = None
    x_space: Space | None = None

    def __init__(self) -> None:
        super().__init__()
        self._teachers: tuple[Family | None] = (None,)
        if self.sized_by_data:
            self.register_load_state_dict_pre_hook(_take_sizes)

    # Settings, as scikit-learn reads and writes them ---------------------------------------------------------------

    @classmethod
    def setting_names(cls) -> list[str]:
        """Return the names of the constructor's settings."""
        return [p.name for p in inspect.signature(cls).parameters.values() if p.kind is p.KEYWORD_ONLY]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings by name."""
        return {name: getattr(self, name) for name in self.setting_names()}

    def set_params(self, **settings: Any) -> Self:
        """Change settings; they are checked as by the constructor, and all of them are taken or none."""
        for name in settings:
            if name not in self.setting_names():
                raise SettingError(unknown_name(f"setting of family {self.name!r}", name, self.setting_names()))
        checked = type(self)(**{**self.get_params(), **settings})
        for name in settings:
            setattr(self, name, getattr(checked, name))
        return self

    def settings(self) -> dict[str, Any]:
        """Return the settings, JSON-ready; the registry's `from_settings` makes the family again."""
        return self.get_params()

    def __repr__(self) -> str:
        defaults = {p.name: p.default for p in inspect.signature(type(self)).parameters.values()}
        shown = (f"{k}={v!r}" for k, v in self.get_params().items() if v is not defaults[k] and v != defaults[k])
        return f"{type(self).__name__}({', '.join(shown)})"

    # Building ------------------------------------------------------------------------------------------------------

    def build(
        self,
        y_space: ArraySpace,
        x_space: Space,
        *,
        seed: int = 0,
        width: int | None = None,
        depth: int | None = None,
        network: str | NetworkFactory | None = None,
    ) -> Self:
        """Return a copy of this family with fresh parameters.

        Args:
            y_space: the space of y.
            x_space: the space of x.
            seed: of the initial parameters.
            width: hidden width of the default network.
            depth: number of blocks of the default network.
            network: the name of a network (see `everymode.networks.names()`), or a function that makes one of the
                user's own, in place of the default one.

        Raises:
            UnsupportedError: the family does not model this kind of y.
            SettingError: width or depth is out of range, or the network is not for this kind of y.
        """
        if y_space.kind not in self.abilities.spaces:
            reason = f" {self.abilities.why_not}" if self.abilities.why_not else ""
            raise UnsupportedError(
                f"family {self.name!r} models {' and '.join(self.abilities.spaces)} targets, not a "
                f"{y_space.kind}.{reason}"
            )
        self._check_network(network)
        built = type(self)(**self.get_params())
        built.y_space, built.x_space = y_space, x_space
        sizes = sizes_for(y_space, width, self.usual_depth if depth is None else depth, network)
        with seeded(seed):
            built.assemble(y_space, x_space, sizes)
        return built

    def _check_network(self, network: str | NetworkFactory | None) -> None:
        """Raise `UnsupportedError` where this family cannot have the network."""
        named = self.abilities.networks
        if callable(network) and not self.abilities.own_network:
            mend = "leave network= out, or take another family"
        elif isinstance(network, str) and named is not None and network not in named:
            mend = f"take {' or '.join(named)}" if named else "leave network= out, or take another family"
        else:
            return
        raise UnsupportedError(f"family {self.name!r} makes its own networks: {mend}.")

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make the modules: `encoder`, and the `network` that answers in the shape of y."""
        network, self.encoder = default_for(y_space, x_space, sizes)
        self.network: nn.Module = network

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of one y."""
        if self.y_space is None:
            raise SettingError(
                f"{type(self).__name__} holds settings only; build(y_space, x_space) gives it parameters."
            )
        return self.y_space.shape

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def parameter_count(self) -> int:
        """Number of fitted numbers."""
        return sum(p.numel() for p in self.parameters())

    # Training ------------------------------------------------------------------------------------------------------

    def prepare(self, y: Tensor, x: Condition, *, seed: int) -> None:
        """Look at the training data once, before the first step: bounds, bin edges, a first code book.

        What is found goes into buffers or parameters. It is repeated when a run is resumed, so it must be a function
        of its arguments alone.

        Args:
            y: all targets (rows, *event), standardised.
            x: all conditions, rows first, standardised.
            seed: of whatever is random in it.
        """

    def solve(
        self, y: Tensor, x: Condition, *, held_out: tuple[Tensor, Condition] | None, seed: int, seconds: float | None
    ) -> Iterator[tuple[float, float, float | None]]:
        """Fit without gradients; only families that say `gradient=False` have it, and they have no parts.

        Args:
            y: all targets (rows, *event), standardised.
            x: all conditions, rows first, standardised.
            held_out: (y, x) to choose and to stop by.
            seed: of whatever is random in it.
            seconds: the time after which it ends with what it has, about; None for no bound.

        Yields:
            (share done, loss, loss on the held-out rows or None), the model being whole at each; at least once.
        """
        raise UnsupportedError(f"family {self.name!r} is trained by gradients.")

    def parts(self) -> list[Part]:
        """Return what is trained, in order; one part with `loss` unless the family says otherwise."""
        return [Part("model", self, self.loss, judge=partial(energy_score, self) if self.judged_by_draws else None)]

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the loss of each row, (batch,), in the family's own units.

        Args:
            y: targets (batch, *event), standardised.
            x: conditions, rows first, standardised.
            generator: where the randomness comes from; fresh entropy if None.
        """
        raise NotImplementedError

    def learn_from(self, teacher: Family | None) -> None:
        """Keep a trained family of the same spaces to learn from, where `loss` can use more of it than its draws.

        It is no part of this family: not trained, not saved, and given up again with None.
        """
        self._teachers = (teacher,)  # a tuple: modules would be registered

    @property
    def teacher(self) -> Family | None:
        """What `learn_from` was given."""
        return self._teachers[0]

    def settle(self, x: Condition, *, seed: int) -> None:
        """Look at the trained model once, before its first draw: how it had better be drawn from.

        What is found goes into buffers.

        Args:
            x: conditions that were not trained on, where some were held out, rows first, standardised.
            seed: of whatever is random in it.
        """

    # Sampling ------------------------------------------------------------------------------------------------------

    @property
    def nfe(self) -> int:
        """Network evaluations for one draw."""
        return 1

    def encode(self, x: Condition) -> Any:
        """Return what `draw` needs to know of x, rows first: computed once a call, whatever the number of draws."""
        return self.encoder(x)

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row of `embedding`, (batch, *event)."""
        raise NotImplementedError

    def sample(self, x: Condition, n: int = 1, *, generator: Source = None) -> Tensor:
        """Return `n` draws a row, draws of one row side by side: (rows * n, *event).

        Args:
            x: conditions, rows first, standardised.
            n: number of draws a row.
            generator: same state, same draws, on the same machine.
        """
        return self.draw(repeat_rows(self.encode(x), n), generator=generator)

    # Optional; `abilities` says which there are --------------------------------------------------------------------

    def log_prob(self, y: Tensor, x: Condition) -> Tensor:
        """Return log p(y | x) of standardised y, (batch,), in nats."""
        raise UnsupportedError(f"family {self.name!r} has no density.")

    def log_prob_and_error(self, y: Tensor, x: Condition) -> tuple[Tensor, Tensor]:
        """Return log p(y | x) and its standard error, (batch,) each, in nats; 0 where the density is in closed form."""
        log_prob = self.log_prob(y, x)
        return log_prob, torch.zeros_like(log_prob)

    def controlled(self, embedding: Any, control: Control, *, generator: Source = None) -> Tensor:
        """Return one draw a row of `embedding`, (batch, *event), as `control` says; see `abilities`."""
        raise UnsupportedError(f"the draws of family {self.name!r} cannot be controlled.")

    def velocity(self, y_t: Tensor, t: Tensor, x: Condition) -> Tensor:
        """Return dy/dt at (y_t, t), (batch, *event)."""
        raise UnsupportedError(f"family {self.name!r} has no velocity.")

    def trajectory(self, x: Condition, times: Tensor, *, generator: Source = None) -> Iterator[tuple[float, Tensor]]:
        """Yield (time, states (batch, *event)) at each of `times`, from noise to data."""
        raise UnsupportedError(f"family {self.name!r} has no trajectory.")

    # For subclasses ------------------------------------------------------------------------------------------------

    def _rows(self, embedding: Any) -> tuple[int, Tensor]:
        """Return the number of rows of an embedding, and a tensor with the device and dtype to draw in."""
        first = next(iter(embedding.values())) if isinstance(embedding, dict) else embedding
        like = first if first.is_floating_point() else torch.empty((), device=first.device)
        return count_rows(embedding), like


def _take_sizes(family: Family, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in family.sized_by_data:
        if (saved := state_dict.get(prefix + name)) is not None:
            setattr(family, name, torch.empty_like(saved, device=getattr(family, name).device))


def energy_score(family: Family, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
    """Return the energy score of a few draws for each row, (batch,), in standard deviations of y; lower is better.

    A judge for losses that tell nothing of how good the draws are (Gneiting and Raftery, 2007: Strictly proper scoring
    rules, prediction, and estimation, https://doi.org/10.1198/016214506000001437). The same number as
    `metrics.energy_scores` has, which stands above the families, where training is and the tensors are.
    """
    drawn = family.sample(x, _JUDGED, generator=generator).reshape(len(y), _JUDGED, -1).float()
    to_truth = (drawn - y.flatten(1)[:, None]).norm(dim=2).mean(dim=1)
    between = torch.cdist(drawn, drawn).sum(dim=(1, 2)) / (_JUDGED * (_JUDGED - 1))
    return to_truth - 0.5 * between


def mean_over_event(errors: Tensor) -> Tensor:
    """Return the mean of (batch, *event) over the event, (batch,)."""
    return errors.mean(dim=tuple(range(1, errors.ndim))) if errors.ndim > 1 else errors


def times_like(t: float | Tensor, like: Tensor) -> Tensor:
    """Return a time as (batch,), with the device and dtype of `like`."""
    t = t.to(like) if isinstance(t, Tensor) else like.new_full((), t)
    return t.expand(len(like)) if t.ndim == 0 else t


@contextmanager
def outside_inference() -> Iterator[None]:
    """Let gradients with respect to y be asked for, wherever this is entered; without asking there are none."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def copied(embedding: Any) -> Any:
    """Return a copy of an embedding that is free of inference mode."""
    if isinstance(embedding, dict):
        return {name: copied(part) for name, part in embedding.items()}
    return embedding.clone()
