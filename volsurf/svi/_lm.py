"""Levenberg–Marquardt on one slice: the fused pass, the 5×5 solve, the loop.

Everything here lives in the slice's own scaled coordinates x = (α, Û, L̂, μ, ς), in which all expiries look alike:

    θ = T·σ_ATM²,  s = √θ,  y = k/s,     a = θα,  U = b(1+ρ) = sÛ,  L = b(1−ρ) = sL̂,  m = sμ,  σ = s·e^ς
    ŵ(y) = w/θ = α + ½e^ς (Û t + L̂/t),   t = z + √(1+z²),  1/t = √(1+z²) − z,  z = (y−μ)/e^ς

The objective, with v = √ŵ, q = σ_quote/σ_ATM, g = σ_ATM/error and multiplicities (weights) n_j:

    J(x) = Σ n_j·ρ(r_j) + ½ (x−x̄)ᵀΛ(x−x̄),    r_j = (v(y_j) − q_j)·g_j,    ρ = Huber with c = 1

A bid-only quote (side −1) counts only where the curve is below it, an ask-only quote (side +1) only where it is above.

Reassociation is allowed in these kernels, so that the sums use the vector units; the certificates never allow it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper
from volsurf.svi._varpro import FAST, SLOPE_MIN, clamp, copy, resolve_linear

Floats = npt.NDArray[np.float64]

MU_MAX = 12.0
VARSIGMA_MIN = math.log(0.005)
VARSIGMA_MAX = math.log(30.0)
ALPHA_MARGIN = 1e-4
"""The box keeps the smallest scaled variance, α + e^ς√(ÛL̂), above this: below it √ŵ has no useful derivative."""

DAMPING_START = 1e-3
DAMPING_MAX = 1e8
GOOD_STEP = 0.25
"""A step that achieves less than this share of the predicted decrease sends for variable projection."""


@helper(fastmath=FAST)
def accumulate(quotes: Floats, x: Floats, out: Floats) -> None:
    """One pass over the quotes: out = cost, gradient (5), upper triangle of the Gauss–Newton matrix (15, by rows)."""
    n = quotes.size // 5
    y, q, g, weight, side = quotes[:n], quotes[n : 2 * n], quotes[2 * n : 3 * n], quotes[3 * n : 4 * n], quotes[4 * n :]
    alpha, up, low, mu = x[0], x[1], x[2], x[3]
    scale = math.exp(x[4])
    half = 0.5 * scale
    inverse = 1.0 / scale
    curvature = half * (up + low)
    cost = 0.0
    b0 = b1 = b2 = b3 = b4 = 0.0
    a00 = a01 = a02 = a03 = a04 = a11 = a12 = a13 = a14 = a22 = a23 = a24 = a33 = a34 = a44 = 0.0
    for j in range(n):
        z = (y[j] - mu) * inverse
        root = math.sqrt(1.0 + z * z)
        ut = up * (root + z)
        lt = low * (root - z)
        variance = alpha + half * (ut + lt)
        variance = variance if variance > 1e-9 else 1e-9
        v = math.sqrt(variance)
        r = (v - q[j]) * g[j]
        active = weight[j] if r * side[j] >= 0.0 else 0.0
        size = abs(r)
        above = size if size > 1.0 else 1.0
        below = size if size < 1.0 else 1.0
        cost += active * below * (size - 0.5 * below)
        omega = active / above
        both = 1.0 / (root * v)
        d0 = 0.5 * g[j] * root * both
        dr = d0 * v * both
        d1 = d0 * half * (root + z)
        d2 = d0 * half * (root - z)
        d3 = -0.5 * dr * (ut - lt)
        d4 = dr * curvature
        c0 = omega * d0
        c1 = omega * d1
        c2 = omega * d2
        c3 = omega * d3
        c4 = omega * d4
        b0 += c0 * r
        b1 += c1 * r
        b2 += c2 * r
        b3 += c3 * r
        b4 += c4 * r
        a00 += c0 * d0
        a01 += c0 * d1
        a02 += c0 * d2
        a03 += c0 * d3
        a04 += c0 * d4
        a11 += c1 * d1
        a12 += c1 * d2
        a13 += c1 * d3
        a14 += c1 * d4
        a22 += c2 * d2
        a23 += c2 * d3
        a24 += c2 * d4
        a33 += c3 * d3
        a34 += c3 * d4
        a44 += c4 * d4
    out[0] = cost
    out[1], out[2], out[3], out[4], out[5] = b0, b1, b2, b3, b4
    out[6], out[7], out[8], out[9], out[10] = a00, a01, a02, a03, a04
    out[11], out[12], out[13], out[14] = a11, a12, a13, a14
    out[15], out[16], out[17] = a22, a23, a24
    out[18], out[19], out[20] = a33, a34, a44


@helper(fastmath=FAST)
def evaluate(
    quotes: Floats,
    x: Floats,
    centre: Floats,
    precision: Floats,
    out: Floats,
) -> None:
    """`accumulate`, with the prior ½(x−x̄)ᵀΛ(x−x̄) added."""
    accumulate(quotes, x, out)
    diagonal = 6
    for i in range(5):
        away = x[i] - centre[i]
        out[0] += 0.5 * precision[i] * away * away
        out[1 + i] += precision[i] * away
        out[diagonal] += precision[i]
        diagonal += 5 - i


@helper(fastmath=FAST)
def clip(x: Floats, slope_max: float) -> None:
    """Move x into the box, the variance floor last because it depends on the rest."""
    x[1] = clamp(x[1], SLOPE_MIN, slope_max)
    x[2] = clamp(x[2], SLOPE_MIN, slope_max)
    x[3] = clamp(x[3], -MU_MAX, MU_MAX)
    x[4] = clamp(x[4], VARSIGMA_MIN, VARSIGMA_MAX)
    floor = ALPHA_MARGIN - math.exp(x[4]) * math.sqrt(x[1] * x[2])
    x[0] = x[0] if x[0] > floor else floor


@helper(fastmath=FAST)
def bounds_hit(x: Floats, slope_max: float) -> int:
    """Bit i is set where coordinate i stands on its bound."""
    bits = 0
    if x[0] <= ALPHA_MARGIN - math.exp(x[4]) * math.sqrt(x[1] * x[2]) + 1e-12:
        bits |= 1
    if x[1] <= SLOPE_MIN or x[1] >= slope_max:
        bits |= 2
    if x[2] <= SLOPE_MIN or x[2] >= slope_max:
        bits |= 4
    if abs(x[3]) >= MU_MAX:
        bits |= 8
    if x[4] <= VARSIGMA_MIN or x[4] >= VARSIGMA_MAX:
        bits |= 16
    return bits


@helper(fastmath=FAST)
def solve_damped(system: Floats, damping: float, step: Floats) -> bool:
    """step = −(A + damping·diag A)⁻¹ gradient by LDLᵀ; False where the matrix is not positive definite."""
    up = 1.0 + damping
    d0 = system[6] * up
    l10, l20, l30, l40 = system[7] / d0, system[8] / d0, system[9] / d0, system[10] / d0
    d1 = system[11] * up - l10 * system[7]
    u12 = system[12] - l10 * system[8]
    u13 = system[13] - l10 * system[9]
    u14 = system[14] - l10 * system[10]
    l21, l31, l41 = u12 / d1, u13 / d1, u14 / d1
    d2 = system[15] * up - l20 * system[8] - l21 * u12
    u23 = system[16] - l20 * system[9] - l21 * u13
    u24 = system[17] - l20 * system[10] - l21 * u14
    l32, l42 = u23 / d2, u24 / d2
    d3 = system[18] * up - l30 * system[9] - l31 * u13 - l32 * u23
    u34 = system[19] - l30 * system[10] - l31 * u14 - l32 * u24
    l43 = u34 / d3
    d4 = system[20] * up - l40 * system[10] - l41 * u14 - l42 * u24 - l43 * u34
    if not (d0 > 0.0 and d1 > 0.0 and d2 > 0.0 and d3 > 0.0 and d4 > 0.0):
        return False
    f0 = -system[1]
    f1 = -system[2] - l10 * f0
    f2 = -system[3] - l20 * f0 - l21 * f1
    f3 = -system[4] - l30 * f0 - l31 * f1 - l32 * f2
    f4 = -system[5] - l40 * f0 - l41 * f1 - l42 * f2 - l43 * f3
    s4 = f4 / d4
    s3 = f3 / d3 - l43 * s4
    s2 = f2 / d2 - l32 * s3 - l42 * s4
    s1 = f1 / d1 - l21 * s2 - l31 * s3 - l41 * s4
    step[0] = f0 / d0 - l10 * s1 - l20 * s2 - l30 * s3 - l40 * s4
    step[1], step[2], step[3], step[4] = s1, s2, s3, s4
    return True


@helper()
def freeze(system: Floats, bits: int, x: Floats) -> None:
    """Take out of the system the coordinates that stand on a bound and want to leave the box."""
    for i in range(5):
        if not bits >> i & 1:
            continue
        wanted = -system[1 + i]
        at_lower = i == 0 or x[i] < 0.0 or (i < 3 and x[i] <= SLOPE_MIN)
        if (at_lower and wanted < 0.0) or (not at_lower and wanted > 0.0):
            system[1 + i] = 0.0
            position = 6
            for row in range(5):
                for column in range(row, 5):
                    if (row == i) != (column == i):
                        system[position] = 0.0
                    position += 1


@helper()
def minimise(
    quotes: Floats,
    x: Floats,
    centre: Floats,
    precision: Floats,
    slope_max: float,
    tolerance: float,
    max_passes: int,
    system: Floats,
    work: Floats,
) -> tuple[int, bool]:
    """Minimise J from x, in place. Returns the fused passes used and whether it converged within `max_passes`.

    Whenever a step brings less than a quarter of what the quadratic model promised (or is rejected), only (μ, ς) are moved
    and (α, Û, L̂), in which ŵ is linear, are solved for afresh; the better trial is kept. Without it 1–3 % of slices stall in
    the valley where the four shape parameters trade against each other.

    Args:
        quotes: (5n,) the columns y, q, g, weight and side one after the other; see `scale_rows`.
        x: (5,) start, and the result.
        system: (21,) cost, gradient and matrix at the result.
        work: (5, 21) scratch.
    """
    trial, other, step = work[0, :5], work[1, :5], work[2, :5]
    at_trial, at_other = work[3], work[4]
    clip(x, slope_max)
    evaluate(quotes, x, centre, precision, system)
    passes = 1
    damping = DAMPING_START
    while passes < max_passes:
        cost = system[0]
        bits = bounds_hit(x, slope_max)
        if bits:
            copy(system, at_other)
            freeze(at_other, bits, x)
            solved = solve_damped(at_other, damping, step)
        else:
            solved = solve_damped(system, damping, step)
        if not solved:
            damping = 10.0 * damping + 1e-8
            if damping > DAMPING_MAX:
                return passes, False
            continue
        predicted = 0.0
        for i in range(5):
            predicted -= 0.5 * step[i] * system[1 + i]
        small = tolerance * (1.0 + cost)
        if predicted < small:
            return passes, True
        for i in range(5):
            trial[i] = x[i] + step[i]
        clip(trial, slope_max)
        evaluate(quotes, trial, centre, precision, at_trial)
        passes += 1
        if not cost - at_trial[0] >= GOOD_STEP * predicted:
            other[3] = clamp(x[3] + clamp(step[3], -1.5, 1.5), -MU_MAX, MU_MAX)
            other[4] = clamp(x[4] + clamp(step[4], -1.0, 1.0), VARSIGMA_MIN, VARSIGMA_MAX)
            if resolve_linear(quotes, x, centre, precision, slope_max, other):
                clip(other, slope_max)
                evaluate(quotes, other, centre, precision, at_other)
                passes += 1
                if not at_trial[0] <= at_other[0]:
                    copy(other, trial)
                    copy(at_other, at_trial)
        decrease = cost - at_trial[0]
        if decrease > 0.0:
            copy(trial, x)
            copy(at_trial, system)
            if decrease < small:
                return passes, True
            if decrease >= GOOD_STEP * predicted:
                damping *= 0.1
        else:
            damping *= 10.0
            if damping > DAMPING_MAX:
                return passes, True
    return passes, False
