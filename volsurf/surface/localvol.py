"""Dupire's local vol of a surface.

    local_vol(k, T)^2 = dw/dT at fixed k / g(k)                         g: Durrleman's function, see `volsurf.surface.density`

(Gatheral 2006, *The Volatility Surface*, equation 1.10, in log-moneyness to the forward of T, which takes the carry out.)

Total variance is linear in T between expiries at fixed k, so dw/dT is piecewise constant in T and jumps at each expiry: w
is only C0 there. At an expiry the value is the one from the right. Local vol itself still moves inside an interval,
because g does. Before the first expiry and past the last one it follows the extrapolation of
`volsurf.surface.interpolation`.

**Events.** A scheduled jump multiplies the price by an independent factor J at one instant. After it, local variance is
that of the quiet world averaged over where the price came from, with the densities as weights,

    local_vol(k)^2 = sum_i p_i f(k - d_i) quiet_vol(k - d_i)^2 / sum_i p_i f(k - d_i)

with d_i = ln J_i and f the quiet world's density of ln(S_T/F),
which is Dupire's formula put through the mixture of prices: positive and finite at every time. The variance of the jump
itself sits at the instant of the event and is in no local vol: a simulation has to multiply the price by J there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from volsurf.errors import InputError
from volsurf.instruments import FloatArray
from volsurf.surface.density import log_density, nonnegative_g
from volsurf.surface.interpolation import (
    HORIZON,
    forward_at,
    require_fit,
    variance_derivatives,
    variance_per_year,
    vol_of,
)

if TYPE_CHECKING:
    import polars as pl

    from volsurf.surface.surface import Surface


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LocalVolGrid:
    """Local vol on times and standard deviations from the forward.

    Rows come in pairs that hold the two sides of an interval between expiries: its start, where local vol is the limit
    from the right, and its end, where it is the limit from the left. A simulation may interpolate linearly inside each
    pair; between pairs local vol jumps.
    """

    years: FloatArray
    """Time of each row, shape (n,); the first is not zero but a hundredth of the first expiry, below which vol depends on
    k/sqrt(T) alone."""
    forward: FloatArray
    """Shape (n,)."""
    standard_deviations: FloatArray
    """k over vol at the forward times sqrt(T), shape (m,)."""
    k: FloatArray
    """Log-moneyness, shape (n, m)."""
    strike: FloatArray
    """Shape (n, m)."""
    vol: FloatArray
    """Local vol, shape (n, m); NaN where the surface is not free of arbitrage."""

    def __repr__(self) -> str:
        n, m = self.vol.shape
        return f"LocalVolGrid({n} times to {self.years[-1]:.4g} years x {m} places)"

    def to_polars(self) -> pl.DataFrame:
        """One row a time and place."""
        import polars as pl

        n, m = self.vol.shape
        return pl.DataFrame(
            {
                "years": np.repeat(self.years, m),
                "forward": np.repeat(self.forward, m),
                "standard_deviations": np.tile(self.standard_deviations, n),
                "k": self.k.ravel(),
                "strike": self.strike.ravel(),
                "local_vol": self.vol.ravel(),
            }
        )


def local_variance_at(surface: Surface, k: FloatArray, at: FloatArray) -> FloatArray:
    """Local variance per year at log-moneyness k and time `at`, in their broadcast shape; NaN where there is arbitrage."""
    require_fit(surface)
    shape = np.broadcast_shapes(np.shape(k), np.shape(at))
    k_, at_ = np.broadcast_to(k, shape), np.broadcast_to(at, shape)
    quiet = surface.without_event()
    if surface.event is None:
        return _quiet(quiet, k_, at_)
    after = at_ > surface.event_years
    steps = _jumps(surface)
    logs = np.stack(
        [np.log(p) + log_density(k_ - step, *variance_derivatives(quiet, k_ - step, at_)) for p, step in steps]
    )
    weights = np.exp(logs - logs.max(axis=0))
    each = np.stack([_quiet(quiet, k_ - step, at_) for _, step in steps])
    mixed = (weights * each).sum(axis=0) / weights.sum(axis=0)
    return np.asarray(np.where(after, mixed, _quiet(quiet, k_, at_)))


def _quiet(surface: Surface, k: FloatArray, at: FloatArray) -> FloatArray:
    rate = variance_per_year(surface, k, at)
    w, slope, curvature = variance_derivatives(surface, k, at)
    g = nonnegative_g(k, w, slope, curvature)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where((w > 0.0) & (g > 0.0) & (rate >= 0.0), rate / g, np.nan))


def _jumps(surface: Surface) -> tuple[tuple[float, float], tuple[float, float]]:
    """(probability, log of the factor) of the event's two outcomes."""
    event = surface.event
    assert event is not None
    return (event.probability, event.up), (1.0 - event.probability, event.down)


def local_vol_grid(surface: Surface, points: int, reach: float) -> LocalVolGrid:
    """Local vol at both ends of every interval between fitted expiries, and of the event, to the horizon."""
    if points < 2 or not (math.isfinite(reach) and reach > 0):
        raise InputError(f"points must be at least 2 and reach positive and finite, were {points!r} and {reach!r}")
    require_fit(surface)
    listed = surface.years[surface.fitted]
    edges = np.concatenate(([0.01 * listed[0]], listed, [HORIZON * surface.years[-1]]))
    if surface.event is not None and edges[0] < surface.event_years < edges[-1]:
        edges = np.unique(np.append(edges, surface.event_years))
    starts, ends = edges[:-1], edges[1:]
    # Just inside the interval, so that the event has happened at its start and not at its end.
    inside = np.stack((np.nextafter(starts, np.inf), np.nextafter(ends, 0.0)), axis=1)
    inside[0, 0] = starts[0]
    at = inside.ravel()[:, None]
    y = np.linspace(-reach, reach, points)
    k = y * vol_of(variance_derivatives(surface, np.zeros_like(at), at)[0], 1.0)
    forward = forward_at(surface, at)
    return LocalVolGrid(
        years=np.stack((starts, ends), axis=1).ravel(),
        forward=forward[:, 0],
        standard_deviations=y,
        k=k,
        strike=forward * np.exp(k),
        vol=np.sqrt(local_variance_at(surface, k, at)),
    )
