"""Gradient-boosted trees (LightGBM) and extremely randomised ones (scikit-learn), cross-fitted, and as tensors.

Everything here takes and gives NumPy arrays; what is fitted turns into tensors, so that it is saved without pickling.

References:
    LightGBM: a highly efficient gradient boosting decision tree (Ke et al., 2017)
    Extremely randomized trees (Geurts, Ernst and Wehenkel, 2006), https://doi.org/10.1007/s10994-006-6226-1
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from everymode.errors import require

__all__ = ["Boosted", "Forest", "boost", "grow", "lightgbm", "pack", "unpack"]

_ROUNDS_UNWATCHED = 20  # where there are too few rows to hold any out


def lightgbm() -> Any:
    """Return the module; `MissingExtraError` where it is not installed."""
    return require("lightgbm", "trees", "boosted trees")


# Boosted trees ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Boosted:
    """Ensembles of boosted trees for one target, whose average is the answer.

    Attributes:
        texts: LightGBM's own description of each.
        boosters: the same, ready.
    """

    texts: tuple[bytes, ...]
    boosters: tuple[Any, ...]

    @classmethod
    def read(cls, texts: Sequence[bytes]) -> Boosted:
        """Return the ensembles that LightGBM described."""
        make = lightgbm().Booster
        return cls(tuple(texts), tuple(make(model_str=text.decode()) for text in texts))

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the average answer to `features` (rows, columns), (rows,); 0 where there are no ensembles."""
        total = np.zeros(len(features))
        for booster in self.boosters:
            total += booster.predict(features, num_threads=torch.get_num_threads())
        return total / max(1, len(self.boosters))

    @property
    def size(self) -> int:
        """Number of leaves and of splits."""
        leaves = (int(n) for text in self.texts for n in re.findall(rb"^num_leaves=(\d+)", text, re.MULTILINE))
        return sum(2 * n - 1 for n in leaves)


def boost(
    features: np.ndarray,
    target: np.ndarray,
    folds: np.ndarray,
    *,
    used: int,
    settings: dict[str, Any],
    rounds: int,
    patience: int,
    categorical: list[int],
    weight: np.ndarray | None = None,
    until: float,
) -> tuple[Boosted, np.ndarray]:
    """Fit `used` ensembles, each off one fold and stopped early on it.

    Args:
        features: (rows, columns); columns of codes among them.
        target: (rows,).
        folds: (rows,), the fold of each row; all 0 where there are too few rows to leave any out.
        used: number of folds left out in turn.
        settings: of LightGBM.
        rounds: number of trees an ensemble, at most.
        patience: trees without improvement after which an ensemble is complete.
        categorical: columns of codes.
        weight: (rows,), of the squared errors.
        until: when to stop, by time.perf_counter.

    Returns:
        the ensembles, and the answer for each row by the ensemble that has not seen it, (rows,): 0 where all have.
    """
    module, target = lightgbm(), np.ascontiguousarray(target)  # a column by itself
    params = {
        "objective": "l2",
        "verbosity": -1,
        "num_threads": torch.get_num_threads(),
        "deterministic": True,
        "force_row_wise": True,
        **settings,
    }
    whole = module.Dataset(
        features, target, weight=weight, categorical_feature=categorical or "auto", params=params, free_raw_data=False
    ).construct()

    def in_time(state: Any) -> None:
        if time.perf_counter() > until:
            raise module.callback.EarlyStopException(state.iteration, state.evaluation_result_list)

    unseen, texts = np.zeros(len(target)), []
    for fold in range(used):
        out = folds == fold
        if out.all():
            found = module.train(params, whole, min(rounds, _ROUNDS_UNWATCHED), callbacks=[in_time])
        else:
            kept, left = (whole.subset(np.flatnonzero(chosen)) for chosen in (~out, out))
            watch = [module.early_stopping(patience, verbose=False), in_time]
            found = module.train(params, kept, rounds, valid_sets=[left], callbacks=watch)
            unseen[out] = found.predict(features[out], num_threads=torch.get_num_threads())
        texts.append(found.model_to_string(num_iteration=found.best_iteration or None).encode())
    return Boosted.read(texts), unseen


