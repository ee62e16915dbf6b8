"""Which draws belong to one answer: clusters with a valley between any two, which other draws confirm.

A mode is a hill of the density, whatever its shape, and two hills are two answers if a valley parts them. Half of the
draws propose: each draw's density is told by the distance to its k-th neighbour, a minimum spanning tree over these
distances joins the draws from the densest on, and where two clusters meet, between them lies the highest pass from one
to the other (single linkage on mutual reachability distances, as in HDBSCAN). The other half decide: two balls of one
size, one at the pass and one on the lower hill, hold as many draws if there is no valley. If the ball at the pass
holds much fewer, more so than chance explains, the clusters stay apart for good, else they are one. Balls at the
lower summit see wide valleys; those next to the pass see gaps between answers that are curves or surfaces, such as two
rings.

The half that proposes has seen gaps that are chance. That it cannot decide keeps them from becoming answers; that
halves are drawn several times, and the number of answers that most of them find is told, keeps out what is left. How
often an answer is found is how sure it is.

References:
    Density-based clustering based on hierarchical density estimates (Campello, Moulavi and Sander, 2013),
    https://doi.org/10.1007/978-3-642-37456-2_14; Persistence-based clustering in Riemannian manifolds (Chazal, Guibas,
    Oudot and Skraba, 2013), https://doi.org/10.1145/2535927: hills that stay apart by their prominence
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial import KDTree
from scipy.stats import binom

__all__ = ["basins"]

_NEIGHBOURS = 8  # the k-th tells the density
_LINKS = 2 * _NEIGHBOURS  # of each draw in the graph
_HEIGHT = 0.65  # of a pass over the lower hill, from which on there is no valley
_SURE = 1e-3
_RISE = 1.3  # distance at the pass over that at the lower summit, from which on it is worth asking
_RADII = (0.25, 0.5)  # of the balls, in distances from the pass to the lower summit
_CLIMBS = 5
_HALVINGS = 5
_MOST_VALUES = 6  # more are projected on as many directions
_FEW = 8  # distinct draws that are an answer each


def basins(
    points: np.ndarray, *, least: float = 0.005, halvings: int = _HALVINGS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster of each draw of one row, the largest first, and how sure each cluster is.

    Draws that are equal count once while valleys are looked for: trees and vocabularies repeat what they have seen.
    Of more than 6 values a draw, valleys are looked for along the 6 principal directions: balls in many hold nothing.

    Args:
        points: draws (n, size), in comparable units.
        least: share of the draws that an answer needs; what has less goes to the nearest answer.
        halvings: how often the draws are halved.
        seed: of the halves.

    Returns:
        clusters (n,), 0 for the largest; and for each cluster the share of the halvings that find it, (k,).
    """
    distinct, copies = np.unique(points, axis=0, return_inverse=True)
    if len(distinct) <= _FEW:
        found = [_without_rare(points, copies, least)]
    else:
        places = _projected(distinct)
        halves = np.random.default_rng(seed).permuted(np.tile(np.arange(len(distinct)), (halvings, 1)), axis=1)
        found = [_without_rare(points, _parted(places, order, least)[copies], least) for order in halves]
    counts = np.array([labels.max() + 1 for labels in found])
    votes = np.bincount(counts)
    chosen = found[int(np.flatnonzero(counts == votes.argmax())[0])]
    chosen = _ranked(chosen)
    sure = np.mean([_same(chosen, other) for other in found], axis=0)
    return chosen, sure


def _projected(points: np.ndarray) -> np.ndarray:
    if points.shape[1] <= _MOST_VALUES:
        return points
    away = points - points.mean(axis=0)
    return away @ np.linalg.svd(away, full_matrices=False)[2][:_MOST_VALUES].T


def _parted(points: np.ndarray, order: np.ndarray, least: float) -> np.ndarray:
    """Return the clusters of points (n, d) that the first half of `order` proposes and the other half confirms."""
    half = (len(order) + 1) // 2
    shown = points[order[:half]]
    tree, fresh = KDTree(shown), KDTree(points[order[half:]])
    first, second, reach, radii, near = _spanning_tree(shown, tree)
    enough = max(4, int(least * half / 2))
    parent, size, summit = list(range(half)), [1] * half, list(range(half))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for one, other, met in zip(first.tolist(), second.tolist(), reach.tolist(), strict=True):
        high, low = root(one), root(other)
        edge = (one, other)
        if radii[summit[high]] > radii[summit[low]]:
            high, low, edge = low, high, (other, one)
        if min(size[high], size[low]) >= enough and met > _RISE * radii[summit[low]]:
            top = shown[near[summit[low]]].mean(axis=0)
            if _valley(fresh, tree, shown[edge[0]], shown[edge[1]], top):
                continue
        parent[low] = high
        size[high] += size[low]
    clusters = np.array([root(one) for one in range(half)])
    return clusters[tree.query(points)[1]]


