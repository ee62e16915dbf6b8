"""A standardised x of any kind as one matrix: what families without networks read.

Numbers stay as they are, events are flattened, and a category is either one column of codes or one column a category,
1 where it holds and 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from everymode.errors import SettingError
from everymode.spaces import ArraySpace, Condition, DictSpace, LabelSpace, Space, TableSpace

__all__ = ["flat_condition"]


def flat_condition(x: Condition, space: Space, *, indicators: bool) -> tuple[Tensor, list[int]]:
    """Return x as one matrix, and which of its columns hold codes.

    Args:
        x: conditions, rows first, standardised.
        space: of x.
        indicators: whether a category becomes a column of 0 and 1 for each of its values, or one column of codes.

    Returns:
        float32 (rows, columns), which may have no columns, and the indices of the columns of codes.
    """
    columns, coded = [], []
    for values, categories in _pieces(x, space):
        if categories and indicators:
            columns.append(one_hot(values, categories).float())
            continue
        if categories:
            coded.append(sum(piece.shape[1] for piece in columns))
            values = values[:, None]
        columns.append(values.float())
    return torch.cat(columns, dim=1), coded


def _pieces(x: Condition, space: Space) -> Iterator[tuple[Tensor, int]]:
    """Yield (numbers (rows, k), 0) and (codes (rows,), number of categories)."""
    if isinstance(x, Tensor):
        if isinstance(space, LabelSpace):
            yield x, len(space.categories)
        elif isinstance(space, ArraySpace):
            yield x.flatten(1), 0
        else:
            raise SettingError(f"a {space.kind} is no single tensor.")
    elif isinstance(space, TableSpace):
        yield x["numeric"], 0
        for column, codes in zip(space.categorical, x["categorical"].unbind(1), strict=True):
            yield codes, len(column.categories or ())
    elif isinstance(space, DictSpace):
        for key, part in space.parts.items():
            yield from _pieces(x[key], part)
    else:
        raise SettingError(f"a {space.kind} is no dict of tensors.")
