"""Butterfly arbitrage of SVI slices, decided on the whole real line.

With t = x + sqrt(1 + x^2), x = (k - m)/sigma, everything in Durrleman's g is rational in t, and its numerator is a
polynomial of degree ten. A slice is free of butterfly arbitrage exactly when both wing slopes are below 2 (Lee 2004), total
variance is positive and that polynomial is >= 0 for all t > 0. In the scale-free numbers

    p+ = 1 + rho,  p- = 1 - rho,  A = 2a/(b sigma),  c = m/sigma,  r = sigma/b,  s = b sigma

    p(t) = p+ t^2 + A t + p-                                     w = b sigma p / (2t)
    v(t) = p+ t^2 - p-                                           w' = b v / Q,  Q = t^2 + 1
    D(t) = p+ t^4 + (2A - 2c p+) t^3 + 6 t^2 + (2A + 2c p-) t + p-        (= 2pQ - Kv,  k = sigma K/(2t); uses p+ + p- = 2)

    G(t) = [4r D^2 - v^2 p (s p + 8t)] Q + 64 t^3 p^2  =  16 sigma/b p^2 Q^3 g(k(t))

The published doubles (a, b, rho, m, sigma) are what is certified: a rounded U = b (1 + rho) never enters G, each of the six
numbers above is their function within two roundings, and the error bound counts those like every other rounding. g is equation
2.1 of Gatheral and Jacquier (2014); slopes and positive variance are what the limits in their lemma 2.2 come to for SVI.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import ensure_compiled, helper, kernel
from volsurf.svi._approach import SCAN_SHAPE, lowest_g
from volsurf.svi._bernstein import (
    COEFFICIENT_ERROR,
    DENSITY,
    EVALUATION_ERROR,
    HOLDS,
    INVALID,
    LEFT_END,
    LEFT_SLOPE,
    MAX_DEPTH,
    MAX_NODES,
    NOT_A_SLICE,
    NOT_FINITE,
    PROVED,
    RIGHT_SLOPE,
    ROUNDING,
    SCALE,
    UNDECIDED,
    VARIANCE,
    VIOLATED,
    WIDTH,
    WORK_LIMIT,
    WORK_SHAPE,
    asinh_exponential,
    halve,
    horner,
    in_scale,
    in_scale_or_zero,
    lowest,
    power_of_two_near,
)
from volsurf.svi.certificate import Certificate, Condition, Verdict
from volsurf.svi.params import RawSVI

__all__ = ["Certificate", "Condition", "Verdict", "certify_butterfly", "certify_slice", "check_butterfly"]

Array = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.int8]
Outcome = tuple[int, int, float, float, int]
"""Verdict, condition, k, value there, nodes examined."""

_DEGREE = 10
_INVERSE_BINOMIAL = tuple(1.0 / math.comb(_DEGREE, i) for i in range(_DEGREE + 1))
_NEAR_TWO = 2.0 - 2.0**-50
"""A computed slope below this is below 2 exactly: b (1 + rho) carries two roundings, 4 u."""

_SCAN_ROUNDING = 1e-12
"""Bound on the rounding of g by the plain formula, near the smile."""


def check_butterfly(svi: RawSVI) -> Certificate:
    """Certificate, in the shape of `svi`, that each slice is free of butterfly arbitrage at every strike, or where it is not.

    It never raises for what a slice holds: NaN, slopes of 2 and more and negative variance are verdicts.
    """
    ensure_compiled("svi")
    # A copy, because numba would compile the kernel afresh, for 10 s, for the read-only arrays of a RawSVI.
    a, b, rho, m, sigma = np.array([svi.a, svi.b, svi.rho, svi.m, svi.sigma]).reshape(5, -1)
    return Certificate.of("butterfly", certify_butterfly(a, b, rho, m, sigma, True), svi.shape)


@helper()
def _coefficients(
    work: Array, row: int, right: float, left: float, level: float, centre: float, r: float, s: float, sign: float
) -> None:
    """Write G's eleven coefficients into `row` (sign = -1), or with |A|, |c| and sign = +1 their bounds cbar.

    Longest chain of roundings, in brackets the bound in u: D (4), D^2 (13), 4r D^2 (15), + v^2 p (s p + 8t) (16), times Q (17),
    + 64 t^3 p^2 (18); the caller's subtraction and division by the binomial make it 21.
    """
    d0 = left
    d1 = 2.0 * level + 2.0 * centre * left
    d2 = 6.0
    d3 = 2.0 * level + sign * (2.0 * centre * right)
    d4 = right
    # v^2 p, in which the cancellations v^2 = (p+ t^2 - p-)^2 would bring are multiplied out.
    f0 = left * left * left
    f1 = left * left * level
    f2 = sign * (right * left * left)
    f3 = sign * (2.0 * right * left * level)
    f4 = sign * (right * right * left)
    f5 = right * right * level
    f6 = right * right * right
    h0 = s * left
    h1 = s * level + 8.0
    h2 = s * right
    r4 = 4.0 * r
    n0 = r4 * (d0 * d0) + sign * (f0 * h0)
    n1 = r4 * (2.0 * d0 * d1) + sign * (f0 * h1 + f1 * h0)
    n2 = r4 * (d1 * d1 + 2.0 * d0 * d2) + sign * (f0 * h2 + f1 * h1 + f2 * h0)
    n3 = r4 * (2.0 * (d0 * d3 + d1 * d2)) + sign * (f1 * h2 + f2 * h1 + f3 * h0)
    n4 = r4 * (d2 * d2 + 2.0 * (d0 * d4 + d1 * d3)) + sign * (f2 * h2 + f3 * h1 + f4 * h0)
    n5 = r4 * (2.0 * (d1 * d4 + d2 * d3)) + sign * (f3 * h2 + f4 * h1 + f5 * h0)
    n6 = r4 * (d3 * d3 + 2.0 * d2 * d4) + sign * (f4 * h2 + f5 * h1 + f6 * h0)
    n7 = r4 * (2.0 * d3 * d4) + sign * (f5 * h2 + f6 * h1)
    n8 = r4 * (d4 * d4) + sign * (f6 * h2)
    work[row, 0] = n0
    work[row, 1] = n1
    work[row, 2] = n2 + n0
    work[row, 3] = n3 + n1 + 64.0 * (left * left)
    work[row, 4] = n4 + n2 + 64.0 * (2.0 * left * level)
    work[row, 5] = n5 + n3 + 64.0 * (level * level + 2.0 * right * left)
    work[row, 6] = n6 + n4 + 64.0 * (2.0 * right * level)
    work[row, 7] = n7 + n5 + 64.0 * (right * right)
    work[row, 8] = n8 + n6
    work[row, 9] = n7
    work[row, 10] = n8


@helper()
def _g_at(a: float, b: float, rho: float, m: float, sigma: float, t: float) -> tuple[float, float]:
    """Log-moneyness at t and Durrleman's g there, by the plain formula."""
    t_inverse = 1.0 / t
    radius = 0.5 * (t + t_inverse)
    right = b * (1.0 + rho) * t
    left = b * (1.0 - rho) * t_inverse
    w_inverse = 1.0 / (a + 0.5 * sigma * (right + left))
    radius_inverse = 1.0 / radius
    slope = 0.5 * (right - left) * radius_inverse
    curvature = b / sigma * (radius_inverse * radius_inverse * radius_inverse)
    k = m + 0.5 * sigma * (t - t_inverse)
    monotone = 1.0 - 0.5 * k * slope * w_inverse
    return k, monotone * monotone - 0.25 * slope * slope * (w_inverse + 0.25) + 0.5 * curvature


