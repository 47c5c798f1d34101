"""The passes for Black prices and greeks over one block of options; the rules of `_blocks` hold here too."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from volsurf._jit import helper
from volsurf.iv._blocks import (
    BLOCK,
    P1,
    P2,
    Q1,
    Q2,
    WORK,
    C,
    Column,
    Flags,
    H,
    S,
    V,
    mills,
    price_over_vega,
)
from volsurf.iv._elementary import CONTRACT, exp_minus, log_ratio
from volsurf.iv._mills import INVERSE_SQRT_2PI, SMALL


class Greeks(NamedTuple):
    """Derivatives of the premium `discount · B(forward, strike, years, vol)` with the discount factor held fixed.

    With B the undiscounted Black-76 price in USD, x = ln(F/K), v = σ√T, d1 = x/v + v/2, d2 = d1 − v and φ(d1) the normal
    density. Where vol or years is zero: delta is 0, ±½ (at the money) or ±1 and the others are 0.
    """

    delta: Column | float
    """∂/∂F, in units of the underlying: N(d1) for a call, N(d1) − 1 for a put. Premium-adjusted: see `black_greeks`."""
    gamma: Column | float
    """∂delta/∂F, per 1 USD: φ(d1)/(F v)."""
    vega: Column | float
    """∂/∂σ, per 1.00 of vol (100 vol points): F φ(d1) √T."""
    theta: Column | float
    """−∂/∂T, per year (divide by 365 for a day): −F φ(d1) σ/(2√T)."""
    vanna: Column | float
    """∂delta/∂σ, per 1.00 of vol: −φ(d1) d2/σ."""
    volga: Column | float
    """∂vega/∂σ, per 1.00 of vol squared: vega d1 d2/σ."""


GREEKS = len(Greeks._fields)

# Rows of `work` after those of the solver.
DENSITY = np.uint64(WORK)
DELTA = DENSITY + BLOCK * np.uint64(1)
GAMMA = DENSITY + BLOCK * np.uint64(2)
VEGA = DENSITY + BLOCK * np.uint64(3)
THETA = DENSITY + BLOCK * np.uint64(4)
VANNA = DENSITY + BLOCK * np.uint64(5)
VOLGA = DENSITY + BLOCK * np.uint64(6)
GREEKS_WORK = WORK + 7 * int(BLOCK)
"""Length of `work` where greeks are wanted."""

# Their ratio stays a double.
_SMALLEST_FORWARD = 1e-150
_LARGEST_FORWARD = 1e150
_LARGEST_TOTAL_VOL = 1e100
_SMALLEST_TOTAL_VOL = 1e-290


@helper(fastmath=CONTRACT)
def normalise_vol(
    forward: Column, strike: Column, years: Column, vol: Column, begin: np.uint64, n: np.uint64, work: Column
) -> None:
    """H = |ln(F/K)|, V = σ√T and S = 1/V; NaN where forward or strike is not positive, or vol or years negative."""
    for i in range(n):
        f = forward[begin + i]
        k = strike[begin + i]
        low = f if f < k else k
        high = k if f < k else f
        usable = (low > _SMALLEST_FORWARD) & (high < _LARGEST_FORWARD)
        work[H + i] = log_ratio(high, low) if usable else math.nan
    for i in range(n):
        total = vol[begin + i] * math.sqrt(years[begin + i])
        usable = (total >= 0.0) & (total < _LARGEST_TOTAL_VOL)
        work[V + i] = total if usable else math.nan
        work[S + i] = 1.0 / total


@helper(fastmath=CONTRACT)
def _density(n: np.uint64, work: Column) -> None:
    """φ(u)."""
    for i in range(n):
        u = work[H + i] * work[S + i] - 0.5 * work[V + i]
        work[DENSITY + i] = INVERSE_SQRT_2PI * exp_minus(0.5 * (u * u))


@helper(fastmath=CONTRACT)
def price_block(
    forward: Column,
    strike: Column,
    years: Column,
    vol: Column,
    is_call: Flags,
    begin: np.uint64,
    n: np.uint64,
    price: Column,
    work: Column,
) -> None:
    """Undiscounted prices of n options from `begin` on."""
    normalise_vol(forward, strike, years, vol, begin, n, work)
    mills(SMALL, n, work)
    # With a target of zero, the sign of what becomes of P2 says which side of the inflexion the option is on.
    for i in range(n):
        work[C + i] = 0.0
    price_over_vega(n, work)
    _density(n, work)
    for i in range(n):
        f = forward[begin + i]
        k = strike[begin + i]
        low = f if f < k else k
        # So far from the money that the density is zero, P and Q may have left the doubles.
        b = work[DENSITY + i] * (work[P1 + i] / work[Q1 + i])
        b = 0.0 if work[DENSITY + i] == 0.0 else b
        time_value = low * (1.0 - b if work[P2 + i] < 0.0 else b)
        # NaN stays NaN: the comparison is false for it.
        time_value = 0.0 if work[V + i] < _SMALLEST_TOTAL_VOL else time_value
        distance = f - k if is_call[begin + i] else k - f
        price[begin + i] = time_value + (distance if distance > 0.0 else 0.0)


@helper(fastmath=CONTRACT)
def _delta(
    forward: Column, strike: Column, is_call: Flags, adjusted: bool, begin: np.uint64, n: np.uint64, work: Column
) -> None:
    """N(±d1), or (K/F) N(±d2) premium-adjusted; (d1, d2) = (z, u) where F > K and (−u, −z) elsewhere."""
    for i in range(n):
        f = forward[begin + i]
        k = strike[begin + i]
        above = f > k
        ratio = k / f
        u = work[H + i] * work[S + i] - 0.5 * work[V + i]
        far = work[DENSITY + i] == 0.0
        tail_u = work[DENSITY + i] * (work[P1 + i] / work[Q1 + i])
        tail_z = (work[DENSITY + i] * (ratio if above else f / k)) * (work[P2 + i] / work[Q2 + i])
        # So far from the money P and Q may have left the doubles.
        tail_u = 0.0 if far else tail_u
        tail_z = 0.0 if far else tail_z
        normal_u = tail_u if u <= 0.0 else 1.0 - tail_u
        normal_minus_u = 1.0 - tail_u if u <= 0.0 else tail_u
        plain_call = 1.0 - tail_z if above else normal_minus_u
        plain_put = tail_z if above else normal_u
        adjusted_call = ratio * (normal_u if above else tail_z)
        adjusted_put = ratio * (normal_minus_u if above else 1.0 - tail_z)
        call = adjusted_call if adjusted else plain_call
        put = adjusted_put if adjusted else plain_put
        step = 1.0 if above else (0.5 if f == k else 0.0)
        step = step if is_call[begin + i] else step - 1.0
        at_expiry = ratio * step if adjusted else step
        alive = call if is_call[begin + i] else -put
        work[DELTA + i] = at_expiry if work[V + i] < _SMALLEST_TOTAL_VOL else alive


@helper(fastmath=CONTRACT)
def _others(
    forward: Column,
    strike: Column,
    years: Column,
    vol: Column,
    adjusted: bool,
    begin: np.uint64,
    n: np.uint64,
    work: Column,
) -> None:
    """Gamma to volga. F φ(d1) = min(F, K) φ(u) on either side of the money, so one exponential serves all of them."""
    for i in range(n):
        f = forward[begin + i]
        k = strike[begin + i]
        sigma = vol[begin + i]
        v = work[V + i]
        s = work[S + i]
        low = f if f < k else k
        expired = v < _SMALLEST_TOTAL_VOL
        root = math.sqrt(years[begin + i])
        inverse = 1.0 / f
        u = work[H + i] * s - 0.5 * v
        z = work[H + i] * s + 0.5 * v
        weight = low * work[DENSITY + i]
        d2 = u if f > k else -z
        vega = weight * root
        gamma = (weight * inverse) * (inverse * s)
        vanna = -(weight * inverse) * (d2 * (root * s))
        gamma = gamma - work[DELTA + i] * inverse if adjusted else gamma
        vanna = vanna - vega * inverse if adjusted else vanna
        work[GAMMA + i] = 0.0 if expired else gamma
        work[VEGA + i] = 0.0 if expired else vega
        work[THETA + i] = 0.0 if expired else (-0.5 * weight) * (sigma * sigma * s)
        work[VANNA + i] = 0.0 if expired else vanna
        work[VOLGA + i] = 0.0 if expired else vega * ((u * z) * (root * s))


@helper(fastmath=CONTRACT)
def greeks_block(
    forward: Column,
    strike: Column,
    years: Column,
    vol: Column,
    is_call: Flags,
    adjusted: bool,
    begin: np.uint64,
    n: np.uint64,
    work: Column,
) -> None:
    """Rows DELTA to VOLGA of n options from `begin` on; `adjusted`: delta, gamma and vanna premium-adjusted."""
    normalise_vol(forward, strike, years, vol, begin, n, work)
    mills(0.0, n, work)
    _density(n, work)
    _delta(forward, strike, is_call, adjusted, begin, n, work)
    _others(forward, strike, years, vol, adjusted, begin, n, work)
