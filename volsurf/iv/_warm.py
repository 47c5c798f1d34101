"""The passes of a warm step: what `_blocks` does from a seed, from a vol that is nearly right already.

They leave out the series for small v, so a warm vol is good to 2e-15 in v = σ√T and not to 1e-14 of itself: an hour before
expiry a vol is off by 2e-13. The Mills ratio is a shorter fraction on a shorter range. And the passes are fewer and longer
than the cold ones, which measures better here.
"""

from __future__ import annotations

import math

import numpy as np

from volsurf._jit import helper
from volsurf.iv._blocks import CERTAIN, P1, P2, Q1, SMALLEST_PRICE, C, Column, Flags, H, S, V, normalised
from volsurf.iv._coefficients import MILLS_SHORT_P, MILLS_SHORT_Q
from volsurf.iv._elementary import CONTRACT
from volsurf.iv._householder import CERTIFIED_WARM, householder

LARGEST_Z = 16.0
"""Range of the shorter rational for the Mills ratio; a price beyond is below 1e-56 of the forward."""


@helper(fastmath=CONTRACT)
def _short_numerator(z: float) -> float:
    p = MILLS_SHORT_P
    high = p[4] + z * (p[5] + z * (p[6] + z * (p[7] + z * p[8])))
    return p[0] + z * (p[1] + z * (p[2] + z * (p[3] + z * high)))


@helper(fastmath=CONTRACT)
def _short_denominator(z: float) -> float:
    q = MILLS_SHORT_Q
    high = q[4] + z * (q[5] + z * (q[6] + z * (q[7] + z * (q[8] + z * q[9]))))
    return q[0] + z * (q[1] + z * (q[2] + z * (q[3] + z * high)))


@helper(fastmath=CONTRACT)
def begin_warm(
    price: Column,
    forward: Column,
    strike: Column,
    years: Column,
    is_call: Flags,
    guess: Column,
    begin: np.uint64,
    n: np.uint64,
    work: Column,
) -> None:
    """Rows C and H, V = guess √T and S = 1/V."""
    for i in range(n):
        j = begin + i
        c, h, _ = normalised(price[j], forward[j], strike[j], is_call[j])
        work[C + i] = c
        work[H + i] = h
        total = guess[j] * math.sqrt(years[j])
        work[V + i] = total
        work[S + i] = 1.0 / total


@helper(fastmath=CONTRACT)
def price_over_vega_warm(n: np.uint64, work: Column) -> None:
    """P1/Q1 = |b/b'| and P2 = the target b: c, or −(1 − c) above the inflexion."""
    for i in range(n):
        a = work[H + i] * work[S + i]
        t = 0.5 * work[V + i]
        low = a > t
        near = abs(a - t)
        far = a + t
        q1 = _short_denominator(near)
        q2 = _short_denominator(far)
        product = _short_numerator(near) * q2
        cross = _short_numerator(far) * q1
        work[P1 + i] = product - cross if low else product + cross
        work[Q1 + i] = q1 * q2
        work[P2 + i] = work[C + i] if low else work[C + i] - 1.0


@helper(fastmath=CONTRACT)
def finish_warm(guess: Column, begin: np.uint64, n: np.uint64, work: Column, vol: Column) -> None:
    """vol = guess + e guess; CERTAIN is 1.0 where the step certifies it, else 0.0.

    A guess or years that is no positive finite number has made the size NaN.
    """
    for i in range(n):
        e, size = householder(work[P1 + i], work[Q1 + i], work[H + i], work[V + i], work[S + i])
        c = work[C + i]
        sigma = guess[begin + i] + guess[begin + i] * e
        vol[begin + i] = sigma
        work[P1 + i] = e
        work[Q1 + i] = size
        z = work[H + i] * work[S + i] + 0.5 * work[V + i]
        inside = (c > SMALLEST_PRICE) & (c < 1.0) & (sigma > 0.0) & (z < LARGEST_Z)
        work[CERTAIN + i] = 1.0 if inside & (size < CERTIFIED_WARM) else 0.0
