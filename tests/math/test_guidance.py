"""Classifier-free guidance: nothing at weight 1, the right tilt above it, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import everymode as em
from everymode.errors import SettingError
from everymode.families import get_family
from everymode.guidance import classifier_free, hide
from everymode.randomness import new_generator
from everymode.spaces import LabelSpace, VectorSpace
from everymode.training import TrainingSettings, train

FLOWS = ("flow_matching", "diffusion")


def test_the_formula_in_one_call():
    calls = []

    def predict(y, t, embedding):
        calls.append(len(y))
        return y * embedding[:, :1] + t

    generator = new_generator(0)
    y, embedding, nothing = (torch.randn(shape, generator=generator) for shape in ((5, 2), (5, 3), (3,)))
    known, unknown = predict(y, 0.3, embedding), predict(y, 0.3, nothing.expand(5, 3))
    calls.clear()
    for weight in (0.0, 1.0, 2.5):
        guided = classifier_free(predict, embedding, nothing, weight)
        torch.testing.assert_close(guided(y, 0.3), unknown + weight * (known - unknown))
    assert calls == [10, 10, 10]


def test_so_many_rows_are_hidden():
    embedding, nothing = torch.randn(10_000, 4, generator=new_generator(1)), torch.zeros(4)
    hidden = hide(embedding, nothing, torch.rand(10_000, generator=new_generator(0)), 0.1)
    share = float((hidden == 0).all(1).float().mean())
    assert 0.09 < share < 0.11
    kept = (hidden != 0).all(1)
    assert torch.equal(hidden[kept], embedding[kept])


@pytest.fixture(scope="module", params=FLOWS)
def trained(request):
    """Two labels whose answers overlap: N(-.5, 1) and N(.5, 1)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    y = (labels - 0.5)[:, None] + rng.normal(size=(4000, 1))
    y_space, x_space = VectorSpace.fit(y), LabelSpace.fit(labels)
    family = get_family(request.param, {"drop": 0.2, "time_sampling": "edm"})
    family = family.build(y_space, x_space, width=32, depth=2)
    settings = TrainingSettings(steps=600, learning_rate=4e-3)
    list(train(family, y_space.encode(y), x_space.encode(labels), settings=settings))
    return family.eval(), y_space, x_space


def answers(trained, label, guidance):
    family, y_space, x_space = trained
    family.set_params(guidance=guidance)
    with torch.inference_mode():
        drawn = family.sample(x_space.encode(np.full(1, label)), 4000, generator=new_generator(1))
    return y_space.decode(drawn)[:, 0]


def test_guidance_leans_on_x_and_covers_less(trained):
    """Without it draws are the label's; at 0 they forget it; above 1 they leave the other label's side."""
    plain, none, strong = (answers(trained, 1, weight) for weight in (1.0, 0.0, 3.0))
    assert plain.mean() == pytest.approx(0.5, abs=0.12)
    assert none.mean() == pytest.approx(0.0, abs=0.12)
    assert none.std() > plain.std()
    assert strong.mean() > 1.0
    assert (strong < 0).mean() < 0.5 * (plain < 0).mean()
    assert answers(trained, 0, 3.0).mean() < -1.0


def test_it_costs_twice(trained):
    family, *_ = trained
    family.set_params(guidance=1.0)
    once = family.nfe
    family.set_params(guidance=2.0)
    assert family.nfe == 2 * once


@pytest.mark.parametrize("name", FLOWS)
def test_a_model_that_always_saw_x_is_not_guided(name):
    with pytest.raises(SettingError, match=r"guidance=2.*drop=0\.1"):
        get_family(name, {"guidance": 2.0})
    one = VectorSpace.fit(np.arange(4.0)[:, None])
    family = get_family(name).build(one, one, width=8, depth=1)
    with pytest.raises(SettingError, match="drop"):
        family.set_params(guidance=2.0)
    with pytest.raises(SettingError, match="drop"):
        get_family(name, {"drop": 1.5})


@pytest.mark.parametrize("name", FLOWS)
def test_it_is_saved_and_read(name, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 1)), rng.normal(size=(100, 1))
    family = get_family(name, {"drop": 0.1, "guidance": 1.5})
    model = em.OneToManyRegressor(family, width=8, depth=1, steps=20, random_state=0).fit(x, y)
    read = em.load(model.save(tmp_path / "model.safetensors"))
    np.testing.assert_array_equal(read.sample(x[:5], 3, random_state=0), model.sample(x[:5], 3, random_state=0))
