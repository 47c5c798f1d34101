"""Calendar arbitrage between two SVI slices, decided on the whole real line: is w_far(k) >= w_near(k) for every k?

With t on the near slice (k - m1 = sigma1 (t - 1/t)/2), the far slice's square root is the only irrational term. Isolating it,

    2t (w_near - linear part of w_far) =: b2 sigma1 E(t)            w_far's root: b2 sqrt((k - m2)^2 + sigma2^2)
    E(t) = (beta (1 + rho1) - rho2) t^2 + (2 (a1 - a2)/(b2 sigma1) - 2 rho2 d) t + beta (1 - rho1) + rho2
    H(t) = (t^2 + 2 d t - 1)^2 + 4 z^2 t^2 - E(t)^2                 d = (m1 - m2)/sigma1,  z = sigma2/sigma1,  beta = b1/b2

    w_far >= w_near everywhere  <=>  E(t) <= 0 or H(t) >= 0 for each t > 0

H's outer coefficients factor, (U2 - U1)(U1 + L2) and (L2 - L1)(L1 + U2) over b2^2, and are computed so: nothing cancels but
the difference of the slopes itself. The squaring is that of Gatheral and Jacquier (2014) section 3.5, whose quartic this is
in another variable; testing E beside it removes the roots that squaring adds.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import ensure_compiled, helper, kernel
from volsurf.errors import InputError
from volsurf.svi._approach import SCAN_SHAPE, smallest_gain
from volsurf.svi._bernstein import (
    COEFFICIENT_ERROR,
    CROSSING,
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
from volsurf.svi.certificate import Certificate
from volsurf.svi.params import RawSVI

__all__ = ["certify_calendar", "certify_pair", "check_calendar"]

Array = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.int8]
Outcome = tuple[int, int, float, float, int]
"""Verdict, condition, k, far minus near total variance there, nodes examined."""

_H, _E = 0, 5
"""First columns of H's five and E's three coefficients in a row of `work`. Nodes hold lower bounds of H and of -E."""
_REACH = 120
"""Doublings of t in search of a witness in a wing: beyond, t^4 would overflow."""
_SCAN_ROUNDING = 1e-12
"""Bound on the relative rounding of w by the plain formula."""


def check_calendar(near: RawSVI, far: RawSVI) -> Certificate:
    """Certificate that total variance of `far` is nowhere below that of `near`, or where it is.

    Two batches of equal length are compared pair by pair, a single slice with each of a batch. For the expiries of one surface in
    order: `check_calendar(svi[:-1], svi[1:])`. Both slices are functions of their own forward log-moneyness (Gatheral and
    Jacquier 2014, lemma 2.1).

    Raises:
        InputError: the batches differ in length.
    """
    try:
        shape = np.broadcast_shapes(near.shape, far.shape)
    except ValueError as error:
        raise InputError(
            f"near has shape {near.shape}, far has {far.shape}; they must pair up slice by slice"
        ) from error
    size = shape or (1,)
    first, second = (
        np.array([np.broadcast_to(value, size) for value in (svi.a, svi.b, svi.rho, svi.m, svi.sigma)])
        for svi in (near, far)
    )
    ensure_compiled("svi")
    a1, b1, rho1, m1, sigma1 = first
    a2, b2, rho2, m2, sigma2 = second
    outcome = certify_calendar(a1, b1, rho1, m1, sigma1, a2, b2, rho2, m2, sigma2, True)
    return Certificate.of("calendar", outcome, shape)


@helper()
def _variance_at(k: float, a: float, b: float, rho: float, m: float, sigma: float) -> float:
    """Gatheral's formula as it stands: cheap, and its cancellation far out in a wing does not matter to a scan."""
    x = k - m
    return a + b * (rho * x + math.sqrt(x * x + sigma * sigma))