def pack(models: Sequence[Boosted]) -> tuple[Tensor, Tensor]:
    """Return (bytes, uint8; lengths (targets, ensembles), int64) of the ensembles of several targets."""
    pressed = [[zlib.compress(text, 1) for text in model.texts] for model in models]
    joined = b"".join(text for texts in pressed for text in texts)
    lengths = torch.tensor([[len(text) for text in texts] for texts in pressed], dtype=torch.int64)
    return torch.frombuffer(bytearray(joined or b"\0"), dtype=torch.uint8), lengths


def unpack(joined: Tensor, lengths: Tensor) -> list[Boosted]:
    """Return the ensembles that `pack` wrote."""
    data, start, models = joined.cpu().numpy().tobytes(), 0, []
    for row in lengths.tolist():
        texts = []
        for length in row:
            texts.append(zlib.decompress(data[start : start + length]))
            start += length
        models.append(Boosted.read(texts))
    return models


# Extremely randomised trees --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forest:
    """Trees as arrays, padded to the size of the largest.

    Attributes:
        features: (trees, nodes), the column asked for; -1 at a leaf.
        thresholds: (trees, nodes); at most this much goes left.
        children: (trees, nodes, 2).
        values: (trees, nodes, targets).
    """

    features: Tensor
    thresholds: Tensor
    children: Tensor
    values: Tensor

    def predict(self, x: Tensor) -> Tensor:
        """Return the average over the trees for x (rows, columns), (rows, targets)."""
        trees = torch.arange(len(self.features), device=x.device)
        node = torch.zeros(len(x), len(trees), dtype=torch.long, device=x.device)
        while True:
            column = self.features[trees, node].long()
            if not (column >= 0).any():
                return self.values[trees, node].mean(dim=1)
            right = x.gather(1, column.clamp_min(0)) > self.thresholds[trees, node]
            node = torch.where(column >= 0, self.children[trees, node, right.long()].long(), node)


def grow(
    x: np.ndarray, y: np.ndarray, folds: np.ndarray, *, trees: int, least: int, seed: int
) -> tuple[Forest, np.ndarray]:
    """Grow `trees` extremely randomised trees off each fold.

    Args:
        x: (rows, columns), float32.
        y: (rows, targets).
        folds: (rows,), the fold of each row, from 0 without gaps.
        trees: number of trees a fold.
        least: rows a leaf, at least.
        seed: of the splits.

    Returns:
        the forest of all folds, and the answer for each row by the trees that have not seen it, (rows, targets).
    """
    from sklearn import config_context
    from sklearn.ensemble import ExtraTreesRegressor

    unseen, grown = np.zeros_like(y), []
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        found = ExtraTreesRegressor(trees, max_features=0.5, min_samples_leaf=least, random_state=(seed + fold) % 2**32)
        with config_context(skip_parameter_validation=True):  # which takes longer than a small tree
            found.fit(x[~out], y[~out].squeeze(1) if y.shape[1] == 1 else y[~out])
        unseen[out] = found.predict(x[out]).reshape(-1, y.shape[1])
        grown += [estimator.tree_ for estimator in found.estimators_]
    nodes = max(tree.node_count for tree in grown)
    forest = Forest(
        torch.full((len(grown), nodes), -1, dtype=torch.int32),
        torch.zeros(len(grown), nodes),
        torch.zeros(len(grown), nodes, 2, dtype=torch.int32),
        torch.zeros(len(grown), nodes, y.shape[1]),
    )
    for index, tree in enumerate(grown):
        inside, count = tree.children_left >= 0, tree.node_count
        forest.features[index, :count] = torch.from_numpy(np.where(inside, tree.feature, -1).astype(np.int32))
        forest.thresholds[index, :count] = torch.from_numpy(tree.threshold.astype(np.float32))
        both = np.stack([tree.children_left, tree.children_right], axis=1)
        forest.children[index, :count] = torch.from_numpy(np.where(inside[:, None], both, 0).astype(np.int32))
        forest.values[index, :count] = torch.from_numpy(tree.value[:, :, 0].astype(np.float32))
    return forest, unseen
