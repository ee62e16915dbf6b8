"""Code books: rows of numbers told by the nearest of a few code vectors, and what remains by further levels of codes.

With code vectors e_k, a row z is told by c = argmin_k |z - e_k| and stands as e_c. A residual code book tells z - e_c
by a second level, and so on: L levels of K codes tell K^L places apart by L numbers.

References:
    Neural discrete representation learning (van den Oord, Vinyals and Kavukcuoglu, 2017),
        https://arxiv.org/abs/1711.00937: the code book, the straight-through gradient
    Autoregressive image generation using residual quantization (Lee et al., 2022), https://arxiv.org/abs/2203.01941
    k-means++: the advantages of careful seeding (Arthur and Vassilvitskii, 2007)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from everymode.randomness import categorical, mix, new_generator, uniform

__all__ = ["CodeBook", "k_means", "nearest", "perplexity", "straight_through"]

_POINTS = 16_384  # as many rows say where up to some hundred centres belong


def nearest(points: Tensor, codes: Tensor) -> Tensor:
    """Return the index (n,) of the code vector (k, size) nearest to each of points (n, size)."""
    # distances by differences, not by a product of matrices: a row's code may not depend on the rows beside it
    return torch.cdist(points.float(), codes.float(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)


def straight_through(values: Tensor, quantised: Tensor) -> Tensor:
    """Return `quantised`, whose gradient goes to `values` as if they had not been changed."""
    return values + (quantised - values).detach()


def perplexity(codes: Tensor, size: int) -> float:
    """Return exp of the entropy of the shares of codes 0 .. size - 1: how many of them are in use."""
    shares = torch.bincount(codes.flatten(), minlength=size).double() / codes.numel()
    return float(torch.special.entr(shares).sum().exp())


def k_means(points: Tensor, k: int, *, seed: int, rounds: int = 25) -> Tensor:
    """Return k centres (k, size) of points (n, size): k-means++, then Lloyd's rounds.

    Where there are fewer distinct points than centres, some centres are alike. At most 16,384 points are looked at.
    """
    generator = new_generator(seed, points.device)
    if len(points) > _POINTS:
        points = points[uniform((len(points),), generator, like=points).argsort()[:_POINTS]]
    points = points.double()
    chosen = [points[int(uniform((1,), generator, like=points) * len(points))]]
    distances = points.new_full((len(points),), torch.inf)
    for _ in range(k - 1):
        distances = torch.minimum(distances, (points - chosen[-1]).square().sum(1))
        chosen.append(points[categorical(distances.clamp_min(1e-300).log()[None], generator)[0]])
    centres = torch.stack(chosen)
    for _ in range(rounds):
        members = nn.functional.one_hot(nearest(points, centres), k).to(points).T  # (k, n)
        counts = members.sum(1, keepdim=True)
        moved = torch.where(counts > 0, members @ points / counts.clamp_min(1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres.float()


class CodeBook(nn.Module):
    """Levels of code vectors; each level tells what those before it left.

    Args:
        levels: how many.
        codes: code vectors a level.
        size: numbers a code vector.
        learned: whether they are parameters; else they stay where `start` puts them.
    """

    vectors: Tensor

    def __init__(self, levels: int, codes: int, size: int, *, learned: bool = True) -> None:
        super().__init__()
        vectors = torch.randn(levels, codes, size)
        if learned:
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors)

    def start(self, points: Tensor, *, seed: int) -> None:
        """Put the code vectors at the k-means centres of points (n, size), level by level."""
        left = points.float()
        for level, vectors in enumerate(self.vectors):
            centres = k_means(left, len(vectors), seed=mix(seed, level))
            vectors.data.copy_(centres)
            left = left - centres[nearest(left, centres)]

    def encode(self, z: Tensor) -> Tensor:
        """Return the codes (batch, levels) of z (batch, size)."""
        left, codes = z.detach().float(), []
        for vectors in self.vectors.detach():
            codes.append(nearest(left, vectors))
            left = left - vectors[codes[-1]]
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the sum of the code vectors, (batch, size), of codes (batch, levels)."""
        return sum((v[c] for v, c in zip(self.vectors, codes.unbind(1), strict=True)), start=self.vectors.new_zeros(()))

    def loss(self, z: Tensor, codes: Tensor, commitment: float) -> Tensor:
        """Return the squared distances that draw the code vectors to z and z to them, (batch,), a mean over numbers.

        Summed over levels: |sg(left) - e|^2 + commitment |left - sg(e)|^2, sg stopping the gradient.
        """
        total, left = z.new_zeros(len(z)), z
        for vectors, code in zip(self.vectors, codes.unbind(1), strict=True):
            vector = vectors[code]
            total = total + (left.detach() - vector).square().mean(1)
            total = total + commitment * (left - vector.detach()).square().mean(1)
            left = left - vector.detach()
        return total
