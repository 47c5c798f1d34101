"""Mills ratio M(z) = Φ(−z)/φ(z), and what the Black formula makes of it.

With v = σ√T, h = |ln(F/K)|, a = h/v, t = v/2, u = a − t and z = a + t, the out-of-the-money price over the smaller of
forward and strike is c = Φ(−u) − e^h Φ(−z), and its derivative is c' = dc/dv = φ(u) = e^h φ(z). So, without any exponential,

    c / c'       =  M(u) − M(z)          used for u > 0
    (1 − c) / c' =  M(−u) + M(z)         used for u ≤ 0
"""

from __future__ import annotations

from volsurf._jit import helper
from volsurf.iv._coefficients import MILLS_P, MILLS_Q
from volsurf.iv._elementary import CONTRACT

SMALL = 0.2
"""Where both v and h are below this, M(u) − M(z) cancels and a series takes its place.

The relative error of v is the rounding of M over max(v, h): seven roundings at worst on the other side of the limit.
"""

INVERSE_SQRT_2PI = 0.3989422804014327
HALF_LOG_2PI = 0.9189385332046728


@helper(fastmath=CONTRACT)
def mills_numerator(z: float) -> float:
    """P(z) of M(z) = P(z)/Q(z); all coefficients are positive, so nothing cancels."""
    p = MILLS_P
    return p[0] + z * (
        p[1] + z * (p[2] + z * (p[3] + z * (p[4] + z * (p[5] + z * (p[6] + z * (p[7] + z * (p[8] + z * p[9])))))))
    )


@helper(fastmath=CONTRACT)
def mills_denominator(z: float) -> float:
    """Q(z) of M(z) = P(z)/Q(z): to 8e-17 on [0, 48], to 1e-12 beyond, where no double holds a price any more."""
    q = MILLS_Q
    high = q[5] + z * (q[6] + z * (q[7] + z * (q[8] + z * (q[9] + z * q[10]))))
    return q[0] + z * (q[1] + z * (q[2] + z * (q[3] + z * (q[4] + z * high))))


@helper(fastmath=CONTRACT)
def small_price_over_vega(a: float, p: float, q: float, h: float, v: float) -> float:
    """Q(a) · c/c' for v, h < 0.2, where p and q are P and Q at a.

    M(a − t) − M(a + t) = v e^(T/2) [ S1 D − T S3 + 3 T² S5 − 15 T³ S7 + … ] with T = t², G = (at)² = h²/4,
    D = 1 − a M(a) and S_m(G) = Σ_j G^j/(2j+m)!, so that S_m = 1/m! + G S_(m+2). (Write M as its integral and expand
    e^(−r²/2) under it.) D loses a factor a² to cancellation, but v moves by c/c' times the relative error, and c/c' is
    about v/a²: that loss does not reach v.
    """
    g = 0.25 * (h * h)
    t2 = 0.25 * (v * v)
    s7 = 1.0 / 5040.0 + g * (1.0 / 362880.0)
    s5 = 1.0 / 120.0 + g * s7
    s3 = 1.0 / 6.0 + g * s5
    s1 = 1.0 + g * s3
    w9 = 1.0 / 362880.0 - t2 * (9.0 / 39916800.0)
    w7 = s7 - (7.0 * t2) * w9
    w5 = s5 - (5.0 * t2) * w7
    w3 = s3 - (3.0 * t2) * w5
    growth = 1.0 + t2 * (1 / 2 + t2 * (1 / 8 + t2 * (1 / 48 + t2 * (1 / 384 + t2 * (1 / 3840)))))
    return (growth * v) * (s1 * (q - a * p) - (t2 * q) * w3)
