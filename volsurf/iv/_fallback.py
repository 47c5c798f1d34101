"""The solver for one option that the block passes do not certify: a bracketed iteration that always ends."""

from __future__ import annotations

import math

from volsurf._jit import helper
from volsurf.iv._elementary import CONTRACT
from volsurf.iv._householder import CERTIFIED, householder
from volsurf.iv._mills import (
    HALF_LOG_2PI,
    SMALL,
    mills_denominator,
    mills_numerator,
    small_price_over_vega,
)

OK = 0
AT_INTRINSIC = 1
BELOW_INTRINSIC = 2
ABOVE_MAXIMUM = 3
INVALID_INPUT = 4

_MOST_STEPS = 100
"""Never reached: of five million random options most took 2 and the slowest 25."""


@helper(fastmath=CONTRACT)
def scalar_step(c: float, complement: float, h: float, v: float) -> tuple[float, float, float, bool]:
    """Relative correction of v, its size, the Newton correction alone, and whether v is too large."""
    s = 1.0 / v
    a = h * s
    t = 0.5 * v
    u = a - t
    small = v < SMALL and h < SMALL
    near = a if small else abs(u)
    far = a + t
    p1 = mills_numerator(near)
    q1 = mills_denominator(near)
    if small:
        rho = small_price_over_vega(near, p1, q1, h, v) / q1
        low = True
    else:
        low = u > 0.0
        m2 = mills_numerator(far) / mills_denominator(far)
        rho = p1 / q1 - m2 if low else p1 / q1 + m2
    d = 0.5 * (u * u) + HALF_LOG_2PI - math.log(rho) + math.log(c if low else complement)
    if not low:
        rho = -rho
    e, size = householder(d, rho, h, v, s)
    return e, size, rho * s * d, rho * d < 0.0


@helper(fastmath=CONTRACT)
def far_start(log_tail: float, c: float, h: float) -> float:
    """A v from which two steps nearly always do, anywhere outside the seed's domain; log_tail = −2 ln min(c, 1 − c)."""
    # Above one half: 1 − c ≈ Φ(−y) with y = t − a from the crudest tail bound, and t = a + y with a = h/(2t).
    y = math.sqrt(max(log_tail - 1.0, 0.1))
    above = y + math.sqrt(y * y + 2.0 * h)
    # Below: c < e^(−a²/2) bounds v from below, far below the inflexion √(2h) where c is not small.
    below = max(min(h / math.sqrt(log_tail), math.sqrt(2.0 * h)), 2.5 * c)
    return above if c > 0.5 else below


@helper(fastmath=CONTRACT)
def scalar_solve(c: float, complement: float, h: float, start: float) -> float:
    """v of the price c in (0, 1); complement = 1 − c, to its own precision. A start that is no number is ignored.

    Steps of fifth order from the start, inside a bracket that the sign of the residual narrows; a step that leaves it is
    replaced by Newton's, then by the middle. It ends only on a step that certifies itself.
    """
    v = start if 0.0 < start < math.inf else far_start(-2.0 * math.log(min(c, complement)), c, h)
    low = 0.0
    high = math.inf
    for _ in range(_MOST_STEPS):
        e, size, newton, too_large = scalar_step(c, complement, h, v)
        if size < CERTIFIED:
            return v + v * e
        if too_large:
            high = min(high, v)
        else:
            low = max(low, v)
        candidate = v + v * e
        if not low < candidate < high:
            candidate = v + v * newton
            if not low < candidate < high:
                if high == math.inf:
                    candidate = 2.0 * v
                elif low == 0.0:
                    candidate = 0.5 * v
                else:
                    candidate = math.sqrt(low * high)
        v = candidate
    return v


@helper(fastmath=CONTRACT)
def solve_one(
    price: float, forward: float, strike: float, years: float, is_call: bool, start: float
) -> tuple[float, int]:
    """Vol and status of one option whatever its input; `start` is a v = σ√T to begin at, or NaN."""
    # Written so that a NaN anywhere fails.
    usable = 0.0 < forward < math.inf and 0.0 < strike < math.inf and 0.0 < years < math.inf
    if not (usable and -math.inf < price < math.inf):
        return math.nan, INVALID_INPUT
    low = min(forward, strike)
    high = max(forward, strike)
    distance = high - low
    value = price - distance if (forward > strike) == is_call else price
    if value < 0.0:
        return math.nan, BELOW_INTRINSIC
    if value == 0.0:
        return 0.0, AT_INTRINSIC
    if value >= low:
        return math.nan, ABOVE_MAXIMUM
    c = value / low
    if distance < low:
        h = math.log1p(distance / low)
    else:
        h = math.log(high) - math.log(low)
    if c == 0.0:
        # Less than the smallest double even in units of the forward: there is no vol in it.
        return 0.0, AT_INTRINSIC
    return scalar_solve(c, (low - value) / low, h, start) / math.sqrt(years), OK