@helper()
def _crosses_at(work: Array, t: float) -> bool:
    """Whether w_far < w_near at t for certain: E > 0 and H < 0 by more than any rounding."""
    above = horner(work, 0, _E, 2, t) > EVALUATION_ERROR * horner(work, 1, _E, 2, t)
    return above and horner(work, 0, _H, 4, t) < -EVALUATION_ERROR * horner(work, 1, _H, 4, t)


@helper()
def certify_pair(
    a1: float,
    b1: float,
    rho1: float,
    m1: float,
    sigma1: float,
    a2: float,
    b2: float,
    rho2: float,
    m2: float,
    sigma2: float,
    work: Array,
) -> Outcome:
    """Decide one pair, near slice first; `work` is any float64 array of `WORK_SHAPE`.

    For a violation k is a witness and the value is w_far - w_near < 0 there; else both are NaN.
    """
    if not (math.isfinite(a1 + b1 + rho1 + m1 + sigma1) and math.isfinite(a2 + b2 + rho2 + m2 + sigma2)):
        return INVALID, NOT_FINITE, np.nan, np.nan, 0
    if b1 < 0.0 or abs(rho1) > 1.0 or sigma1 <= 0.0 or b2 < 0.0 or abs(rho2) > 1.0 or sigma2 <= 0.0:
        return INVALID, NOT_A_SLICE, np.nan, np.nan, 0
    if a1 == a2 and b1 == b2 and rho1 == rho2 and m1 == m2 and sigma1 == sigma2:
        return PROVED, HOLDS, np.nan, np.nan, 0
    if b2 == 0.0:
        if b1 == 0.0:  # two flat smiles
            if a2 >= a1:
                return PROVED, HOLDS, np.nan, np.nan, 0
            return VIOLATED, CROSSING, 0.0, a2 - a1, 0
        side = 1.0 if rho1 > -1.0 else -1.0
        reach = abs(m1) + sigma1 + (abs(a1) + abs(a2)) / (b1 * (1.0 + side * rho1))
        k = side * 4.0 * reach
        return VIOLATED, RIGHT_SLOPE if side > 0.0 else LEFT_SLOPE, k, a2 - _variance_at(k, a1, b1, rho1, m1, sigma1), 0
    beta = b1 / b2
    level = 2.0 * (a1 - a2) / (b2 * sigma1)
    d = (m1 - m2) / sigma1
    z = sigma2 / sigma1
    if not (in_scale(z) and in_scale_or_zero(beta) and in_scale_or_zero(level) and in_scale_or_zero(d)):
        return UNDECIDED, SCALE, np.nan, np.nan, 0
    tau = power_of_two_near(math.sqrt(asinh_exponential(-m1 / sigma1)))
    _coefficients(work, beta, rho1, rho2, level, d, z, tau)
    # Slopes that are the same doubles make H's outer coefficients exactly zero, and then there is nothing to be in doubt of.
    if b1 == b2 and rho1 == rho2:
        work[1, _H] = 0.0
        work[1, _H + 4] = 0.0
    unit = b2 * sigma1
    for side in (1.0, -1.0):
        outer = _H + 4 if side > 0.0 else _H
        if work[0, outer] < -EVALUATION_ERROR * work[1, outer]:
            t = 1.0
            for _ in range(_REACH):
                if _crosses_at(work, t):
                    break
                t *= 2.0 if side > 0.0 else 0.5
            k, gain = _gain_at(work, t, tau, d, z, m1, sigma1, unit)
            return VIOLATED, RIGHT_SLOPE if side > 0.0 else LEFT_SLOPE, k, gain, 0
    for i in range(5):
        work[2, _H + i] = work[0, _H + i] - COEFFICIENT_ERROR * work[1, _H + i]
    for i in range(3):
        work[2, _E + i] = -work[0, _E + i] - COEFFICIENT_ERROR * work[1, _E + i]
    work[2, _H + 1] *= 0.25
    work[2, _H + 2] *= 1.0 / 6.0
    work[2, _H + 3] *= 0.25
    work[2, _E + 1] *= 0.5
    work[2, LEFT_END] = 0.0
    work[2, WIDTH] = 1.0
    verdict, condition, s, nodes = _subdivide(work)
    if verdict != VIOLATED:
        return verdict, condition, np.nan, np.nan, nodes
    k, gain = _gain_at(work, s / (1.0 - s), tau, d, z, m1, sigma1, unit)
    return VIOLATED, CROSSING, k, gain, nodes


