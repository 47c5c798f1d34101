"""Forward vols: the vol between two times that the surface implies.

    forward_vol(k; T1, T2)^2 = (w(k, T2) - w(k, T1)) / (T2 - T1)                  at one forward log-moneyness k

At k = 0 this is the usual at-the-money-forward vol. A surface free of calendar arbitrage has w rising in T at every fixed k
(Gatheral and Jacquier 2014, lemma 2.1), so the difference is never negative there; where it is, there is no vol, and NaN says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from volsurf._arguments import as_reals
from volsurf.errors import InputError
from volsurf.instruments import BoolArray, FloatArray, IntArray
from volsurf.surface._rows import html_table
from volsurf.surface.expiries import Expiry
from volsurf.surface.interpolation import variance_derivatives, vol_of
from volsurf.surface.slices import expiry_label
from volsurf.surface.tenors import is_tenor

if TYPE_CHECKING:
    import polars as pl

    from volsurf.surface.surface import Surface


@dataclass(frozen=True, slots=True, eq=False)
class ForwardVols:
    """At-the-money-forward vols between neighbouring expiries; the first row is from now to the first expiry. Shape (n,)."""

    start_ns: IntArray
    """ns UTC"""
    end_ns: IntArray
    start_years: FloatArray
    end_years: FloatArray
    k: float
    vol: FloatArray
    """NaN where total variance falls: calendar arbitrage."""
    error: FloatArray
    """Standard error of `vol`, the two slices taken as independent; NaN where a slice has none, infinite where `vol` is zero."""

    @property
    def free(self) -> BoolArray:
        """True where total variance does not fall."""
        return np.asarray(~np.isnan(self.vol))

    def to_polars(self) -> pl.DataFrame:
        """One row an interval."""
        import polars as pl

        return pl.DataFrame(
            {
                "start": self.start_ns,
                "end": self.end_ns,
                "start_years": self.start_years,
                "end_years": self.end_years,
                "k": np.full(len(self.vol), self.k),
                "forward_vol": self.vol,
                "error": self.error,
                "free_of_calendar_arbitrage": self.free,
            }
        ).with_columns(pl.col("start", "end").cast(pl.Datetime("ns", "UTC")))

    def _repr_html_(self) -> str:
        starts: list[object] = ["now", *(expiry_label(int(ns)) for ns in self.start_ns[1:])]
        ends: list[object] = [expiry_label(int(ns)) for ns in self.end_ns]
        return html_table({"from": starts, "to": ends, "forward vol": self.vol, "± se": self.error})


def forward_vol_at(surface: Surface, start: FloatArray, end: FloatArray, k: FloatArray) -> FloatArray:
    """Forward vol between times in years, in the broadcast shape; a start of 0 is now.

    Raises:
        InputError: an end that is not after its start.
    """
    if not (end > start).all():
        raise InputError(f"a forward vol needs its end after its start, were {start!r} and {end!r} years")
    near = _variance(surface, k, start)
    gain = variance_derivatives(surface, k, end)[0] - near
    # Equal slices differ by rounding alone.
    gain = np.where((gain < 0.0) & (gain >= -1e-14 * near), 0.0, gain)
    return vol_of(gain, end - start)


def _variance(surface: Surface, k: FloatArray, at: FloatArray) -> FloatArray:
    """w, which is zero now."""
    now = at == 0.0
    w = variance_derivatives(surface, k, np.where(now, surface.years[0], at))[0]
    return np.asarray(np.where(now, 0.0, w))


def forward_vols_of(surface: Surface, k: float) -> ForwardVols:
    """Between the fitted expiries, at one log-moneyness."""
    from volsurf.surface.uncertainty import vol_error

    k_ = as_reals("k", k)
    if k_.ndim or not np.isfinite(k_):
        raise InputError(f"forward_vols takes one finite log-moneyness, was {k!r}; forward_vol takes arrays")
    end = surface.years[surface.fitted]
    start = np.concatenate(([0.0], end[:-1]))
    vol = forward_vol_at(surface, start, end, k_)
    # Error of w at each expiry: dw = 2 w/vol dvol.
    w = variance_derivatives(surface, k_, end)[0]
    error_w = 2.0 * vol_of(w * end, 1.0) * vol_error(surface, k_, end)
    error_before = np.concatenate(([0.0], error_w[:-1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.hypot(error_w, error_before) / (2.0 * vol * (end - start))
    expiries = surface.expiries[surface.fitted]
    return ForwardVols(
        np.concatenate(([surface.time_ns], expiries[:-1])), expiries, start, end, float(k_), vol, np.asarray(error)
    )


def time_of(surface: Surface, when: Expiry | float | npt.ArrayLike) -> FloatArray:
    """Years: floats are years (0 is now), texts tenors or expiries, anything else expiries.

    Raises:
        InputError: what `Surface.vol` refuses.
    """
    if isinstance(when, str):
        return surface._times(None, None, when) if is_tenor(when) else surface._times(when, None)
    # The integer 0 is now, any other an expiry.
    if not (isinstance(when, int) and when == 0) and np.asarray(when).dtype.kind != "f":
        return surface._times(cast("Expiry", when), None)
    years = np.asarray(when, np.float64)
    ahead = years != 0.0
    if ahead.any():
        surface._times(None, years[ahead])
    return years
