"""eSSVI: three numbers an expiry, free of arbitrage by construction.

Each slice is an SSVI slice of its own theta, rho and psi (`volsurf.svi._ssvi_quotes`). Hendriks and Martini (2019), *The extended
SSVI volatility surface*, Journal of Computational Finance 22(5), proposition 3.5: two slices do not cross if

    theta_2 >= theta_1,   psi_2 (1 + rho_2) >= psi_1 (1 + rho_1),   psi_2 (1 - rho_2) >= psi_1 (1 - rho_1)

and psi_2/theta_2 <= psi_1/theta_1. (Pasquazzi's correction, 2023, is about pairs that break the last condition; none is used.)
Mingone (2022), *No arbitrage global parametrization for the eSSVI volatility surface*, Quantitative Finance 22(12), turns that
and the butterfly condition psi <= cap(theta, rho) into independent intervals:

    p_i = max((1 + rho_(i-1))/(1 + rho_i), (1 - rho_(i-1))/(1 - rho_i))
    theta_1 = a_1,  theta_i = theta_(i-1) p_i + a_i                                  a_i >= 0
    psi_i = low_i + c_i (high_i - low_i)                                             0 <= c_i <= 1
    low_1 = 0,  low_i = psi_(i-1) p_i
    high_i = min(psi_(i-1) theta_i/theta_(i-1),  min over j >= i of cap_j/(p_(i+1) ... p_j))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf._arguments import as_reals
from volsurf.errors import InputError
from volsurf.svi._ssvi_quotes import Floats, Quotes, butterfly_cap, positive_increasing, raw_slices
from volsurf.svi._surface_fit import MARGIN, RHO_MAX, SurfaceFit, minimise, publish
from volsurf.svi.params import RawSVI

if TYPE_CHECKING:
    from typing import Self

    from volsurf.svi.fit import Ragged

SHARE_MIN = 1e-3
"""Smallest c_1: at 0 the surface would have no wings at all."""
_INCREMENT_MAX = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class ESSVI:
    """Parameters of an eSSVI surface, one entry an expiry, nearest first; arrays of shape (n,).

    Any numbers of the ranges below are accepted, and `check_butterfly` and `check_calendar` of `to_raw()` judge them.
    `from_intervals` and `fit_essvi` make surfaces that are free of arbitrage.

    Raises:
        InputError: theta not positive and increasing, |rho| >= 1, psi not positive, or shapes that differ.
    """

    theta: Floats
    """Total variance at the money, increasing."""
    rho: Floats
    psi: Floats
    """Sum of the slopes of the two wings, theta phi(theta)."""

    if TYPE_CHECKING:
        # The fields are arrays; given may be anything that becomes one.
        def __init__(self, theta: npt.ArrayLike, rho: npt.ArrayLike, psi: npt.ArrayLike) -> None: ...

    def __post_init__(self) -> None:
        theta = np.atleast_1d(as_reals("theta", self.theta)).copy()
        positive_increasing("theta", theta)
        object.__setattr__(self, "theta", theta)
        for name in ("rho", "psi"):
            value = as_reals(name, getattr(self, name))
            if value.shape not in ((), theta.shape):
                raise InputError(f"{name} has shape {value.shape}, theta has shape {theta.shape}")
            object.__setattr__(self, name, np.broadcast_to(value, theta.shape).copy())
        if not (np.abs(self.rho) < 1).all():
            raise InputError(f"rho must lie between -1 and 1, was {self.rho.tolist()}")
        if not (np.isfinite(self.psi) & (self.psi > 0)).all():
            raise InputError(f"psi must be positive and finite, was {self.psi.tolist()}")
        for array in (self.theta, self.rho, self.psi):
            array.flags.writeable = False

    def __len__(self) -> int:
        return int(self.theta.size)

    @classmethod
    def from_intervals(cls, rho: npt.ArrayLike, increment: npt.ArrayLike, share: npt.ArrayLike) -> Self:
        """The surface at a point of Mingone's box: every one is free of butterfly and calendar arbitrage.

        It keeps a relative room of 1e-9 from the boundaries, so that its raw slices are proved so too after rounding.

        Args:
            rho: of each expiry, |rho| <= 0.999.
            increment: a_i, the first positive, the others not negative.
            share: c_i in [0, 1], the first positive.

        Raises:
            InputError: a number outside its interval, or shapes that differ.
        """
        rho_, increment_, share_ = (
            np.atleast_1d(as_reals(name, value))
            for name, value in (("rho", rho), ("increment", increment), ("share", share))
        )
        if not rho_.shape == increment_.shape == share_.shape or rho_.ndim != 1 or not rho_.size:
            raise InputError(
                f"rho, increment and share need one number for each expiry, were {rho_.shape}, {increment_.shape} and "
                f"{share_.shape}"
            )
        if not (np.abs(rho_) <= RHO_MAX).all():
            raise InputError(f"rho must lie in [-{RHO_MAX}, {RHO_MAX}], was {rho_.tolist()}")
        if not (np.isfinite(increment_) & (increment_ >= 0)).all() or increment_[0] <= 0:
            raise InputError(
                f"increments must be finite and not negative, the first positive, were {increment_.tolist()}"
            )
        if not ((share_ >= 0) & (share_ <= 1)).all() or share_[0] <= 0:
            raise InputError(f"shares must lie in [0, 1], the first above 0, were {share_.tolist()}")
        theta, rho_, psi = (value[0] for value in slices_of(rho_[None], increment_[None], share_[None]))
        return cls(*_retreated(theta, rho_, psi, MARGIN))

    def retreated(self, margin: float) -> Self:
        """A surface a relative `margin` further inside the no-arbitrage conditions than this one."""
        return type(self)(*_retreated(self.theta, self.rho, self.psi, margin))

    def to_raw(self) -> RawSVI:
        """The slices as raw SVI."""
        return raw_slices(self.theta, self.rho, self.psi)

    def total_variance(self, k: npt.ArrayLike) -> Floats:
        """Total variance w at log-moneyness `k`, shapes as `RawSVI.total_variance`."""
        return self.to_raw().total_variance(k)


def _retreated(theta: Floats, rho: Floats, psi: Floats, margin: float) -> tuple[Floats, Floats, Floats]:
    """theta rises from expiry to expiry by twice what psi does, and psi ends below where it was: each condition gains room."""
    ramp = margin * np.arange(theta.size)
    return theta * (1.0 + 2.0 * ramp), rho, psi * (1.0 - margin * (theta.size + 1.0) + ramp)


def slices_of(rho: Floats, increment: Floats, share: Floats) -> tuple[Floats, Floats, Floats]:
    """theta, rho and psi of points of the box; arrays of shape (batch, n)."""
    n = rho.shape[1]
    stretch = np.ones_like(rho)
    stretch[:, 1:] = np.maximum((1.0 + rho[:, :-1]) / (1.0 + rho[:, 1:]), (1.0 - rho[:, :-1]) / (1.0 - rho[:, 1:]))
    theta, psi = np.empty_like(rho), np.empty_like(rho)
    theta[:, 0] = increment[:, 0]
    for i in range(1, n):
        theta[:, i] = theta[:, i - 1] * stretch[:, i] + increment[:, i]
    cap = butterfly_cap(theta, rho)
    for i in range(n - 2, -1, -1):
        cap[:, i] = np.minimum(cap[:, i], cap[:, i + 1] / stretch[:, i + 1])
    psi[:, 0] = share[:, 0] * cap[:, 0]
    for i in range(1, n):
        low = psi[:, i - 1] * stretch[:, i]
        high = np.minimum(psi[:, i - 1] * theta[:, i] / theta[:, i - 1], cap[:, i])
        psi[:, i] = low + share[:, i] * (high - low)
    return theta, rho, psi


def box_of(theta: Floats, rho: Floats, psi: Floats) -> tuple[Floats, Floats, Floats]:
    """The point of the box nearest to slices, walking out from the first: rho, increment and share, shape (n,)."""
    rho = np.clip(rho, -0.99 * RHO_MAX, 0.99 * RHO_MAX)
    increment, share = theta.copy(), np.full(theta.size, 0.5)
    for i in range(theta.size):
        if i:
            stretch = max((1.0 + rho[i - 1]) / (1.0 + rho[i]), (1.0 - rho[i - 1]) / (1.0 - rho[i]))
            level = slices_of(rho[None, :i], increment[None, :i], share[None, :i])[0][0, -1]
            increment[i] = max(theta[i] - level * stretch, 1e-4 * theta[i])
    for i in range(theta.size):
        # psi_i is linear in its own share, given those before.
        ends = [
            slices_of(rho[None], increment[None], np.where(np.arange(theta.size) == i, c, share)[None])
            for c in (0.0, 1.0)
        ]
        low, high = (end[2][0, i] for end in ends)
        share[i] = np.clip((psi[i] - low) / max(high - low, 1e-300), 0.0, 1.0)
    return rho, increment, share


def fit_essvi(
    k: Ragged,
    vol: Ragged,
    error: Ragged,
    years: npt.ArrayLike,
    *,
    side: Ragged | None = None,
    weight: Ragged | None = None,
    start: ESSVI | None = None,
) -> SurfaceFit[ESSVI]:
    """An eSSVI surface fitted to the quotes of all its expiries at once, free of arbitrage and proved so.

    Arguments as `volsurf.fit_svi`: quotes as a list with one array an expiry, a 2-D array, or a 1-D array for one expiry. Those
    that cannot be used are left out. Expiries may have one quote or none: they are held by their neighbours.

    Args:
        years: time to expiry of each, increasing.
        start: a surface of the same expiries to start from, for instance the last one; without it the best SSVI surface.

    Raises:
        InputError: the arrays do not fit together, years do not increase, or no quote can be used.
    """
    from volsurf.svi.ssvi import fit_ssvi_quotes

    quotes = Quotes.of(k, vol, error, years, side, weight)
    n = quotes.years.size
    if start is None:
        begin = fit_ssvi_quotes(quotes, None)
        first = begin.theta, begin.rho, begin.psi
    else:
        if len(start) != n:
            raise InputError(f"start has {len(start)} expiries, the quotes have {n}")
        first = start.theta, start.rho, start.psi
    scale = quotes.levels()
    low = np.concatenate((np.full(n, -RHO_MAX), np.full(n, 0.0), np.full(n, 0.0)))
    low[n], low[2 * n] = 1e-3, SHARE_MIN
    high = np.concatenate((np.full(n, RHO_MAX), np.full(n, _INCREMENT_MAX), np.full(n, 1.0)))

    def to_slices(x: Floats) -> tuple[Floats, Floats, Floats]:
        return slices_of(x[:, :n], x[:, n : 2 * n] * scale, x[:, 2 * n :])

    rho, increment, share = box_of(*first)
    solution = minimise(quotes, to_slices, [np.concatenate((rho, increment / scale, share))], low, high)
    params = ESSVI.from_intervals(solution.x[:n], solution.x[n : 2 * n] * scale, solution.x[2 * n :])
    return publish(quotes, params, solution, np.asarray(solution.at_bound.reshape(3, n).any(axis=0)))