@helper()
def _coefficients(
    work: Array, beta: float, rho1: float, rho2: float, level: float, d: float, z: float, tau: float
) -> None:
    """Write H and E in t/tau into row 0 and their bounds cbar into row 1.

    Longest chain of roundings: each coefficient of E (4), E^2 (10), a coefficient of H (12); the caller's subtraction and
    division by the binomial make it 15.
    """
    right1, left1 = beta * (1.0 + rho1), beta * (1.0 - rho1)
    right2, left2 = 1.0 + rho2, 1.0 - rho2
    shift = 2.0 * rho2 * d
    e2, e1, e0 = right1 - rho2, level - shift, left1 + rho2
    e2_bar, e1_bar, e0_bar = right1 + abs(rho2), abs(level) + abs(shift), left1 + abs(rho2)
    tau2 = tau * tau
    tau3 = tau2 * tau
    tau4 = tau2 * tau2
    work[0, _E] = e0
    work[0, _E + 1] = e1 * tau
    work[0, _E + 2] = e2 * tau2
    work[1, _E] = e0_bar
    work[1, _E + 1] = e1_bar * tau
    work[1, _E + 2] = e2_bar * tau2
    work[0, _H] = (left2 - left1) * (left1 + right2)
    work[0, _H + 1] = (-4.0 * d - 2.0 * e1 * e0) * tau
    work[0, _H + 2] = (4.0 * d * d + (4.0 * z * z - 2.0) - e1 * e1 - 2.0 * e2 * e0) * tau2
    work[0, _H + 3] = (4.0 * d - 2.0 * e2 * e1) * tau3
    work[0, _H + 4] = (right2 - right1) * (right1 + left2) * tau4
    work[1, _H] = (left2 + left1) * (left1 + right2)
    work[1, _H + 1] = (4.0 * abs(d) + 2.0 * e1_bar * e0_bar) * tau
    work[1, _H + 2] = (4.0 * d * d + (4.0 * z * z + 2.0) + e1_bar * e1_bar + 2.0 * e2_bar * e0_bar) * tau2
    work[1, _H + 3] = (4.0 * abs(d) + 2.0 * e2_bar * e1_bar) * tau3
    work[1, _H + 4] = (right2 + right1) * (right1 + left2) * tau4


@helper()
def _gain_at(
    work: Array, scaled: float, tau: float, d: float, z: float, m1: float, sigma1: float, unit: float
) -> tuple[float, float]:
    """Log-moneyness and w_far - w_near at t = tau * scaled, from H, whose sign is certain where `_crosses_at` says so."""
    t = scaled * tau
    # In units of t, lest squares of a far t overflow.
    root = math.hypot(t + 2.0 * d - 1.0 / t, 2.0 * z)
    e = horner(work, 0, _E, 2, scaled) / t
    h = horner(work, 0, _H, 4, scaled) / (t * t)
    return m1 + 0.5 * sigma1 * (t - 1.0 / t), 0.5 * unit * h / (root + e)


