"""A heteroscedastic normal: the mean and the covariance of y both depend on x.

    p(y | x) = N(y; m(x), C(x)),

fitted by the likelihood: the mixture density network (`families.mdn`) with one component, which has the formulas and
the limits on full covariances.

References:
    Estimating the mean and variance of the target probability distribution (Nix and Weigend, 1994),
        https://doi.org/10.1109/ICNN.1994.374138
    Using neural networks to model conditional multivariate densities (Williams, 1996),
        https://doi.org/10.1162/neco.1996.8.4.843

Fails: whenever there are several answers; it then covers them all, and what lies between them.
"""

from __future__ import annotations

from typing import ClassVar

from everymode.families.base import Abilities
from everymode.families.mdn import MDN

__all__ = ["Gaussian"]


class Gaussian(MDN):
    """One normal a row of x.

    Args:
        covariance: 'full', 'diagonal', or 'auto': full for vectors of up to 16 values. 'full' is refused above 64.
        least_scale: floor of the conditional standard deviations, in those of y.

    Raises:
        SettingError: as `MDN`.
    """

    name: ClassVar[str] = "gaussian"
    abilities: ClassVar[Abilities] = Abilities(modes=False, density=True, own_network=False, temperature=True)

    def __init__(self, *, covariance: str = "auto", least_scale: float = 1e-3) -> None:
        super().__init__(components=1, covariance=covariance, least_scale=least_scale)
