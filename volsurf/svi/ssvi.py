"""SSVI: one number an expiry and three for the surface, free of arbitrage by construction.

    w(k, theta) = theta/2 (1 + rho phi k + sqrt((phi k + rho)^2 + 1 - rho^2))
    phi(theta) = eta/(theta^gamma (1 + theta)^(1 - gamma))

Gatheral and Jacquier (2014), *Arbitrage-free SVI volatility surfaces*, Quantitative Finance 14(1). Calendar (theorem 4.1): theta
increases with expiry, and 0 <= d(theta phi)/d theta <= phi (1 + sqrt(1 - rho^2))/rho^2, which this phi has for every gamma in
[0, 1], since d(theta phi)/d theta = phi (1 - gamma)/(1 + theta). Butterfly (theorem 4.2): theta phi (1 + |rho|) < 4 and
theta phi^2 (1 + |rho|) <= 4; eta is a share h <= 1 of the largest one for which that holds at every expiry. For gamma <= 1/2 it
holds at every theta if eta <= 2/sqrt(1 + |rho|); steeper laws, which short expiries ask for, are bounded by the nearest expiry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf._arguments import as_reals
from volsurf.errors import InputError
from volsurf.svi._ssvi_quotes import Floats, Quotes, butterfly_cap, positive_increasing, raw_slices
from volsurf.svi._surface_fit import MARGIN, RHO_MAX, Solution, SurfaceFit, minimise, publish
from volsurf.svi.params import RawSVI

if TYPE_CHECKING:
    from typing import Self

    from volsurf.svi.fit import Ragged

GAMMA_MAX = 0.999
_SHARE_MIN = 1e-3
_INCREMENT_MAX = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class SSVI:
    """Parameters of an SSVI surface with the power law above.

    Any numbers of the ranges below are accepted, and `check_butterfly` and `check_calendar` of `to_raw()` judge them.
    `from_intervals` and `fit_ssvi` make surfaces that are free of arbitrage.

    Raises:
        InputError: theta not positive and increasing, |rho| >= 1, eta not positive, or gamma outside [0, 1).
    """

    theta: Floats
    """Total variance at the money of each expiry, nearest first, increasing; shape (n,)."""
    rho: float
    eta: float
    """Size of phi: curvature and slopes of every smile."""
    gamma: float
    """How much steeper the smiles of near expiries are, in [0, 1)."""

    if TYPE_CHECKING:
        # theta is an array; given may be anything that becomes one.
        def __init__(self, theta: npt.ArrayLike, rho: float, eta: float, gamma: float) -> None: ...

    def __post_init__(self) -> None:
        theta = np.atleast_1d(as_reals("theta", self.theta)).copy()
        positive_increasing("theta", theta)
        theta.flags.writeable = False
        object.__setattr__(self, "theta", theta)
        for name, holds, rule in (
            ("rho", abs(self.rho) < 1, "lie between -1 and 1"),
            ("eta", np.isfinite(self.eta) and self.eta > 0, "be positive and finite"),
            ("gamma", 0 <= self.gamma < 1, "lie in [0, 1)"),
        ):
            if not holds:
                raise InputError(f"{name} must {rule}, was {getattr(self, name)!r}")

    def __len__(self) -> int:
        return int(self.theta.size)

    @property
    def psi(self) -> Floats:
        """theta phi(theta), the sum of the two wings' slopes of each expiry."""
        return self.eta * _psi_over_eta(self.theta, self.gamma)

    @classmethod
    def from_intervals(cls, increment: npt.ArrayLike, rho: float, share: float, gamma: float) -> Self:
        """The surface at a point of the box: every one is free of butterfly and calendar arbitrage.

        It keeps a relative room of 1e-9 from the boundaries, so that its raw slices are proved so too after rounding.

        Args:
            increment: of theta, the first positive, the others not negative; shape (n,).
            rho: |rho| <= 0.999.
            share: h in (0, 1], eta as a share of the largest one that is known to be free of arbitrage.
            gamma: in [0, 0.999].

        Raises:
            InputError: a number outside its interval.
        """
        step = np.atleast_1d(as_reals("increment", increment))
        if step.ndim != 1 or not (np.isfinite(step) & (step >= 0)).all() or not step.size or step[0] <= 0:
            raise InputError(f"increments must be finite and not negative, the first positive, were {step.tolist()}")
        if not abs(rho) <= RHO_MAX:
            raise InputError(f"rho must lie in [-{RHO_MAX}, {RHO_MAX}], was {rho!r}")
        if not 0 < share <= 1:
            raise InputError(f"share must lie in (0, 1], was {share!r}")
        if not 0 <= gamma <= GAMMA_MAX:
            raise InputError(f"gamma must lie in [0, {GAMMA_MAX}], was {gamma!r}")
        theta = np.cumsum(step)
        return cls(*_retreated(theta, rho, _eta(theta, rho, share, gamma), gamma, MARGIN))

    def retreated(self, margin: float) -> Self:
        """A surface a relative `margin` further inside the no-arbitrage conditions than this one."""
        return type(self)(*_retreated(self.theta, self.rho, self.eta, self.gamma, margin))

    def to_raw(self) -> RawSVI:
        """The slices as raw SVI."""
        return raw_slices(self.theta, np.full(self.theta.size, self.rho), self.psi)

    def total_variance(self, k: npt.ArrayLike) -> Floats:
        """Total variance w at log-moneyness `k`, shapes as `RawSVI.total_variance`."""
        return self.to_raw().total_variance(k)


