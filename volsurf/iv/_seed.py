"""Start value of the implied-volatility solver."""

from __future__ import annotations

from volsurf._jit import helper
from volsurf.iv._coefficients import SEED_BRIDGE, SEED_NORMAL_P, SEED_NORMAL_Q, SEED_SINH
from volsurf.iv._elementary import CONTRACT, log_ratio_coarse

LARGEST_V = 2.7
LARGEST_H = 3.1
"""Domain on which the seed is right to 1.7e-4 up to 2.6 and 3, and within 1e-3 at these edges."""


@helper(fastmath=CONTRACT)
def seed_log(c: float, r1: float) -> float:
    """λ = ln(1 + r1/c): how many times the intrinsic distance exceeds the price."""
    return log_ratio_coarse(c + r1, c)


@helper(fastmath=CONTRACT)
def seed_inverse_variance(lam: float, c: float, r1: float, h: float) -> float:
    """1/v² of the price c in units of m = min(F, K); r1 = |F − K|/m, h = ln(1 + r1), lam of `seed_log`.

    The normal (Bachelier) model has a one-dimensional inversion: its variance in units of F·K is
    n² = (r1 + 2c)²/(1 + r1) · H(λ). N = n²/(2 sinh(h/2)/h)² carries it to log-moneyness, and 1/v² = 1/N − κ(N, h²) to
    the Black model, where κ is nearly constant (1/12 as v → 0).
    """
    p = SEED_NORMAL_P
    q = SEED_NORMAL_Q
    s = SEED_SINH
    k = SEED_BRIDGE
    h2 = h * h
    h2 = h2 if h2 < 9.0 else 9.0
    straddle = r1 + 2.0 * c
    sinh_squared = s[0] + h2 * (s[1] + h2 * (s[2] + h2 * (s[3] + h2 * s[4])))
    above = (straddle * straddle) * (p[0] + lam * (p[1] + lam * (p[2] + lam * p[3])))
    below = ((1.0 + r1) * sinh_squared) * (q[0] + lam * (q[1] + lam * (q[2] + lam * (q[3] + lam * q[4]))))
    # One division gives both N and 1/N.
    inverse = 1.0 / (above * below)
    n = (above * above) * inverse
    n = n if n < 5.0 else 5.0
    kappa = k[0] + h2 * (k[2] + h2 * k[5]) + n * (k[1] + h2 * k[3] + n * (k[4] + h2 * k[7] + n * k[6]))
    return (below * below) * inverse - kappa
