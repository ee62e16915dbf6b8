"""The residual multilayer perceptron: what it may do once for many rows changes no answer."""

from __future__ import annotations

import pytest
import torch

from everymode.networks import ResidualMLP
from everymode.randomness import seeded
from everymode.spaces import repeat_rows


@pytest.mark.parametrize("one_time", [True, False])
def test_one_embedding_for_all_rows_is_worked_on_once(one_time: bool) -> None:
    """Beside one embedding a row: the same answers, and the condition's layer sees a single row."""
    with seeded(0):
        network = ResidualMLP((2,), 8, width=16, depth=2)
        embedding, y = torch.randn(1, 8), torch.randn(5, 2)
    t = torch.tensor(0.3).expand(5) if one_time else torch.linspace(0, 1, 5)
    rows: list[int] = []
    network.condition.register_forward_hook(lambda module, seen, out: rows.append(len(seen[0])))
    once = network(y, t, repeat_rows(embedding, 5))
    each = network(y, t, embedding.repeat(5, 1))
    assert rows == [1, 5]
    torch.testing.assert_close(once, each)
