"""The surfaces the simulated exchanges quote around: free of static arbitrage by construction, at every instant.

Two families, both moved by the same bounded factors. `SviTruth` is an SSVI surface whose parameters vary with maturity, so
every slice is exactly SVI. `MixtureTruth` is a mixture of lognormals that is *not* SVI, so that a fit is not graded on its
own homework. Both are functions of a continuous maturity: any set of listed expiries is consistent.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.instruments import FloatArray
from volsurf.sim.pricing import implied_v, otm_price

_FAST, _SLOW = 52.0, 4.0
"""Decay of the two short-lived variance factors, per year: about a week and a quarter."""
_FLOOR, _LOADING = -0.45, 0.30
_SKEW_DECAY = 0.08
"""Maturity in years at which half of the short end's extra skew and curvature is gone."""
_SHORTEST = 1e-7
"""Three seconds in years: nearer than that the surface is taken at that maturity, so nothing divides by zero."""


@dataclass(frozen=True, slots=True)
class VolLevels:
    """Calm levels of one underlying's surface, around which the factors move it."""

    long_vol: float
    """Volatility of distant maturities; the short end rests at about 0.84 of it."""
    skew_short: float
    """SSVI correlation ρ at the short end; negative: puts are dearer."""
    skew_long: float
    curvature: float
    """SSVI φ√θ: the sum of the wings' slopes in units of the at-the-money deviation."""


@dataclass(frozen=True, slots=True)
class Factors:
    """What moves a surface; zero is calm. All are bounded, which is what the no-arbitrage proofs below rest on."""

    fast: float = 0.0
    """Variance of the first weeks, |fast| ≤ 1.5."""
    slow: float = 0.0
    """Variance of the first quarters, |slow| ≤ 1.5."""
    level: float = 0.0
    """ln of the whole surface's volatility, |level| ≤ 0.5."""
    skew: float = 0.0
    """|skew| ≤ 1; acts most on the short end."""
    curvature: float = 0.0
    """|curvature| ≤ 1; acts most on the short end."""


FACTOR_BOUNDS = Factors(1.5, 1.5, 0.5, 1.0, 1.0)


class SviSlice(msgspec.Struct, frozen=True):
    """Raw SVI: w(k) = a + b (ρ (k − m) + √((k − m)² + σ²))."""

    a: float
    b: float
    rho: float
    m: float
    sigma: float


class SurfaceTruth(ABC):
    """Total implied variance as a function of log-moneyness and maturity, at one instant."""

    name: str

    def __init__(self, levels: VolLevels, factors: Factors) -> None:
        self.levels = levels
        self.factors = factors

    def atm_variance(self, years: npt.ArrayLike) -> FloatArray:
        """θ(T), the scale of total variance: the integral of `v∞ (1 + A₁e^(−52T) + A₂e^(−4T))`, positive for bounded factors."""
        t = np.maximum(np.asarray(years, np.float64), _SHORTEST)
        fast = _FLOOR + _LOADING * np.exp(self.factors.fast)
        slow = _FLOOR + _LOADING * np.exp(self.factors.slow)
        long_variance = (self.levels.long_vol * np.exp(self.factors.level)) ** 2
        bump = -fast * np.expm1(-_FAST * t) / _FAST - slow * np.expm1(-_SLOW * t) / _SLOW
        return np.asarray(long_variance * (t + bump))

    @abstractmethod
    def total_variance(self, k: npt.ArrayLike, years: npt.ArrayLike) -> FloatArray:
        """w = σ²T at log-moneyness `k = ln(K/F)` and maturity `years`; the two broadcast."""

    def svi(self, years: float) -> SviSlice | None:
        """Parameters of the slice where it is SVI, else None."""
        del years
        return None


