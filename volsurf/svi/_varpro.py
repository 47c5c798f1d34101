"""The linear half of the slice: (α, Û, L̂) for given (μ, ς).

For fixed (μ, ς) the scaled variance ŵ = α + ½e^ς(Û t + L̂/t) is linear in the other three, and the residual is exactly
√ŵ − q = (ŵ − q²)/(√ŵ + q). Freezing the denominator gives a 3×3 weighted least squares (variable projection).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper

Floats = npt.NDArray[np.float64]

FAST = {"contract", "reassoc"}
SLOPE_MIN = 1e-5


@helper()
def clamp(value: float, low: float, high: float) -> float:
    return low if value < low else high if value > high else value


@helper()
def copy(source: Floats, target: Floats) -> None:
    # A loop, because each slice assignment compiles numba's general one, for seconds in all.
    for i in range(source.size):
        target[i] = source[i]


@helper(fastmath=FAST)
def resolve_linear(
    quotes: Floats,
    x: Floats,
    centre: Floats,
    precision: Floats,
    slope_max: float,
    target: Floats,
) -> bool:
    """Fill target[0:3] with the best (α, Û, L̂) at target's (μ, ς), the robust weights taken at x. False if singular."""
    n = quotes.size // 5
    y, q, g, weight, side = quotes[:n], quotes[n : 2 * n], quotes[2 * n : 3 * n], quotes[3 * n : 4 * n], quotes[4 * n :]
    alpha, up, low, mu = x[0], x[1], x[2], x[3]
    scale = math.exp(x[4])
    half = 0.5 * scale
    inverse = 1.0 / scale
    to_mu = target[3]
    to_scale = math.exp(target[4])
    to_inverse = 1.0 / to_scale
    s0 = s1 = s2 = s11 = s22 = p0 = p1 = p2 = 0.0
    for j in range(n):
        z = (y[j] - mu) * inverse
        root = math.sqrt(1.0 + z * z)
        variance = alpha + half * (up * (root + z) + low * (root - z))
        variance = variance if variance > 1e-9 else 1e-9
        v = math.sqrt(variance)
        r = (v - q[j]) * g[j]
        active = weight[j] if r * side[j] >= 0.0 else 0.0
        size = abs(r)
        above = size if size > 1.0 else 1.0
        near = g[j] / (v + q[j])
        omega = active * near * near / above
        z = (y[j] - to_mu) * to_inverse
        root = math.sqrt(1.0 + z * z)
        t = root + z
        ti = root - z
        wt = omega * t
        wti = omega * ti
        square = q[j] * q[j]
        s0 += omega
        s1 += wt
        s2 += wti
        s11 += wt * t
        s22 += wti * ti
        p0 += omega * square
        p1 += wt * square
        p2 += wti * square
    return solve_linear(s0, s1, s2, s11, s22, p0, p1, p2, 0.5 * to_scale, centre, precision, slope_max, target)


@helper(fastmath=FAST)
def solve_linear(
    s0: float,
    s1: float,
    s2: float,
    s11: float,
    s22: float,
    p0: float,
    p1: float,
    p2: float,
    half: float,
    centre: Floats,
    precision: Floats,
    slope_max: float,
    target: Floats,
) -> bool:
    """Solve the 3×3 normal equations in (α, Û, L̂) with the prior; a slope outside its bounds is fixed there.

    The sums are of ω, ωt, ω/t, ωt², ω/t² and of ωq², ωq²t, ωq²/t; Σω·t·(1/t) is s0 again.
    """
    m00 = s0 + precision[0]
    m01 = half * s1
    m02 = half * s2
    m11 = half * half * s11 + precision[1]
    m12 = half * half * s0
    m22 = half * half * s22 + precision[2]
    f0 = p0 + precision[0] * centre[0]
    f1 = half * p1 + precision[1] * centre[1]
    f2 = half * p2 + precision[2] * centre[2]
    if not m00 > 0.0:
        return False
    # Eliminate α: what is left is 2×2 in the slopes.
    e11 = m11 - m01 * m01 / m00
    e12 = m12 - m01 * m02 / m00
    e22 = m22 - m02 * m02 / m00
    h1 = f1 - m01 * f0 / m00
    h2 = f2 - m02 * f0 / m00
    determinant = e11 * e22 - e12 * e12
    if not (e11 > 0.0 and e22 > 0.0 and determinant > 1e-14 * e11 * e22):
        return False
    up = (h1 * e22 - h2 * e12) / determinant
    low = (h2 * e11 - h1 * e12) / determinant
    up_fixed = clamp(up, SLOPE_MIN, slope_max)
    low_fixed = clamp(low, SLOPE_MIN, slope_max)
    if up_fixed != up and low_fixed != low:
        # Both outside: of the two edges take the one with the lower quadratic.
        low_at = clamp((h2 - e12 * up_fixed) / e22, SLOPE_MIN, slope_max)
        up_at = clamp((h1 - e12 * low_fixed) / e11, SLOPE_MIN, slope_max)
        first = quadratic(e11, e12, e22, h1, h2, up_fixed, low_at)
        second = quadratic(e11, e12, e22, h1, h2, up_at, low_fixed)
        if first <= second:
            up, low = up_fixed, low_at
        else:
            up, low = up_at, low_fixed
    elif up_fixed != up:
        up = up_fixed
        low = clamp((h2 - e12 * up) / e22, SLOPE_MIN, slope_max)
    elif low_fixed != low:
        low = low_fixed
        up = clamp((h1 - e12 * low) / e11, SLOPE_MIN, slope_max)
    target[0] = (f0 - m01 * up - m02 * low) / m00
    target[1] = up
    target[2] = low
    return True


@helper(fastmath=FAST)
def quadratic(e11: float, e12: float, e22: float, h1: float, h2: float, up: float, low: float) -> float:
    return 0.5 * (e11 * up * up + 2.0 * e12 * up * low + e22 * low * low) - h1 * up - h2 * low
