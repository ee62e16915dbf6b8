"""Families by name: the built-in ones, and those that other packages register as `everymode.families`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from everymode.errors import SettingError, unknown_name
from everymode.families.autoregressive import Autoregressive
from everymode.families.base import Abilities, Family, Part
from everymode.families.consistency import Consistency
from everymode.families.diffusion import Diffusion
from everymode.families.drifting import Drifting
from everymode.families.energy import Energy
from everymode.families.flow_matching import FlowMatching
from everymode.families.gan import GAN
from everymode.families.gaussian import Gaussian
from everymode.families.gm_flow import GMFlow
from everymode.families.gmm import GMM
from everymode.families.mdn import MDN
from everymode.families.mean_flow import MeanFlow
from everymode.families.mip import MIP
from everymode.families.mse import MSE
from everymode.families.normalizing_flow import NormalizingFlow
from everymode.families.reflow import Reflow
from everymode.families.shortcut import Shortcut
from everymode.families.trees import Trees
from everymode.families.vae import VAE
from everymode.families.vae_gan import VAEGAN
from everymode.families.vq import VQ
from everymode.paths import PATHS

__all__ = [
    "GAN",
    "GMM",
    "MDN",
    "MIP",
    "MSE",
    "VAE",
    "VAEGAN",
    "VQ",
    "Abilities",
    "Autoregressive",
    "Consistency",
    "Diffusion",
    "Drifting",
    "Energy",
    "Family",
    "FlowMatching",
    "GMFlow",
    "Gaussian",
    "MeanFlow",
    "NormalizingFlow",
    "Part",
    "Reflow",
    "Shortcut",
    "Trees",
    "get_family",
    "names",
    "register",
]

_REGISTRY: dict[str, type[Family]] = {
    family.name: family
    for family in (
        MSE,
        MIP,
        Gaussian,
        GMM,
        MDN,
        NormalizingFlow,
        FlowMatching,
        Diffusion,
        MeanFlow,
        Shortcut,
        Consistency,
        Reflow,
        Drifting,
        GMFlow,
        Energy,
        Autoregressive,
        VAE,
        GAN,
        VAEGAN,
        VQ,
        Trees,
    )
}


def _registry() -> dict[str, type[Family]]:
    for entry in entry_points(group="everymode.families"):
        if entry.name not in _REGISTRY:
            _REGISTRY[entry.name] = entry.load()
    return _REGISTRY


def register(family: type[Family]) -> type[Family]:
    """Make a family known by its name; usable as a decorator."""
    _REGISTRY[family.name] = family
    return family


def names() -> list[str]:
    """Return the names of all families."""
    return list(_registry())


def get_family(family: str | Family, settings: Mapping[str, Any] | None = None) -> Family:
    """Return an unbuilt family from its name, with `settings`; a family object is returned as it is.

    Raises:
        SettingError: the name or a setting is unknown, or a setting is out of range.
    """
    if isinstance(family, Family):
        return family
    registry = _registry()
    if not isinstance(family, str) or family not in registry:
        raise SettingError(unknown_name("family", str(family), registry))
    kind, chosen = registry[family], dict(settings or {})
    for name in chosen:
        if name not in kind.setting_names():
            raise SettingError(unknown_name(f"setting of family {family!r}", name, kind.setting_names()))
    if isinstance(chosen.get("path"), Mapping):  # as `paths.path_settings` writes it
        described = dict(chosen["path"])
        path_name = described.pop("name")
        chosen["path"] = PATHS[path_name](**described) if described else path_name
    return kind(**chosen)