def _psi_over_eta(theta: Floats, gamma: float | Floats) -> Floats:
    return np.asarray((theta / (1.0 + theta)) ** (1.0 - gamma))


def _eta(theta: Floats, rho: float, share: float, gamma: float) -> float:
    return float(share * np.min(butterfly_cap(theta, np.full_like(theta, rho)) / _psi_over_eta(theta, gamma)))


def _retreated(
    theta: Floats, rho: float, eta: float, gamma: float, margin: float
) -> tuple[Floats, float, float, float]:
    # Room for the calendar is theta's own growth; 1 - gamma of it is what the wings get.
    ramp = margin / (1.0 - gamma) * np.arange(theta.size)
    return theta * (1.0 + ramp), rho, eta * (1.0 - margin * (theta.size + 1.0)), gamma


def fit_ssvi(
    k: Ragged,
    vol: Ragged,
    error: Ragged,
    years: npt.ArrayLike,
    *,
    side: Ragged | None = None,
    weight: Ragged | None = None,
    start: SSVI | None = None,
) -> SurfaceFit[SSVI]:
    """An SSVI surface fitted to the quotes of all its expiries at once, free of arbitrage and proved so.

    Arguments as `volsurf.fit_svi`: quotes as a list with one array an expiry, a 2-D array, or a 1-D array for one expiry. Those
    that cannot be used are left out. Expiries may have one quote or none: they are held by their neighbours.

    Args:
        years: time to expiry of each, increasing.
        start: a surface of the same expiries to start from, for instance the last one.

    Raises:
        InputError: the arrays do not fit together, years do not increase, or no quote can be used.
    """
    quotes = Quotes.of(k, vol, error, years, side, weight)
    n = quotes.years.size
    if start is not None and len(start) != n:
        raise InputError(f"start has {len(start)} expiries, the quotes have {n}")
    solution = fit_ssvi_quotes(quotes, start)
    x, scale = solution.x, quotes.levels()
    params = SSVI.from_intervals(x[:n] * scale, float(x[n]), float(x[n + 1]), float(x[n + 2]))
    return publish(quotes, params, solution, solution.at_bound[:n] | solution.at_bound[n:].any())


def fit_ssvi_quotes(quotes: Quotes, start: SSVI | None) -> Solution:
    """The minimum, in coordinates (increments of theta over `quotes.levels()`, rho, h, gamma)."""
    n, scale = quotes.years.size, quotes.levels()
    low = np.concatenate((np.zeros(n), (-RHO_MAX, _SHARE_MIN, 0.0)))
    low[0] = 1e-3
    high = np.concatenate((np.full(n, _INCREMENT_MAX), (RHO_MAX, 1.0, GAMMA_MAX)))

    def to_slices(x: Floats) -> tuple[Floats, Floats, Floats]:
        theta = np.cumsum(x[:, :n] * scale, axis=1)
        rho = np.repeat(x[:, n, None], n, axis=1)
        shape = _psi_over_eta(theta, x[:, n + 2, None])
        eta = x[:, n + 1] * np.min(butterfly_cap(theta, rho) / shape, axis=1)
        return theta, rho, eta[:, None] * shape

    theta, rho, gamma, share = scale, -0.1, 0.5, 0.6
    if start is not None:
        theta, rho, gamma = start.theta, start.rho, start.gamma
        share = min(start.eta / _eta(theta, rho, 1.0, gamma), 1.0)
    x = np.concatenate((np.diff(theta, prepend=0.0) / scale, (rho, share, gamma)))
    return minimise(quotes, to_slices, [x], low, high)
