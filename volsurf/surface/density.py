"""What a surface says of the price at expiry: its density, distribution, quantiles and digitals.

With k = ln(K/F), w = vol^2 T, d2 = -k/sqrt(w) - sqrt(w)/2, d1 = d2 + sqrt(w) and the forward measure throughout (nothing is
discounted):

    density of ln(S_T/F)     p(k) = g(k) phi(d2)/sqrt(w)                       g: Durrleman's function
    density of S_T           p(k)/K
    P(S_T < K)               Phi(-d2) + phi(d2) w'/(2 sqrt(w))
    E[S_T/F; S_T > K]        Phi(d1) - phi(d1) w'/(2 sqrt(w))                  worth of one coin paid above K, in coin

Each tail is computed as phi(d) times a number of order 1/d (Mills' ratio plus the skew's share), so a probability of 1e-200 has
as many right digits as one of a half; `log_density` goes on where the density itself is below the smallest double.

Sources: Breeden and Litzenberger (1978), *Prices of state-contingent claims implicit in option prices*; Gatheral (2006), *The
Volatility Surface*, chapter 1; Gatheral and Jacquier (2014), section 2.2, for g.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri

from volsurf.errors import InputError
from volsurf.instruments import FloatArray
from volsurf.surface._mixture import mills
from volsurf.surface.delta import falling_root
from volsurf.surface.interpolation import Curve, Derivatives, durrleman, forward_at, vol_of

if TYPE_CHECKING:
    import polars as pl

    from volsurf.surface.surface import Surface

_LOG_TWO_PI = math.log(2.0 * math.pi)
_ROUNDING = 8.0 * float(np.finfo(np.float64).eps)
_SMALLEST = 5e-324


def nonnegative_g(k: FloatArray, w: FloatArray, slope: FloatArray, curvature: FloatArray) -> FloatArray:
    """Durrleman's g, in the arguments' common shape; a value below zero by no more than rounding is zero.

    A certificate decides such cases in exact arithmetic, a double cannot.
    """
    with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
        g = durrleman(k, w, slope, curvature)
        tilt = np.abs(k * slope / w)
        bound = _ROUNDING * ((1.0 + 0.5 * tilt) ** 2 + 0.25 * slope**2 * (1.0 / w + 0.25) + 0.5 * np.abs(curvature))
    return np.asarray(np.where((g < 0.0) & (g >= -bound), 0.0, g))


def density(k: FloatArray, w: FloatArray, slope: FloatArray, curvature: FloatArray) -> FloatArray:
    """Density of ln(S_T/F) at log-moneyness k; negative where there is arbitrage, NaN where there is no vol."""
    root = vol_of(w, 1.0)
    d2 = -k / root - 0.5 * root
    with np.errstate(under="ignore"):
        return np.asarray(nonnegative_g(k, w, slope, curvature) * np.exp(-0.5 * (d2 * d2 + _LOG_TWO_PI)) / root)


def log_density(k: FloatArray, w: FloatArray, slope: FloatArray, curvature: FloatArray) -> FloatArray:
    """Logarithm of `density`; minus infinity where it is zero, NaN where it is negative."""
    root = vol_of(w, 1.0)
    d2 = -k / root - 0.5 * root
    with np.errstate(divide="ignore", invalid="ignore"):
        g = np.log(nonnegative_g(k, w, slope, curvature))
        return np.asarray(g - 0.5 * (d2 * d2 + _LOG_TWO_PI + np.log(w)))


def tails(k: FloatArray, w: FloatArray, slope: FloatArray, *, coin: bool = False) -> tuple[FloatArray, FloatArray]:
    """P(S_T < K) and P(S_T > K), each with its own relative accuracy.

    With `coin` E[S_T/F; S_T < K] and E[S_T/F; S_T > K]: the same probabilities with the coin as the unit of account.
    """
    root = vol_of(w, 1.0)
    share = 0.5 * slope / root
    d = -k / root + (0.5 if coin else -0.5) * root
    return _tail(d, share), _tail(-d, -share)


def _tail(d: FloatArray, share: FloatArray) -> FloatArray:
    """Phi(-d) + phi(d) share; for d > 0 as phi(d) (M(d) + share), M = Phi(-d)/phi(d) Mills' ratio."""
    with np.errstate(under="ignore"):
        phi = np.exp(-0.5 * (d * d + _LOG_TWO_PI))
        value = np.where(d > 0.0, phi * (mills(np.maximum(d, 0.0)) + share), ndtr(-d) + phi * share)
    # On a surface free of arbitrage this is a probability: what rounding takes it beyond [0, 1] by is taken back.
    return np.asarray(
        np.where((value < 0.0) & (value > -1e-15), 0.0, np.where(np.abs(value - 1.0) < 4e-16, 1.0, value))
    )