@helper()
def _subdivide(work: Array) -> tuple[int, int, float, int]:
    """Decide `E <= 0 or H >= 0` from the root node in row 2: verdict, condition, s of a witness, nodes."""
    top = 2
    nodes = 0
    condition = HOLDS
    while top >= 2:
        nodes += 1
        if lowest(work, top, _H, _H + 5) >= 0.0 or lowest(work, top, _E, _E + 3) >= 0.0:
            top -= 1
            continue
        if nodes >= MAX_NODES:
            return UNDECIDED, WORK_LIMIT, np.nan, nodes
        width = 0.5 * work[top, WIDTH]
        if width < 2.0**-MAX_DEPTH:
            condition = ROUNDING
            top -= 1
            continue
        halve(work, top, top + 1, _H, 4)
        halve(work, top, top + 1, _E, 2)
        middle = work[top, LEFT_END] + width
        work[top + 1, LEFT_END] = work[top, LEFT_END]
        work[top + 1, WIDTH] = width
        work[top, LEFT_END] = middle
        work[top, WIDTH] = width
        if work[top, _H] < 0.0 and work[top, _E] < 0.0 and _crosses_at(work, middle / (1.0 - middle)):
            return VIOLATED, CROSSING, middle, nodes
        top += 1
    return (PROVED if condition == HOLDS else UNDECIDED), condition, np.nan, nodes


@helper()
def report_pair(
    a1: float,
    b1: float,
    rho1: float,
    m1: float,
    sigma1: float,
    a2: float,
    b2: float,
    rho2: float,
    m2: float,
    sigma2: float,
    work: Array,
    scan: Array,
) -> Outcome:
    """`certify_pair`, with the smallest w_far - w_near that was found in place of a witness, of every pair that has one."""
    verdict, condition, k, value, nodes = certify_pair(a1, b1, rho1, m1, sigma1, a2, b2, rho2, m2, sigma2, work)
    if verdict == INVALID:
        return verdict, condition, k, value, nodes
    witness = k if math.isfinite(k) else np.nan
    scan_k, smallest = smallest_gain(a1, b1, rho1, m1, sigma1, a2, b2, rho2, m2, sigma2, witness, scan)
    # A witness gives way only to a clearly lower point: the plain formula's rounding must not unseat a certain sign.
    size = _variance_at(scan_k, a1, b1, rho1, m1, sigma1)
    if not value <= smallest + _SCAN_ROUNDING * abs(size):
        k, value = scan_k, smallest
    if verdict == PROVED:
        value = max(value, 0.0)  # proved >= 0, so a minus sign is rounding in the plain formula
    return verdict, condition, k, value, nodes


@kernel(
    "Tuple((int8[::1], int8[::1], float64[::1], float64[::1], int32[::1]))"
    "(float64[::1], float64[::1], float64[::1], float64[::1], float64[::1],"
    " float64[::1], float64[::1], float64[::1], float64[::1], float64[::1], boolean)",
    group="svi",
)
def certify_calendar(
    a1: Array,
    b1: Array,
    rho1: Array,
    m1: Array,
    sigma1: Array,
    a2: Array,
    b2: Array,
    rho2: Array,
    m2: Array,
    sigma2: Array,
    report: bool,
) -> tuple[Bytes, Bytes, Array, Array, npt.NDArray[np.int32]]:
    """Verdict, condition, k, value and nodes of each pair, near slices first (arrays of one length).

    With `report`, k and value are the smallest w_far - w_near that was found, of every pair that has one; without, only those of
    a violation that was met (cheaper, for loops that only need the verdict and a witness), else NaN.
    """
    n = a1.shape[0]
    verdict = np.empty(n, np.int8)
    condition = np.empty(n, np.int8)
    worst_k = np.empty(n, np.float64)
    worst_value = np.empty(n, np.float64)
    nodes = np.empty(n, np.int32)
    work = np.empty(WORK_SHAPE, np.float64)
    grid = np.empty(SCAN_SHAPE, np.float64)
    for i in range(n):
        near = (a1[i], b1[i], rho1[i], m1[i], sigma1[i])
        far = (a2[i], b2[i], rho2[i], m2[i], sigma2[i])
        if report:
            v, c, k, value, count = report_pair(*near, *far, work, grid)
        else:
            v, c, k, value, count = certify_pair(*near, *far, work)
        verdict[i] = v
        condition[i] = c
        worst_k[i] = k
        worst_value[i] = value
        nodes[i] = count
    return verdict, condition, worst_k, worst_value, nodes