@helper()
def _steep_wing(a: float, b: float, rho: float, m: float, sigma: float, side: float) -> tuple[float, float]:
    """A far log-moneyness in the wing of slope >= 2 where g < 0; infinity and g's limit if there is none within reach."""
    t = 1.0
    for _ in range(60):
        k, value = _g_at(a, b, rho, m, sigma, t if side > 0.0 else 1.0 / t)
        if value < 0.0:
            return k, value
        t *= 2.0
    slope = b * (1.0 + side * rho)
    return side * np.inf, 0.0625 * (2.0 - slope) * (2.0 + slope)


@helper()
def certify_slice(a: float, b: float, rho: float, m: float, sigma: float, work: Array) -> Outcome:
    """Decide one slice; `work` is any float64 array of `WORK_SHAPE`.

    k and value are a witness of the verdict: g < 0 for DENSITY and the slopes, the lowest total variance for VARIANCE, else NaN.
    """
    if not math.isfinite(a + b + rho + m + sigma):
        return INVALID, NOT_FINITE, np.nan, np.nan, 0
    if b < 0.0 or abs(rho) > 1.0 or sigma <= 0.0:
        return INVALID, NOT_A_SLICE, np.nan, np.nan, 0
    right = 1.0 + rho
    left = 1.0 - rho
    bottom = math.sqrt(right * left)
    lowest_variance = a + b * sigma * bottom
    doubt = 2.0**-49 * (abs(a) + b * sigma * bottom)
    if lowest_variance - doubt <= 0.0:
        if lowest_variance + doubt > 0.0:
            return UNDECIDED, ROUNDING, np.nan, np.nan, 0
        if bottom > 0.0:
            return INVALID, VARIANCE, m - rho * sigma / bottom, lowest_variance, 0
        return INVALID, VARIANCE, -rho * np.inf, lowest_variance, 0
    if b * right >= 2.0:
        k, value = _steep_wing(a, b, rho, m, sigma, 1.0)
        return VIOLATED, RIGHT_SLOPE, k, value, 0
    if b * left >= 2.0:
        k, value = _steep_wing(a, b, rho, m, sigma, -1.0)
        return VIOLATED, LEFT_SLOPE, k, value, 0
    if b == 0.0:
        return PROVED, HOLDS, np.nan, np.nan, 0  # a flat smile: g = 1
    if b * right > _NEAR_TWO or b * left > _NEAR_TWO:
        return UNDECIDED, ROUNDING, np.nan, np.nan, 0
    s = b * sigma
    r = sigma / b
    level = 2.0 * a / s
    centre = m / sigma
    if not (in_scale(s) and in_scale(r) and in_scale_or_zero(level) and in_scale_or_zero(centre)):
        return UNDECIDED, SCALE, np.nan, np.nan, 0
    _coefficients(work, 0, right, left, level, centre, r, s, -1.0)
    _coefficients(work, 1, right, left, abs(level), abs(centre), r, s, 1.0)
    # t is counted from half-way (in log t) between the smile's centre and the money, where the action is.
    tau = power_of_two_near(math.sqrt(asinh_exponential(-centre)))
    power = 1.0
    for i in range(_DEGREE + 1):
        work[0, i] *= power
        work[1, i] *= power
        work[2, i] = (work[0, i] - COEFFICIENT_ERROR * work[1, i]) * _INVERSE_BINOMIAL[i]
        power *= tau
    work[2, LEFT_END] = 0.0
    work[2, WIDTH] = 1.0
    verdict, condition, s_witness, nodes = _subdivide(work)
    if verdict != VIOLATED:
        return verdict, condition, np.nan, np.nan, nodes
    scaled = s_witness / (1.0 - s_witness)
    t = scaled * tau
    # g from the polynomial, whose sign is certain; the plain formula may round a hairline violation to the other side.
    q = t * t + 1.0
    p = right * t * t + level * t + left
    value = horner(work, 0, 0, _DEGREE, scaled) / (16.0 * r * p * p * q * q * q)
    return VIOLATED, DENSITY, m + 0.5 * sigma * (t - 1.0 / t), value, nodes


