"""Policies by the names that the field knows them by: a family, its settings, a network and horizons.

    recipes.get("diffusion_policy").fit(demonstrations)
    recipes.get("flow_policy", family__steps=4, prediction_horizon=8)

A recipe is a point to start from, and nothing in it is trained otherwise than the family by itself. Where a paper does
what this library does not, its recipe says so.

References:
    Diffusion policy: visuomotor policy learning via action diffusion (Chi et al., 2023),
        https://arxiv.org/abs/2303.04137: `diffusion_policy`, and the horizons of `lstm_gmm` and `ibc`
    What matters in learning from offline human demonstrations for robot manipulation (Mandlekar et al., 2021),
        https://arxiv.org/abs/2108.03298: `lstm_gmm`
    Implicit behavioral cloning (Florence et al., 2021), https://arxiv.org/abs/2109.00137: `ibc`
    Behavior transformers: cloning k modes with one stone (Shafiullah et al., 2022), https://arxiv.org/abs/2206.11251:
        `bet`
    Behavior generation with latent actions (Lee et al., 2024), https://arxiv.org/abs/2403.03181: `vq_bet`
    Learning fine-grained bimanual manipulation with low-cost hardware (Zhao et al., 2023),
        https://arxiv.org/abs/2304.13705: `act`
    Much ado about noising (Pan et al., 2025), https://arxiv.org/abs/2512.01809: `mip`, and `mse` as its equal
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everymode.errors import SettingError, unknown_name
from everymode.families import get_family
from everymode.policies.policy import Policy

__all__ = ["Recipe", "get", "names", "recipe"]


@dataclass(frozen=True)
class Recipe:
    """What a policy is made of.

    Attributes:
        summary: one line.
        family: its name.
        settings: of the family.
        policy: parameters of `Policy`.
    """

    summary: str
    family: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)


def _one_action(observations: int, network: str | None = None) -> dict[str, Any]:
    """Return the parameters of a policy that looks again after every action."""
    return {
        "observation_horizon": observations,
        "prediction_horizon": 1,
        "execution_horizon": 1,
        "network": network,
    }


_RECIPES: dict[str, Recipe] = {
    "flow_policy": Recipe(
        "Flow matching in 10 Euler steps, on a residual MLP that answers in milliseconds.",
        "flow_matching",
        {"solver": "euler", "steps": 10},
    ),
    "diffusion_policy": Recipe(
        "Diffusion in 10 DDIM steps on a temporal U-Net; network='transformer' is its other network.",
        "diffusion",
        {"sampler": "ddim", "spacing": "uniform", "steps": 10},
        {"network": "unet"},
    ),
    "mse": Recipe("Regression of the next actions by squared error: it averages what demonstrators did.", "mse"),
    "mip": Recipe("Regression in two steps, which is said to be all that flow policies owe their success to.", "mip"),
    "lstm_gmm": Recipe(
        "BC-RNN-GMM: an LSTM over 10 observations and a mixture of 5 normals of the next action.",
        "mdn",
        {"components": 5, "covariance": "diagonal"},
        _one_action(10, "lstm"),
    ),
    "ibc": Recipe(
        "Implicit behavioural cloning: an energy of the next action, and a search for where it is low.",
        "energy",
        {"negatives": 64, "sampler": "derivative_free", "candidates": 128, "steps": 32},
        _one_action(2),
    ),
    "bet": Recipe(
        "Behavior Transformer: a class of the next action among 64 centres of k-means, and an offset from it.",
        "vq",
        {"codebook": "kmeans", "codes": 64, "focal": 2.0, "noise": False},
        _one_action(10, "action_transformer"),
    ),
    "vq_bet": Recipe(
        "VQ-BeT: two levels of 16 learned codes of the next 5 actions, drawn by a transformer.",
        "vq",
        {"codebook": "learned", "codes": 16, "levels": 2, "focal": 2.0, "noise": False},
        {
            "observation_horizon": 5,
            "prediction_horizon": 5,
            "execution_horizon": 5,
            "network": "action_transformer",
        },
    ),
    "act": Recipe(
        "ACT: a variational autoencoder of chunks, on a transformer; z is drawn, where ACT takes its mean.",
        "vae",
        {"latent": 32, "noise": False},
        {"observation_horizon": 1, "network": "action_transformer"},
    ),
    "gm_flow": Recipe("A flow whose velocity is a mixture, in few steps.", "gm_flow"),
    "mean_flow": Recipe("The average velocity of a flow, in one step.", "mean_flow"),
    "shortcut": Recipe("Jumps of every length that agree with two of half the length, in one step.", "shortcut"),
    "consistency": Recipe("Jumps to the data that agree along the flow, in one step.", "consistency"),
    "drifting": Recipe("A generator whose draws drift to the data while it is trained, in one step.", "drifting"),
    "reflow": Recipe(
        "A flow trained on its own pairs of noise and actions until it is straight, in one step.", "reflow"
    ),
}


def names() -> list[str]:
    """Return the names of all recipes."""
    return list(_RECIPES)


def recipe(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        SettingError: there is none of this name.
    """
    if name not in _RECIPES:
        raise SettingError(unknown_name("recipe", name, _RECIPES))
    return _RECIPES[name]


def get(name: str, **settings: Any) -> Policy:
    """Return the unfitted policy of a recipe.

    Args:
        name: see `names()`.
        **settings: parameters of `Policy`, in the place of the recipe's; those of the family as `family__steps=4`.

    Raises:
        SettingError: the recipe, a parameter or a setting is unknown, or a setting is out of range.
    """
    made = recipe(name)
    own = {key.removeprefix("family__"): value for key, value in settings.items() if key.startswith("family__")}
    others = {key: value for key, value in settings.items() if not key.startswith("family__")}
    known = [key for key in Policy().get_params(deep=False) if key != "family"]
    for key in others:
        if key not in known:
            raise SettingError(unknown_name(f"parameter of recipe {name!r}", key, known))
    return Policy(get_family(made.family, {**made.settings, **own}), **{**made.policy, **others})
