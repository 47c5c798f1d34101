"""What a fitted slice says of itself: misfit, outliers, error bars."""

from __future__ import annotations

import math

import numpy as np

from volsurf._jit import helper
from volsurf.svi._lm import solve_damped
from volsurf.svi._prepare import REJECTED, Bytes, Floats, Ints
from volsurf.svi._prior import fade
from volsurf.svi._varpro import clamp, copy

REJECT_BEYOND = 6.0
REJECT_SHARE = 0.2
"""If more quotes than this lie far from the curve, the curve is wrong and not the quotes: nothing is rejected."""

COST, RMS, INSIDE, QUOTES, REJECTIONS, AUTOCORRELATION, RUNS, NOISE = 0, 1, 2, 3, 4, 5, 6, 7
"""Columns of the statistics."""


@helper()
def fill_residuals(quotes: Floats, rows: Ints, x: Floats, residual: Floats) -> None:
    """(fit − quote)/error of every usable quote, rejected ones too, at its place in the caller's order."""
    n = quotes.size // 5
    scale = math.exp(x[4])
    for j in range(rows.size):
        z = (quotes[j] - x[3]) / scale
        root = math.sqrt(1.0 + z * z)
        variance = x[0] + 0.5 * scale * (x[1] * (root + z) + x[2] * (root - z))
        residual[rows[j]] = (math.sqrt(variance if variance > 1e-9 else 1e-9) - quotes[n + j]) * quotes[2 * n + j]


@helper()
def counted(quotes: Floats, j: int, r: float) -> float:
    """The residual as the objective sees it: 0 on the allowed side of a one-sided quote."""
    return r if r * quotes[quotes.size // 5 * 4 + j] >= 0.0 else 0.0


@helper()
def reject_outliers(quotes: Floats, rows: Ints, residual: Floats, use: Bytes) -> int:
    """Give weight 0 to the quotes more than six error bars away, unless they are too many. Returns how many."""
    n = quotes.size // 5
    far = 0
    for j in range(rows.size):
        if abs(counted(quotes, j, residual[rows[j]])) > REJECT_BEYOND:
            far += 1
    if far == 0 or far > REJECT_SHARE * rows.size:
        return 0
    for j in range(rows.size):
        if abs(counted(quotes, j, residual[rows[j]])) > REJECT_BEYOND:
            quotes[3 * n + j] = 0.0
            use[rows[j]] = REJECTED
    return far


@helper()
def describe(quotes: Floats, rows: Ints, residual: Floats, cost: float, out: Floats) -> None:
    """Statistics of the used quotes at a curve, whose objective is `cost`."""
    n = quotes.size // 5
    mass = squares = inside = mean = 0.0
    count = 0
    for j in range(rows.size):
        weight = quotes[3 * n + j]
        if weight == 0.0:
            continue
        r = counted(quotes, j, residual[rows[j]])
        mass += weight
        squares += weight * r * r
        if abs(r) <= 1.0:
            inside += weight
        if quotes[4 * n + j] == 0.0:
            mean += residual[rows[j]]
            count += 1
    mean /= count if count > 0 else 1
    lagged = spread = before = 0.0
    runs = 0
    for j in range(rows.size):
        if quotes[3 * n + j] > 0.0 and quotes[4 * n + j] == 0.0:
            r = residual[rows[j]] - mean
            if runs == 0 or (r >= 0.0) != (before >= 0.0):
                runs += 1
            lagged += r * before
            spread += r * r
            before = r
    out[COST] = cost
    out[RMS] = math.sqrt(squares / mass) if mass > 0.0 else math.nan
    out[INSIDE] = inside / mass if mass > 0.0 else math.nan
    out[QUOTES] = mass
    out[AUTOCORRELATION] = lagged / spread if spread > 0.0 else 0.0
    out[RUNS] = runs


@helper()
def measure(
    quotes: Floats, rows: Ints, residual: Floats, two_sided: float, system: Floats, out: Floats, covariance: Floats
) -> None:
    """Statistics of the used quotes and the covariance of the scaled coordinates.

    C = ŝ²A⁻¹·(1+ρ₁)/(1−ρ₁) with ŝ² = max(¼, ω̄·Σψ²/((n−5)·ψ̄'²)). The second is Huber's asymptotic variance (Huber 1981, §7.6) for
    A = ΣωJJᵀ, ψ the residual cut at ±1, ψ̄' the share within it. The last factor counts independent quotes: neighbouring residuals
    of long slices are alike (shape, not noise), ρ₁ is their lag-1 autocorrelation by strike. The floor of ¼ rises to 1 for thin
    slices, whose residuals say nothing of the noise.
    """
    describe(quotes, rows, residual, system[0], out)
    n = quotes.size // 5
    active = omegas = clipped = within = 0.0
    for j in range(rows.size):
        weight = quotes[3 * n + j]
        if weight == 0.0:
            continue
        r = counted(quotes, j, residual[rows[j]])
        size = abs(r)
        if r != 0.0 or quotes[4 * n + j] == 0.0:
            active += weight
            omegas += weight / (size if size > 1.0 else 1.0)
            clipped += weight * (r * r if size < 1.0 else 1.0)
            within += weight if size <= 1.0 else 0.0
    share = fade(two_sided)
    freedom = active - 5.0 if active > 6.0 else 1.0
    core = within / active if within > 0.2 * active else 0.2
    noise = omegas / (active if active > 0.0 else 1.0) * clipped / (freedom * core * core)
    floor = 0.25 + 0.75 * share
    noise = noise if noise > floor else floor
    rho = clamp(out[AUTOCORRELATION], 0.0, 0.9)
    noise *= (1.0 + rho) / (1.0 - rho)
    out[NOISE] = noise
    column = np.empty(21)
    copy(system, column)
    for i in range(5):
        for j in range(5):
            column[1 + j] = -1.0 if i == j else 0.0
        if not solve_damped(column, 0.0, covariance[i]):
            for j in range(5):
                covariance[i, j] = math.nan
        for j in range(5):
            covariance[i, j] *= noise