@helper()
def _subdivide(work: Array) -> tuple[int, int, float, int]:
    """Decide the sign of the polynomial in rows 0 and 1 from its root node in row 2.

    Returns verdict, condition, s of a witness and the nodes examined.
    """
    top = 2
    nodes = 0
    condition = HOLDS
    while top >= 2:
        nodes += 1
        if lowest(work, top, 0, _DEGREE + 1) >= 0.0:
            top -= 1
            continue
        if nodes >= MAX_NODES:
            return UNDECIDED, WORK_LIMIT, np.nan, nodes
        width = 0.5 * work[top, WIDTH]
        if width < 2.0**-MAX_DEPTH:
            # Go on with the other nodes: a clear violation elsewhere is worth more than this doubt.
            condition = ROUNDING
            top -= 1
            continue
        halve(work, top, top + 1, 0, _DEGREE)
        middle = work[top, LEFT_END] + width
        work[top + 1, LEFT_END] = work[top, LEFT_END]
        work[top + 1, WIDTH] = width
        work[top, LEFT_END] = middle
        work[top, WIDTH] = width
        if work[top, 0] < 0.0:
            t = middle / (1.0 - middle)
            if horner(work, 0, 0, _DEGREE, t) < -EVALUATION_ERROR * horner(work, 1, 0, _DEGREE, t):
                return VIOLATED, DENSITY, middle, nodes
        top += 1
    return (PROVED if condition == HOLDS else UNDECIDED), condition, np.nan, nodes


