"""Every method draws what the model is a law of, for flow and diffusion alike, and costs what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

import everymode as em
from everymode.errors import SettingError
from everymode.families import get_family
from everymode.randomness import new_generator
from everymode.solvers import SAMPLERS, SOLVERS, Sampler, Tableau, get_method
from everymode.spaces import VectorSpace
from everymode.training import TrainingSettings, train

METHODS = sorted({*SOLVERS, *SAMPLERS})
SETTING = {"flow_matching": "solver", "diffusion": "sampler"}


@pytest.fixture(scope="module", params=SETTING)
def trained(request):
    """A family that knows two answers of unequal weight."""
    rng = np.random.default_rng(0)
    y = np.where(rng.random((3000, 1)) < 0.3, -1.0, 1.0) + 0.2 * rng.normal(size=(3000, 1))
    space, nothing = VectorSpace.fit(y), VectorSpace((0,), (), ())
    family = get_family(request.param).build(space, nothing, width=32, depth=2)
    x = torch.zeros(len(y), 0)
    list(train(family, space.encode(y), x, settings=TrainingSettings(steps=800, learning_rate=4e-3)))
    return family.eval(), space, y[:, 0]


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_draw_the_same_law(trained, method):
    family, space, y = trained
    setting, calls = SETTING[family.name], []
    hook = family.network.register_forward_hook(lambda *_: calls.append(1))
    try:
        family.set_params(**{setting: method, "steps": 200 if method in ("ddpm", "ddim", "euler") else 40})
        with torch.inference_mode():
            drawn = space.decode(family.sample(torch.zeros(4000, 0), generator=new_generator(1)))[:, 0]
    finally:
        hook.remove()
    assert len(calls) == family.nfe
    rng = np.random.default_rng(1)
    assert wasserstein_distance(drawn, y) < 0.08  # .6 of the mass at 0 would be .9, the wrong weights .4
    assert wasserstein_distance(y[rng.permutation(len(y))[:1000]], y) < 0.08


def test_a_name_of_both_kinds_is_the_one_of_the_setting():
    assert isinstance(get_method("heun", prefer="solver"), Tableau)
    assert isinstance(get_method("heun", prefer="sampler"), Sampler)
    with pytest.raises(SettingError, match="solver='rk5'"):
        em.FlowMatching(solver="rk5")
    with pytest.raises(SettingError, match="sampler='rk5'"):
        em.Diffusion(sampler="rk5")