class SviTruth(SurfaceTruth):
    """SSVI with maturity-dependent correlation: w = θ/2 (1 + ρφk + √((φk + ρ)² + 1 − ρ²)).

    Butterfly: φ√θ ≤ 1.15 and |ρ| ≤ 0.5 give θφ²(1 + |ρ|) ≤ 4 and, below nine years, θφ(1 + |ρ|) < 4 (Gatheral and Jacquier
    2014, theorem 4.2). Calendar: θ rises, both wing slopes θφ(1 ± ρ)/2 rise and φ falls with maturity (Hendriks and Martini
    2019, proposition 3.1), because d ln θ / d ln T ≥ 0.5 for bounded factors while φ√θ and 1 ± ρ change by less than
    d ln T / 5.
    """

    name = "svi"

    def _shape(self, years: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        theta = self.atm_variance(years)
        near = 1.0 / (1.0 + np.maximum(np.asarray(years, np.float64), _SHORTEST) / _SKEW_DECAY)
        short = self.levels.skew_short + 0.12 * self.factors.skew
        long = self.levels.skew_long + 0.04 * self.factors.skew
        rho = long + (short - long) * near
        phi = self.levels.curvature * np.exp((0.04 + 0.12 * near) * self.factors.curvature) / np.sqrt(theta)
        return theta, np.asarray(rho), np.asarray(phi)

    def total_variance(self, k: npt.ArrayLike, years: npt.ArrayLike) -> FloatArray:
        """w at `k` and `years`."""
        theta, rho, phi = self._shape(years)
        x = phi * np.asarray(k, np.float64)
        return np.asarray(0.5 * theta * (1.0 + rho * x + np.sqrt((x + rho) ** 2 + 1.0 - rho**2)))

    def svi(self, years: float) -> SviSlice:
        """The slice's raw parameters."""
        theta, rho, phi = (float(x) for x in self._shape(years))
        root = math.sqrt(1.0 - rho**2)
        return SviSlice(0.5 * theta * root**2, 0.5 * theta * phi, rho, -rho / phi, root / phi)


_REGIME_WEIGHT = np.array([0.30, 0.50, 0.20])
_REGIME_SCORE = np.array([-1.2, 0.1, 1.3])
_SHOCK_WEIGHT = np.array([0.12, 0.74, 0.14])
_FLASH_WEIGHT = np.array([0.15, 0.85])


class MixtureTruth(SurfaceTruth):
    """S_T/F_T = D₁(T)·D₂(T)·exp(√V_I(T) Z − V_I(T)/2): a mixture of 18 lognormals, in convex order across maturities.

    The three factors are independent and each is a martingale in T. A volatility regime I is drawn once, and V_I is θ times
    a constant of the regime, which rises. D(T) = 1 + g(T) η_J with E η = 0 and g rising: keep J with probability
    g(T₁)/g(T₂), else draw it again; then E[D(T₂) | J] = D(T₁). A martingale's marginals rise in convex order, so calls on
    the forward measure rise with maturity at every moneyness; each marginal is a density, so no butterfly is negative.
    """

    name = "mixture"

    def _components(self, years: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        # Weights (18,), ln of means (n, 18) and deviations v (n, 18) at maturities (n,).
        theta = self.atm_variance(years)
        spread = 0.80 * np.exp(0.35 * self.factors.curvature)
        regime = np.exp(spread * _REGIME_SCORE)
        regime = 0.74 * regime / (_REGIME_WEIGHT @ regime)
        tilt = (self.levels.skew_long / -0.12) - 0.25 * self.factors.skew
        shock = np.array([-1.35 - 0.25 * tilt, 0.0, 1.35 - 0.35 * tilt])
        shock[1] = -(_SHOCK_WEIGHT[0] * shock[0] + _SHOCK_WEIGHT[2] * shock[2]) / _SHOCK_WEIGHT[1]
        down = -1.2 * (self.levels.skew_short / -0.2) * (1.0 - 0.7 * self.factors.skew)
        flash = np.array([down, -down * _FLASH_WEIGHT[0] / _FLASH_WEIGHT[1]])
        # Both g rise with maturity and stay below ½, so every value of D is positive; the flash saturates within weeks.
        slow_g = 0.5 * -np.expm1(-2.0 * np.sqrt(theta))
        fast_g = 0.5 * -np.expm1(-2.0 * np.sqrt(self.atm_variance(1.0 / (1.0 / years + 1.0 / _SKEW_DECAY))))
        weight = np.einsum("i,j,l->ijl", _REGIME_WEIGHT, _SHOCK_WEIGHT, _FLASH_WEIGHT).ravel()
        log_shock = np.log1p(slow_g[:, None] * shock)
        log_flash = np.log1p(fast_g[:, None] * flash)
        log_mean = np.broadcast_to(log_shock[:, None, :, None] + log_flash[:, None, None, :], (len(years), 3, 3, 2))
        deviation = np.broadcast_to(np.sqrt(theta[:, None] * regime)[:, :, None, None], log_mean.shape)
        return weight, log_mean.reshape(len(years), -1), deviation.reshape(len(years), -1)

    def otm_price(self, k: npt.ArrayLike, years: npt.ArrayLike) -> FloatArray:
        """Out-of-the-money option (call for k ≥ 0) in units of the forward, broadcast over k and years."""
        k, years = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(years, np.float64))
        unique, row = np.unique(np.maximum(years.ravel(), _SHORTEST), return_inverse=True)
        weight, log_mean, deviation = self._components(unique)
        mean = log_mean[row]
        x = k.reshape(-1, 1) - mean
        # Each component pays the same option; where that is in the money for the component, parity adds its intrinsic.
        is_call = k.reshape(-1, 1) >= 0
        intrinsic = np.where(is_call, np.maximum(-np.expm1(x), 0.0), np.maximum(np.expm1(x), 0.0))
        price = np.exp(mean) * (otm_price(x, deviation[row]) + intrinsic)
        return np.asarray((price @ weight).reshape(k.shape))

    def total_variance(self, k: npt.ArrayLike, years: npt.ArrayLike) -> FloatArray:
        """w whose Black price is the mixture's."""
        k, years = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(years, np.float64))
        start = np.sqrt(self.atm_variance(years) * (1.0 + 0.2 * np.abs(k) / np.sqrt(self.atm_variance(years))))
        # So far out that the price underflows, the smile has its limit: the widest component's variance.
        limit = self._components(np.array([1.0]))[2].max() ** 2 / self.atm_variance(1.0)
        w = implied_v(k, self.otm_price(k, years), start) ** 2
        return np.where(np.isnan(w), limit * self.atm_variance(years), w)


TRUTHS: dict[str, type[SurfaceTruth]] = {cls.name: cls for cls in (SviTruth, MixtureTruth)}