@helper()
def report_slice(a: float, b: float, rho: float, m: float, sigma: float, work: Array, scan: Array) -> Outcome:
    """`certify_slice`, with the lowest g that was found in place of a witness, of every slice that has one."""
    verdict, condition, k, value, nodes = certify_slice(a, b, rho, m, sigma, work)
    if verdict == INVALID:
        return verdict, condition, k, value, nodes
    scan_k, lowest_value = lowest_g(a, b, rho, m, sigma, k if math.isfinite(k) else np.nan, scan)
    # A witness gives way only to a clearly lower point: the plain formula's rounding must not unseat a certain sign.
    if not value <= lowest_value + _SCAN_ROUNDING:
        k, value = scan_k, lowest_value
    if verdict == PROVED:
        value = max(value, 0.0)  # proved >= 0, so a minus sign is rounding in the plain formula
    return verdict, condition, k, value, nodes


@kernel(
    "Tuple((int8[::1], int8[::1], float64[::1], float64[::1], int32[::1]))"
    "(float64[::1], float64[::1], float64[::1], float64[::1], float64[::1], boolean)",
    group="svi",
)
def certify_butterfly(
    a: Array, b: Array, rho: Array, m: Array, sigma: Array, report: bool
) -> tuple[Bytes, Bytes, Array, Array, npt.NDArray[np.int32]]:
    """Verdict, condition, k, value and nodes of each slice (arrays of one length).

    With `report`, k and value are the lowest g that was found, of every slice that has one; without, only those of a violation
    that was met (cheaper, for loops that only need the verdict and a witness), else NaN.
    """
    n = a.shape[0]
    verdict = np.empty(n, np.int8)
    condition = np.empty(n, np.int8)
    worst_k = np.empty(n, np.float64)
    worst_value = np.empty(n, np.float64)
    nodes = np.empty(n, np.int32)
    work = np.empty(WORK_SHAPE, np.float64)
    grid = np.empty(SCAN_SHAPE, np.float64)
    for i in range(n):
        if report:
            v, c, k, value, count = report_slice(a[i], b[i], rho[i], m[i], sigma[i], work, grid)
        else:
            v, c, k, value, count = certify_slice(a[i], b[i], rho[i], m[i], sigma[i], work)
        verdict[i] = v
        condition[i] = c
        worst_k[i] = k
        worst_value[i] = value
        nodes[i] = count
    return verdict, condition, worst_k, worst_value, nodes
