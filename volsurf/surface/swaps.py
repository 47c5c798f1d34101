"""Fair strikes of variance and gamma swaps, log contracts and the moments of the log-return, off a smile.

On a smile free of butterfly arbitrage d1 and d2 fall strictly in k (Fukasawa 2012, *The normalizing transformation of the
implied volatility smile*, theorem 2.8), so each of them can be the variable of integration, and no strip of options is
needed:

    variance swap   E[-2 ln(S_T/F)]              = int phi(z) w(k(z)) dz,  d2(k(z)) = z
    gamma swap      E[2 (S_T/F) ln(S_T/F)]       = int phi(z) w(k(z)) dz,  d1(k(z)) = z
    any payoff      E[h(ln(S_T/F))]              = int phi(z) (h(k) - h'(k) w'/(2 q)) dz,  q = 1 - k w'/(2w) + w'/4,  k = k(z)

The last line is integration by parts of the distribution in `volsurf.surface.density`. The first two assume a price
without jumps, as the replication by a log contract does. The integrals are sums over the 32 nodes of Gauss and Hermite,
the nodes found by Newton's method on d1 or d2. A rule of 24 nodes checks them; for a smile with a bend so sharp that the
two differ, the trapezoidal rule on 4001 takes over.

**In coin.** A variance swap that pays 1 coin for each unit of variance is worth E[(S_T/F) RV]; with the coin as the unit
of account the price has drift +vol^2 in its log, and the fair strike is that of the *gamma swap*. So
`settlement="inverse"` gives the gamma swap's strike, and the log contract paid in coin is worth E[(S_T/F) ln(S_T/F)]
coins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from volsurf.instruments import FloatArray
from volsurf.surface.delta import log_moneyness_of_score
from volsurf.surface.interpolation import variance_derivatives, vol_of

if TYPE_CHECKING:
    from volsurf.surface.surface import Surface

NODES = 32
_CHECK_NODES = 24
_AGREE = 1e-6
"""Relative difference of the two rules above which the fine one is taken; 1e-6 of a variance is 5e-3 bp of a 100 % vol."""
_FINE_NODES = 4001
_REACH = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Moments of ln(S_T/F) under the forward measure, in the shape of the times asked for."""

    mean: FloatArray
    """Minus half the variance swap's total variance."""
    variance: FloatArray
    """Of the log-return up to expiry, not per year."""
    skewness: FloatArray
    kurtosis: FloatArray
    """3 for a normal distribution."""
    years: FloatArray

    @property
    def vol(self) -> FloatArray:
        """Standard deviation of the log-return, per square root of a year."""
        return np.asarray(np.sqrt(self.variance / self.years))


@cache
def _gauss_hermite(nodes: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights for the standard normal density."""
    z, weight = np.polynomial.hermite_e.hermegauss(nodes)
    return z, weight / math.sqrt(2.0 * math.pi)


@cache
def _trapezoid() -> tuple[FloatArray, FloatArray]:
    """The same on even steps: converges geometrically for what is analytic, and to 1e-6 for a bend that is all but a kink."""
    z = np.linspace(-_REACH, _REACH, _FINE_NODES)
    return z, np.exp(-0.5 * z * z) * ((z[1] - z[0]) / math.sqrt(2.0 * math.pi))


def swap_variance(surface: Surface, at: FloatArray, coin: bool) -> FloatArray:
    """Fair total variance (not per year) of the variance swap, or with `coin` of the gamma swap, in the shape of `at`."""

    def integrand(z: FloatArray, times: FloatArray) -> FloatArray:
        return variance_derivatives(surface, log_moneyness_of_score(surface, z, times, 0.5 if coin else -0.5), times)[0]

    return _integral(integrand, at)


def moments_at(surface: Surface, at: FloatArray) -> Moments:
    """Moments of ln(S_T/F) at times of shape (...)."""

    def powers(z: FloatArray, times: FloatArray) -> FloatArray:
        k = log_moneyness_of_score(surface, z, times, -0.5)
        w, slope, _ = variance_derivatives(surface, k, times)
        share = 0.5 * slope / (1.0 - 0.5 * k * slope / w + 0.25 * slope)
        # In standard deviations at the money, so that neither short nor long times lose digits.
        unit = vol_of(variance_derivatives(surface, np.zeros_like(times), times)[0], 1.0)
        x, share = k / unit, share / unit
        return np.stack([x**n - n * x ** (n - 1) * share for n in (1, 2, 3, 4)])

    first, second, third, fourth = _integral(powers, at)
    spread = second - first**2
    unit = vol_of(variance_derivatives(surface, np.zeros_like(at), at)[0], 1.0)
    return Moments(
        first * unit,
        spread * unit**2,
        (third - 3.0 * first * second + 2.0 * first**3) / spread**1.5,
        (fourth - 4.0 * first * third + 6.0 * first**2 * second - 3.0 * first**4) / spread**2,
        at,
    )


def _integral(integrand: Callable[[FloatArray, FloatArray], FloatArray], at: FloatArray) -> FloatArray:
    """int phi(z) integrand(z, at) dz, the nodes on the integrand's last axis; the fine rule where the other two differ."""
    times = at.ravel()
    (z, weight), (z_check, weight_check) = _gauss_hermite(NODES), _gauss_hermite(_CHECK_NODES)
    value = integrand(np.concatenate((z, z_check)), times[:, None])
    result, check = value[..., : len(z)] @ weight, value[..., len(z) :] @ weight_check
    differ = np.abs(result - check) > _AGREE * np.abs(result)
    coarse = differ.any(axis=tuple(range(differ.ndim - 1)))
    if coarse.any():
        z, weight = _trapezoid()
        result[..., coarse] = integrand(z, times[coarse, None]) @ weight
    return np.asarray(result.reshape(result.shape[:-1] + at.shape))