def _spanning_tree(
    points: np.ndarray, tree: KDTree
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return edges and their lengths, the shortest first; the distance to the k-th neighbour, and k neighbours."""
    n = len(points)
    k, links = min(_NEIGHBOURS, n - 1), min(_LINKS, n - 1)
    found: Any = tree.query(points, k=links + 1)
    distances, near = found
    radii = distances[:, k]
    start, end = np.repeat(np.arange(n), links), near[:, 1:].ravel()
    lengths = np.maximum(np.maximum(radii[start], radii[end]), distances[:, 1:].ravel())
    tiny = 1e-12 * max(float(lengths.max()), 1e-300)  # an edge of no length would be no edge
    spanning = minimum_spanning_tree(coo_array((lengths + tiny, (start, end)), shape=(n, n)).tocsr()).tocoo()
    first, second, reach = list(spanning.row), list(spanning.col), list(spanning.data)
    many, parts = connected_components(spanning, directed=False)
    while many > 1:  # the smallest part is joined to what is nearest to it
        sizes = np.bincount(parts)
        part = int(np.where(sizes > 0, sizes, n + 1).argmin())
        inside, outside = np.flatnonzero(parts == part), np.flatnonzero(parts != part)
        found = KDTree(points[outside]).query(points[inside])
        away, nearest = found
        one = int(np.argmin(away))
        pair = int(inside[one]), int(outside[nearest[one]])
        first.append(pair[0])
        second.append(pair[1])
        reach.append(max(float(away[one]), *radii[list(pair)]))
        parts[inside] = parts[pair[1]]
        many -= 1
    order = np.argsort(reach, kind="stable")
    return np.array(first)[order], np.array(second)[order], np.array(reach)[order], radii, near[:, :k]


def _valley(fresh: KDTree, shown: KDTree, high: np.ndarray, low: np.ndarray, top: np.ndarray) -> bool:
    """Return whether fresh draws avoid the pass between two clusters, which meet at points `high` and `low`.

    Args:
        fresh: draws that have proposed nothing.
        shown: those that have.
        high: where the cluster with the higher summit ends, (d,).
        low: where the other ends.
        top: its summit.
    """
    saddle, wide = (high + low) / 2, float(np.linalg.norm(high - low))
    beside = low
    for _ in range(_CLIMBS):  # uphill on its own side
        moved = shown.data[shown.query_ball_point(beside, wide)].mean(axis=0)
        if np.linalg.norm(moved - saddle) < wide / 2:
            break
        beside = moved
    far = float(np.linalg.norm(top - saddle))
    radii = [part * far for part in _RADII] + [wide / 2, wide]
    hills = np.stack([top, top, beside, beside])
    on_hill = fresh.query_ball_point(hills, radii, return_length=True)
    on_pass = fresh.query_ball_point(np.broadcast_to(saddle, hills.shape), radii, return_length=True)
    low_enough = on_pass + 0.5 < _HEIGHT * (on_hill + 0.5)
    return bool((low_enough & (binom.cdf(on_pass, on_hill + on_pass, 0.5) < _SURE)).any())


def _without_rare(points: np.ndarray, labels: np.ndarray, least: float) -> np.ndarray:
    """Return labels 0, 1, ... where the draws of clusters that are too small have gone to the nearest other."""
    counts = np.bincount(labels)
    kept = counts >= least * len(labels)
    if not kept.any():
        kept[counts.argmax()] = True
    stays = kept[labels]
    if not stays.all():
        nearest = KDTree(points[stays]).query(points[~stays])[1]
        labels = labels.copy()
        labels[~stays] = labels[stays][nearest]
    return np.unique(labels, return_inverse=True)[1]


def _ranked(labels: np.ndarray) -> np.ndarray:
    """Return the labels renamed, 0 for the largest cluster."""
    rank = np.argsort(np.argsort(-np.bincount(labels), kind="stable"), kind="stable")
    return rank[labels]


def _same(chosen: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return for each cluster of `chosen` whether one of `other` holds most of the same draws (Jaccard above .5)."""
    both = np.zeros((chosen.max() + 1, other.max() + 1))
    np.add.at(both, (chosen, other), 1)
    either = both.sum(axis=1, keepdims=True) + both.sum(axis=0, keepdims=True) - both
    return (both / either).max(axis=1) > 0.5
