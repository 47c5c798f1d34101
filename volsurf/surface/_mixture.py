"""A smile between two others as a mixture of their prices: free of arbitrage whatever the two are, if they are.

    c(k) = (1 - q) c1(k) + q c2(k)   at fixed log-moneyness, prices in units of the forward

A mixture of densities is a density, and c1 <= c2 at every k makes c rise with q: both kinds of arbitrage are excluded by theorem
(Gatheral and Jacquier 2014, section 5.1). q is such that total variance at the money is linear in time. The wings lie higher than
those of the blend of total variances, which is why this stands in only where the blend cannot be proved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from volsurf.instruments import FloatArray

Derivatives = tuple[FloatArray, FloatArray, FloatArray]
"""w, dw/dk and d2w/dk2."""


def durrleman(k: FloatArray, w: FloatArray, slope: FloatArray, curvature: FloatArray) -> FloatArray:
    """g = (1 - k w'/(2w))^2 - w'^2/4 (1/w + 1/4) + w''/2; the density of ln(S/F) is g phi(d2)/sqrt(w)."""
    return np.asarray((1.0 - 0.5 * k * slope / w) ** 2 - 0.25 * slope * slope * (1.0 / w + 0.25) + 0.5 * curvature)


def price_share(share: FloatArray, near: FloatArray, far: FloatArray) -> FloatArray:
    """q, from the share of the way in time and the total variances at the money of the two."""
    from scipy.special import erf

    # A call at the money costs erf(sqrt(w/8)).
    low, high = erf(np.sqrt(near / 8.0)), erf(np.sqrt(far / 8.0))
    at = erf(np.sqrt((near + share * (far - near)) / 8.0))
    return np.asarray(np.divide(at - low, high - low, out=np.array(share), where=high > low))


def price_share_rate(share: FloatArray, near: FloatArray, far: FloatArray) -> FloatArray:
    """dq/dshare."""
    from scipy.special import erf

    width = erf(np.sqrt(far / 8.0)) - erf(np.sqrt(near / 8.0))
    theta = near + share * (far - near)
    rate = (far - near) * np.exp(-theta / 8.0) / np.sqrt(8.0 * math.pi * theta)
    return np.asarray(np.divide(rate, width, out=np.ones_like(rate), where=width > 0))


@dataclass(frozen=True, slots=True)
class Mixture:
    """The mixture at log-moneynesses k; all arrays of one shape (n,)."""

    w: FloatArray
    slope: FloatArray
    curvature: FloatArray
    weight_near: FloatArray
    """dw/dw1 at fixed q."""
    weight_far: FloatArray
    """dw/dw2 at fixed q."""
    per_share: FloatArray
    """dw/dq."""


def mixture(k: FloatArray, near: Derivatives, far: Derivatives, q: FloatArray) -> Mixture:
    """The total variance whose out-of-the-money prices are the mixture's, for 0 <= q <= 1 and w1 <= w2; NaN where k is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _mixture(k, near, far, q)


def _mixture(k: FloatArray, near: Derivatives, far: Derivatives, q: FloatArray) -> Mixture:
    # A put is a call of the mirrored smile, so that every price is out of the money and none loses its digits.
    x, sign = np.abs(k), np.where(k < 0, -1.0, 1.0)
    one, two = (_Prices(x, np.sqrt(w), sign * slope, curvature) for w, slope, curvature in (near, far))
    target = np.logaddexp(np.log1p(-q) + one.log_price, np.log(q) + two.log_price)
    low, high = np.minimum(one.root, two.root), np.maximum(one.root, two.root)
    root = implied_root(x, target, low, high, 0.5 * (low + high))
    own = _Prices(x, root, np.zeros_like(x), np.zeros_like(x))
    # Price derivatives in units of phi(d1) of the mixture.
    ratio_one, ratio_two = (np.exp(0.5 * (own.d1 - p.d1) * (own.d1 + p.d1)) for p in (one, two))
    slope = 2.0 * root * ((1.0 - q) * ratio_one * one.change + q * ratio_two * two.change + own.mills2)
    g = root * ((1.0 - q) * ratio_one * one.density + q * ratio_two * two.density)
    w = root * root
    curvature = 2.0 * (g - (1.0 - 0.5 * x * slope / w) ** 2 + 0.25 * slope * slope * (1.0 / w + 0.25))
    return Mixture(
        w,
        sign * slope,
        curvature,
        (1.0 - q) * ratio_one * root / one.root,
        q * ratio_two * root / two.root,
        2.0 * root * (ratio_two * two.spread - ratio_one * one.spread),
    )


class _Prices:
    """Calls at x >= 0 of one smile, in units of the forward."""

    __slots__ = ("change", "d1", "density", "log_price", "mills2", "root", "spread")

    def __init__(self, x: FloatArray, root: FloatArray, slope: FloatArray, curvature: FloatArray) -> None:
        self.root = root
        self.d1 = 0.5 * root - x / root
        self.mills2 = mills(root - self.d1)
        self.log_price, self.spread = log_call(x, root)
        self.change = 0.5 * slope / root - self.mills2
        """d price/dk over phi(d1)."""
        self.density = durrleman(x, root * root, slope, curvature) / root


def log_call(x: FloatArray, root: FloatArray) -> tuple[FloatArray, FloatArray]:
    """ln of the price of a call at log-moneyness x >= 0 in units of the forward, and the price over phi(d1); root = sqrt(w)."""
    d1 = 0.5 * root - x / root
    spread = mills(-d1) - mills(root - d1)
    return np.log(spread) - 0.5 * d1 * d1 - 0.5 * math.log(2.0 * math.pi), spread


def implied_root(x: FloatArray, target: FloatArray, low: FloatArray, high: FloatArray, start: FloatArray) -> FloatArray:
    """sqrt(w) between two bounds where `log_call` is `target`, by Newton's method kept inside them.

    ln price is concave in sqrt(w), so that from below it converges without an upper bound.
    """
    root = start
    for _ in range(60):
        log_price, spread = log_call(x, root)
        miss = log_price - target
        low, high = np.where(miss < 0, root, low), np.where(miss < 0, high, root)
        step = root - miss * spread
        step = np.where((step >= low) & (step <= high), step, 0.5 * (low + high))
        if (np.abs(step - root) <= 1e-14 * root).all():
            return step
        root = step
    return root


def mills(x: FloatArray) -> FloatArray:
    """(1 - Phi(x)) / phi(x)."""
    from scipy.special import erfcx

    with np.errstate(over="ignore"):
        return np.asarray(math.sqrt(0.5 * math.pi) * erfcx(x / math.sqrt(2.0)))