def quantile_at(surface: Surface, probability: FloatArray, at: FloatArray) -> FloatArray:
    """k with P(S_T < F e^k) = probability, in the broadcast shape; minus and plus infinity for 0 and 1.

    Found on the normal score of the distribution, which is nearly a straight line. On a surface that is not free of arbitrage
    there may be several such k, and one of them is given; NaN where the curve has no vol.

    Raises:
        InputError: a probability outside [0, 1].
    """
    if not ((probability >= 0.0) & (probability <= 1.0)).all():
        raise InputError(f"a probability must lie between 0 and 1, was {probability!r}")
    shape = np.broadcast_shapes(probability.shape, at.shape)
    wanted, at_ = np.broadcast_to(probability, shape).ravel(), np.broadcast_to(at, shape).ravel()
    inner = (wanted > 0.0) & (wanted < 1.0)
    result = np.where(wanted > 0.5, np.inf, -np.inf)
    if inner.any():
        curve, score = Curve(surface, at_[inner]), ndtri(wanted[inner])

        def equation(k: FloatArray, at_k: Derivatives) -> tuple[FloatArray, FloatArray, FloatArray]:
            below, above = (np.clip(tail, _SMALLEST, 1.0) for tail in tails(k, *at_k[:2]))
            value = np.where(below < 0.5, ndtri(below), -ndtri(above))
            rise = density(k, *at_k) * np.exp(0.5 * (value * value + _LOG_TWO_PI))
            return score - value, -np.where(rise > 0.0, rise, 0.0), np.full(k.shape, -1.0)

        result[inner] = falling_root(curve, equation, -score, -0.5, score.shape)
    return np.asarray(result.reshape(shape))


def density_table(surface: Surface, points: int, reach: float) -> pl.DataFrame:
    """Densities and probabilities of every fitted expiry on a grid of standard deviations, one row an expiry and place."""
    import polars as pl

    if points < 2 or not (math.isfinite(reach) and reach > 0):
        raise InputError(f"points must be at least 2 and reach positive and finite, were {points!r} and {reach!r}")
    at = surface.years[surface.fitted][:, None]
    y = np.linspace(-reach, reach, points)
    curve = Curve(surface, at)
    k = y * vol_of(curve(np.zeros(()))[0], 1.0)
    forward = forward_at(surface, at)
    w, slope, curvature = curve(k)
    strike, of_log = forward * np.exp(k), density(k, w, slope, curvature)
    below, above = tails(k, w, slope)

    def column(value: FloatArray) -> FloatArray:
        return np.broadcast_to(value, k.shape).ravel()

    frame = pl.DataFrame(
        {
            "underlying": [surface.underlying] * k.size,
            "expiry": np.repeat(surface.expiries[surface.fitted], points),
            "years": column(at),
            "standard_deviations": column(y[None, :]),
            "k": column(k),
            "strike": column(strike),
            "density_log": column(of_log),
            "density_price": column(of_log / strike),
            "probability_below": column(below),
            "probability_above": column(above),
        }
    )
    return frame.with_columns(pl.col("expiry").cast(pl.Datetime("ns", "UTC")))
