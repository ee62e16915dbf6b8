"""Encoders: what changes an embedding and what does not."""

from __future__ import annotations

import pytest
import torch

from everymode.networks.encoders import SetEncoder
from everymode.randomness import seeded


@pytest.fixture
def encoder() -> SetEncoder:
    with seeded(0):
        return SetEncoder(2, 16)


@pytest.fixture
def points() -> torch.Tensor:
    return torch.randn(6, 5, 2, generator=torch.Generator().manual_seed(1))


def test_the_order_of_the_points_changes_nothing(encoder: SetEncoder, points: torch.Tensor) -> None:
    torch.testing.assert_close(encoder(points[:, [3, 0, 4, 2, 1]]), encoder(points))


def test_place_and_width_are_told_apart_from_looks(encoder: SetEncoder, points: torch.Tensor) -> None:
    """What the last layers see of a x + b: the same looks, the mean moved likewise, the log spread by log a."""
    seen: list[torch.Tensor] = []
    encoder.layers.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    widths, shift = torch.tensor([0.01, 30.0]), torch.tensor([0.2, -4.0])
    encoder(points)
    encoder(widths * points + shift)
    (looks, mean, spread), (moved_looks, moved_mean, moved_spread) = (part.split([16, 2, 2], dim=1) for part in seen)
    torch.testing.assert_close(moved_looks, looks, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moved_mean, widths * mean + shift)
    torch.testing.assert_close(moved_spread, spread + widths.log(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [1, 5])
def test_equal_points_are_no_trouble(encoder: SetEncoder, count: int) -> None:
    encoder(torch.full((3, count, 2), 0.3)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in encoder.parameters())
