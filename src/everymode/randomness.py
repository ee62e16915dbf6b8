"""Explicit randomness: every draw names its generator, and nothing touches torch's global state.

The randomness of training step k is a function of (seed, k) alone, so a resumed run needs no generator state.
Under several processes a `Shard` draws for the whole batch and keeps its own rows: two processes with the same
global batch see the same numbers as one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from everymode.errors import check_number

__all__ = [
    "Common",
    "PerRow",
    "Script",
    "Shard",
    "Source",
    "categorical",
    "mix",
    "new_generator",
    "normal",
    "rademacher",
    "seed_of",
    "seeded",
    "stratified",
    "uniform",
]


@dataclass(frozen=True)
class Shard:
    """The part of a process in draws for a batch that several processes share.

    `generator` must be in the same state on every process; rows `rank * rows : (rank + 1) * rows` are kept.
    """

    generator: torch.Generator
    rank: int
    world: int


@dataclass(frozen=True)
class Common:
    """The same `draws` draws for every row: what one row is answered does not depend on the rows beside it."""

    generator: torch.Generator
    draws: int


@dataclass(frozen=True)
class PerRow:
    """A generator for each row, on the CPU: what a row is answered does not depend on which rows are beside it."""

    generators: tuple[torch.Generator, ...]


class Script:
    """The draws of a function, noted at a rehearsal; then they can be made beforehand, in its order, and handed in.

    Args:
        generator: where they come from, at the rehearsal and after.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self._asked: list[tuple[str, tuple[int, ...], torch.device, torch.dtype]] = []
        self._ready: Iterator[Tensor] | None = None

    def draw(self) -> list[Tensor]:
        """Return draws for one performance."""
        return [_draw(kind, shape, self.generator, device, dtype) for kind, shape, device, dtype in self._asked]

    def perform(self, draws: Sequence[Tensor]) -> Self:
        """Hand out `draws` from now on, and return this."""
        self._ready = iter(draws)
        return self

    def take(self, kind: str, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return the next draw."""
        if self._ready is not None:
            return next(self._ready)
        self._asked.append((kind, shape, device, dtype))
        return _draw(kind, shape, self.generator, device, dtype)


Source = torch.Generator | Shard | Common | PerRow | Script | None


_MASK = (1 << 64) - 1


def mix(seed: int, *stream: int) -> int:
    """Return a 63-bit seed that depends on all its arguments.

    The finaliser of SplitMix64 (Steele, Lea and Flood, 2014: Fast splittable pseudorandom number generators).
    """
    state = 0
    for word in (seed, *stream):
        state = (state + 0x9E3779B97F4A7C15 + (word & _MASK)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def new_generator(seed: int | None, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator seeded with `seed`, or from the operating system's entropy where it is None."""
    generator = torch.Generator(device=device)
    generator.manual_seed(secrets.randbits(63) if seed is None else int(seed))
    return generator


def seed_of(state: Any) -> int:
    """Return an integer seed for what scikit-learn calls a random state; None takes fresh entropy.

    Raises:
        SettingError: it is neither None, a whole number nor a generator of NumPy.
    """
    if state is None:
        return secrets.randbits(31)
    if isinstance(state, np.random.Generator):
        return int(state.integers(2**31))
    if isinstance(state, np.random.RandomState):
        return int(state.randint(2**31 - 1))
    return check_number("random_state", state, 0, 2**63 - 1, integer=True)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator inside the block (parameters are initialised from it) and restore it after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _draw(kind: str, shape: tuple[int, ...], source: Source, device: torch.device, dtype: torch.dtype) -> Tensor:
    if source is None:
        source = new_generator(None, device)
    if isinstance(source, Script):
        return source.take(kind, shape, device, dtype)
    if isinstance(source, Shard):
        rows = shape[0]
        whole = _draw(kind, (rows * source.world, *shape[1:]), source.generator, device, dtype)
        return whole[source.rank * rows : (source.rank + 1) * rows]
    if isinstance(source, Common):
        once = _draw(kind, (source.draws, *shape[1:]), source.generator, device, dtype)
        return once.repeat(shape[0] // source.draws, *(1 for _ in shape[1:]))
    if isinstance(source, PerRow):
        each = (shape[0] // len(source.generators), *shape[1:])
        cpu = torch.device("cpu")
        return torch.cat([_draw(kind, each, generator, cpu, dtype) for generator in source.generators]).to(device)
    draw = torch.randn if kind == "normal" else torch.rand
    values = draw(shape, generator=source, device=source.device, dtype=dtype)
    return values if values.device == device else values.to(device)


def normal(shape: tuple[int, ...], source: Source, *, like: Tensor) -> Tensor:
    """Return standard normal draws of `shape`, with the device and dtype of `like`."""
    return _draw("normal", tuple(shape), source, like.device, like.dtype)


def uniform(shape: tuple[int, ...], source: Source, *, like: Tensor) -> Tensor:
    """Return draws uniform on [0, 1) of `shape`, with the device and dtype of `like`."""
    return _draw("uniform", tuple(shape), source, like.device, like.dtype)


@lru_cache(maxsize=1024)  # small, and never to be freed while a recorded step reads it
def _strata(batch: int, rank: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.arange(rank * batch, (rank + 1) * batch, device=device, dtype=dtype)


def stratified(batch: int, source: Source, *, like: Tensor) -> Tensor:
    """Return draws (batch,) uniform on [0, 1), one in each of as many equal strata as the (whole) batch has rows."""
    world, rank = (source.world, source.rank) if isinstance(source, Shard) else (1, 0)
    strata = _strata(batch, rank, like.device, like.dtype)
    return (strata + uniform((batch,), source, like=like)).div_(batch * world)


def categorical(logits: Tensor, source: Source) -> Tensor:
    """Return draws (batch, ...) from the softmax over the last axis of `logits` (batch, ..., k), by its inverse."""
    cumulative = logits.softmax(-1).double().cumsum(-1)
    u = uniform(tuple(logits.shape[:-1]), source, like=logits).double()[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, u, right=True)[..., 0].clamp_(max=logits.shape[-1] - 1)


def rademacher(shape: tuple[int, ...], source: Source, *, like: Tensor) -> Tensor:
    """Return draws of -1 and +1 with equal probability, with the device and dtype of `like`."""
    return torch.where(uniform(shape, source, like=like) < 0.5, -1.0, 1.0).to(like.dtype)
