"""Code books: the nearest code, the gradient past it, where the codes start, and what they can tell apart."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from everymode.families.codebook import CodeBook, k_means, nearest, perplexity, straight_through
from everymode.randomness import new_generator, normal, seeded


def points(n, size, seed=0):
    return normal((n, size), new_generator(seed), like=torch.zeros(()))


def clusters(seed=0):
    """Five clouds of 40 points each, ten apart and .1 wide, in random order; and their centres."""
    centres = 10.0 * torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1], [3, 3]])
    cloud = centres.repeat(40, 1) + 0.1 * points(200, 2, seed)
    return cloud[points(200, 1, seed + 1)[:, 0].argsort()], centres


def inertia(y, centres):
    return float((y - centres[nearest(y, centres)]).square().sum(1).mean())


def make(*sizes, **settings):
    with seeded(0):
        return CodeBook(*sizes, **settings)


def book_of(y, levels, codes):
    book = make(levels, codes, y.shape[1])
    with torch.no_grad():
        book.start(y, seed=0)
    return book


def test_the_nearest_code_is_the_nearest():
    y, codes = points(500, 3), points(40, 3, seed=1)
    by_hand = [min(range(40), key=lambda k, row=row: math.dist(row, codes[k].tolist())) for row in y.tolist()]
    assert nearest(y, codes).tolist() == by_hand


def test_the_nearest_code_far_from_zero():
    """Where |y|^2 - 2 y e + |e|^2 has no digits left."""
    codes = 1e4 + torch.tensor([[0.0], [0.01], [0.02]])
    assert nearest(codes + 0.004, codes).tolist() == [0, 1, 2]


def test_the_code_of_a_row_does_not_depend_on_the_rows_beside_it():
    y, codes = points(300, 8), points(64, 8, seed=1)
    alone = torch.cat([nearest(row[None], codes) for row in y])
    assert torch.equal(nearest(y, codes), alone)


def test_the_gradient_passes_a_code_as_if_it_were_not_there():
    z, codes = points(20, 3).requires_grad_(), points(6, 3, seed=1)
    quantised = codes[nearest(z, codes)]
    passed = straight_through(z, quantised)
    torch.testing.assert_close(passed, quantised)
    (passed.sin() * torch.arange(3.0)).sum().backward()
    torch.testing.assert_close(z.grad, quantised.cos() * torch.arange(3.0))


def test_what_the_loss_of_a_code_book_pulls_where():
    """d/de |sg(z) - e|^2 = 2 (e - z), and the commitment pulls z to e by its weight; both a mean over numbers."""
    z = points(1, 4).requires_grad_()
    book = make(1, 1, 4)
    book.loss(z, book.encode(z), 0.25).sum().backward()
    difference = (book.vectors[0] - z).detach()
    assert book.vectors.grad is not None
    torch.testing.assert_close(book.vectors.grad[0], 2 * difference / 4)
    torch.testing.assert_close(z.grad, -0.25 * 2 * difference / 4)


def test_levels_tell_what_the_levels_before_left():
    y = points(50, 3)
    book = book_of(y, 3, 8)
    codes = book.encode(y)
    left = y.clone()
    for level in range(3):
        assert torch.equal(codes[:, level], nearest(left, book.vectors[level].detach()))
        left = left - book.vectors[level].detach()[codes[:, level]]
    torch.testing.assert_close(y - book.decode(codes), left)


@pytest.mark.parametrize("seed", range(5))
def test_k_means_finds_clusters(seed):
    y, centres = clusters()
    found = k_means(y, 5, seed=seed)
    assert sorted(nearest(found, centres).tolist()) == [0, 1, 2, 3, 4]
    torch.testing.assert_close(found[nearest(centres, found)], centres, atol=0.1, rtol=0)


def test_k_means_centres_are_the_means_of_their_points():
    y = points(300, 2)
    centres = k_means(y, 7, seed=0, rounds=200)
    members = nearest(y, centres)
    for k in range(7):
        torch.testing.assert_close(y[members == k].mean(0), centres[k])


def test_k_means_follows_its_seed():
    y = points(20_000, 2)  # more than it looks at
    assert torch.equal(k_means(y, 8, seed=3), k_means(y, 8, seed=3))
    assert not torch.equal(k_means(y, 8, seed=3), k_means(y, 8, seed=4))


@pytest.mark.parametrize("y", [torch.zeros(30, 2), points(3, 2).repeat(10, 1), points(1, 2)])
def test_k_means_of_fewer_distinct_points_than_centres(y):
    centres = k_means(y, 16, seed=0)
    assert centres.shape == (16, 2)
    assert torch.isfinite(centres).all()
    torch.testing.assert_close(centres[nearest(y, centres)], y)


def test_more_codes_and_more_levels_tell_more():
    """One code is the mean; each more tells more; and 8 x 8 codes of two levels tell more than 8, less than 64."""
    y = points(2000, 2)
    errors = [inertia(y, k_means(y, k, seed=0)) for k in (1, 2, 4, 8, 16, 32, 64)]
    assert errors[0] == pytest.approx(float((y - y.mean(0)).square().sum(1).mean()))
    assert all(b < 0.75 * a for a, b in pairwise(errors))
    book = book_of(y, 2, 8)
    two = float((y - book.decode(book.encode(y)).detach()).square().sum(1).mean())
    assert errors[-1] < two < 0.3 * errors[3]


def test_perplexity():
    assert perplexity(torch.arange(8).repeat(5), 8) == pytest.approx(8)
    assert perplexity(torch.full((9, 2), 3), 8) == pytest.approx(1)
    assert perplexity(torch.tensor([0, 0, 0, 1]), 4) == pytest.approx(4 / 3**0.75)


def test_a_book_that_starts_at_the_data_has_all_its_codes_in_use():
    y = points(3000, 4)
    codes = book_of(y, 2, 32).encode(y)
    assert all(perplexity(codes[:, level], 32) > 0.7 * 32 for level in range(2))


def test_only_a_learned_book_has_parameters():
    assert [name for name, _ in make(2, 4, 3).named_parameters()] == ["vectors"]
    fixed = make(2, 4, 3, learned=False)
    assert not list(fixed.parameters())
    assert list(fixed.state_dict()) == ["vectors"]
