"""The fitted slices of a surface as columns, and at each quote: the curve's vol, its standard error, the quote's leverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.instruments import FloatArray, IntArray
from volsurf.svi.gradient import variance_gradient

if TYPE_CHECKING:
    from volsurf.surface.slices import Smile

_THIN = 7.0
_HUBER = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Slices at given expiries as columns; NaN where there is no curve, or no covariance of one."""

    raw: FloatArray
    """a, b, rho, m, sigma; shape (5, expiries)."""
    years: FloatArray
    theta: FloatArray
    covariance: FloatArray
    """Upper triangle by rows of the scaled coordinates' covariance; shape (15, expiries)."""
    jumping: Mapping[int, Smile]
    """Smiles behind a scheduled jump, by position: their vols are not those of the five numbers alone."""

    @classmethod
    def of(cls, smiles: Sequence[Smile], expiry_ns: IntArray) -> Curves:
        """The slices of a surface's smiles at some expiries, which need not be among them."""
        n = len(expiry_ns)
        raw, years, theta, covariance = np.full((n, 5), np.nan), *np.full((2, n), np.nan), np.full((n, 15), np.nan)
        known = {s.expiry_ns: s for s in smiles}
        jumping = {}
        for i, expiry in enumerate(expiry_ns.tolist()):
            smile = known.get(expiry)
            if smile is None or smile.fit is None:
                continue
            fit = smile.fit
            raw[i], years[i] = (fit.a, fit.b, fit.rho, fit.m, fit.sigma), smile.years
            if fit.jump:
                jumping[i] = smile
            if len(fit.covariance) == 15 and fit.theta > 0:
                theta[i], covariance[i] = fit.theta, fit.covariance
        return cls(raw.T.copy(), years, theta, covariance.T.copy(), jumping)

    def vol(self, at: IntArray, k: FloatArray) -> FloatArray:
        """Vol of curve `at[j]` at log-moneyness `k[j]`."""
        return self.vol_and_error(at, k, error=False)[0]

    def vol_and_error(self, at: IntArray, k: FloatArray, *, error: bool = True) -> tuple[FloatArray, FloatArray]:
        """Vol of curve `at[j]` at log-moneyness `k[j]`, and its standard error sqrt(J C J') by the covariance C of the fit.

        Behind a scheduled jump the error is that of the slice without it.
        """
        a, b, rho, m, sigma = self.raw[:, at]
        years = self.years[at]
        with np.errstate(invalid="ignore"):
            z = (k - m) / sigma
            root = np.sqrt(1.0 + z * z)
            variance = a + b * sigma * (rho * z + root)
            vol = np.sqrt(variance / years)
            shown = vol
            for i, smile in self.jumping.items():
                mine = (at == i) & np.isfinite(k)
                shown = np.array(shown) if shown is vol else shown
                shown[mine] = smile.fitted_vol(k[mine])
            if not error:
                return shown, shown
            gradient = variance_gradient((a, b * (1 + rho), b * (1 - rho), m, sigma), self.theta[at], k)
            square = _quadratic(self.covariance, at, gradient)
            # vol = sqrt(w / T), so d vol = dw / (2 T vol).
            return shown, np.asarray(0.5 * np.sqrt(np.maximum(square, 0.0)) / (vol * years))


def _quadratic(triangle: FloatArray, at: IntArray, gradient: FloatArray) -> FloatArray:
    """g C g' with the upper triangle of C, term by term: no array is larger than a column."""
    total = np.zeros(len(at))
    place = 0
    columns = np.ascontiguousarray(gradient.T)
    for i, g in enumerate(columns):
        inner = triangle[place, at] * g
        for other in columns[i + 1 :]:
            place += 1
            inner += 2.0 * triangle[place, at] * other
        place += 1
        total += inner * g
    return total


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """Misfit of each expiry over its used quotes; arrays of shape (expiries,)."""

    used: IntArray
    two_sided: IntArray
    squares: FloatArray
    """Sum of squared residuals, one on the allowed side of a one-sided quote counting nothing."""
    rms: FloatArray
    """Of the two-sided ones; NaN where there is none."""
    autocorrelation: FloatArray
    """Lag-1, of the two-sided ones by strike; 0 where there are fewer than three."""
    runs: IntArray
    """Of one sign, of the two-sided ones about their mean."""
    noise: FloatArray
    """Factor by which the covariance exceeds the inverse of the Gauss-Newton matrix, see `volsurf.svi._measure`."""


def residuals(u: FloatArray, side: npt.NDArray[np.int8], at: IntArray, expiries: int) -> Residuals:
    """Of residuals (fit - quote) / error bar of used quotes, sorted by expiry `at`, then strike."""

    two = side == 0
    counted = np.where(u * side >= 0, u, 0.0)
    squares = counted * counted
    size = np.abs(counted)
    far = size > _HUBER
    # An idle one-sided quote counts as nothing: weight 0 in every sum below.
    active = (two | (counted != 0)).astype(np.float64)
    used, two_sided = np.bincount(at, minlength=expiries), np.bincount(at[two], minlength=expiries)
    mine, group = u[two], at[two]
    d = mine - (np.bincount(group, mine, expiries) / np.maximum(two_sided, 1))[group]
    same = group[1:] == group[:-1]
    lagged = np.bincount(group[1:], np.where(same, d[1:] * d[:-1], 0.0), expiries)
    spread = np.bincount(group, d * d, expiries)
    turns = same & ((d[1:] >= 0) != (d[:-1] >= 0))
    runs = np.bincount(group[1:], turns, expiries).astype(np.int64) + (two_sided > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where((two_sided > 2) & (spread > 0), lagged / spread, 0.0)
        rms = np.sqrt(np.bincount(group, mine * mine, expiries) / two_sided)
    count = np.bincount(at, active, expiries)
    omegas = np.bincount(at, active / np.maximum(size, _HUBER), expiries)
    clipped = np.bincount(at, np.where(far, _HUBER**2, squares), expiries)
    within = count - np.bincount(at, far, expiries)
    some = np.maximum(count, 1.0)
    freedom = np.where(count > 6, count - 5, 1.0)
    noise = omegas / some * clipped / (freedom * np.maximum(within / some, 0.2) ** 2)
    noise = np.maximum(noise, 0.25 + 0.75 / (1.0 + (two_sided / _THIN) ** 4))
    rho = np.clip(correlation, 0.0, 0.9)
    return Residuals(
        used,
        two_sided,
        np.bincount(at, squares, expiries).astype(np.float64),
        rms,
        correlation,
        runs,
        np.asarray(noise * (1 + rho) / (1 - rho)),
    )


def leverage(
    u: FloatArray, side: npt.NDArray[np.int8], at: IntArray, ratio: FloatArray, noise: FloatArray
) -> FloatArray:
    """How far the curve at a quote follows the quote, by unit of its vol: the diagonal of the hat matrix, 0 to 1.

    Args:
        u: (fit - quote) / error bar.
        side: of the quote; on its allowed side a one-sided quote pulls nothing.
        at: expiry of the quote.
        ratio: standard error of the curve at the quote over the quote's error bar.
        noise: as in `Residuals`.
    """
    with np.errstate(invalid="ignore"):
        pull = np.where(u * side >= 0, 1.0 / np.maximum(np.abs(u), _HUBER), 0.0)
        return np.asarray(pull * ratio**2 / noise[at])
