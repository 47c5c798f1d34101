"""Where a slice comes closest to butterfly arbitrage and a pair of slices to calendar arbitrage, to show how much room is left.

First a look at points that are evenly spaced in log t, t = x + sqrt(1 + x^2), around the smile and around the money, in straight
loops that the compiler turns into vector code; then Newton's method from the lowest of the parabolas through three neighbours.
Nothing here proves anything: verdicts come from the polynomials of `arbitrage` and `calendar`, which are independent of it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper
from volsurf.svi._bernstein import asinh_exponential

Array = npt.NDArray[np.float64]

SCAN_SHAPE = (2, 96)
"""Of the scratch array that the scans share: places and values."""

_MOST = 96
_G_STEP = 0.24
_G_POINTS = 48
_G_TIMES = np.exp(_G_STEP * np.arange(_MOST))
_G_REACH = math.exp(0.5 * _G_STEP * (_G_POINTS - 1) - 0.35)
"""The points reach t from 1/200 of the smaller to 200 times the larger of the t of the smile's centre (1) and of the money."""
_GAIN_STEP = 0.27
_GAIN_POINTS = 40
_GAIN_TIMES = np.exp(_GAIN_STEP * np.arange(_MOST))
_GAIN_REACH = math.exp(0.5 * _GAIN_STEP * (_GAIN_POINTS - 1) - 0.35)
_G_INVERSE, _GAIN_INVERSE = 1.0 / _G_TIMES, 1.0 / _GAIN_TIMES
_STEPS = 16
"""Newton steps at most; three are usual."""


@helper()
def _density(
    t: float,
    t_inverse: float,
    level: float,
    right: float,
    left: float,
    half_centre: float,
    quarter_width: float,
    width_inverse: float,
    curvature: float,
) -> float:
    """Durrleman's g at t with a single division; `right` and `left` are sigma/2 times the slopes, `curvature` b/(2 sigma)."""
    double_radius = t + t_inverse
    up = right * t
    down = left * t_inverse
    w = level + up + down
    inverse = 1.0 / (w * double_radius)
    w_inverse = inverse * double_radius
    radius_inverse = 2.0 * (inverse * w)
    slope = width_inverse * (up - down) * radius_inverse
    monotone = 1.0 - (half_centre + quarter_width * (t - t_inverse)) * slope * w_inverse
    bend = curvature * (radius_inverse * radius_inverse * radius_inverse)
    return monotone * monotone - 0.25 * slope * slope * (w_inverse + 0.25) + bend


@helper()
def _descend_g(a: float, b: float, rho: float, m: float, sigma: float, t: float, limit: float) -> tuple[float, float]:
    """t and value of the minimum of g next to t, by Newton's method in log t with steps up to `limit`.

    With u = x/R, p = 1/R: derivatives by log t are u' = p^2, p' = -u p, k' = sigma/p, and N = w'/w gives N' = w''/w - N^2 k'.
    """
    best = np.inf
    best_t = t
    for _ in range(_STEPS):
        t_inverse = 1.0 / t
        radius = 0.5 * (t + t_inverse)
        p = 1.0 / radius
        u = 0.5 * (t - t_inverse) * p
        k = m + 0.5 * sigma * (t - t_inverse)
        w_inverse = 1.0 / (a + b * (rho * (k - m) + sigma * radius))
        slope = b * (rho + u)
        square = p * p
        slope1 = b * square
        n = slope * w_inverse
        monotone = 1.0 - 0.5 * k * n
        bend = 0.5 * slope1 * p / sigma
        g = monotone * monotone - slope * (0.25 * n + 0.0625 * slope) + bend
        if not g < best:
            limit *= 0.25
            t = best_t * (1.0 + limit if t > best_t else 1.0 - limit)
            continue
        best, best_t = g, t
        slope2 = -2.0 * u * slope1
        n_k = n * sigma * radius
        n1 = slope1 * w_inverse - n * n_k
        n2 = slope2 * w_inverse - slope1 * w_inverse * n_k - 2.0 * n1 * n_k - n * n_k * u
        monotone1 = -0.5 * (n_k + k * n1)
        monotone2 = -0.5 * (u * n_k + 2.0 * sigma * radius * n1 + k * n2)
        first = 2.0 * monotone * monotone1 - 0.25 * (slope1 * n + slope * n1) - 0.125 * slope * slope1 - 3.0 * u * bend
        second = (
            2.0 * (monotone1 * monotone1 + monotone * monotone2)
            - 0.25 * (slope2 * n + 2.0 * slope1 * n1 + slope * n2)
            - 0.125 * (slope1 * slope1 + slope * slope2)
            - 3.0 * bend * (square - 3.0 * u * u)
        )
        # What a step would still gain is first^2/(2 second): under a millionth of g it is not taken.
        if first * first <= 1.6e-6 * abs(second * g) + 1.6e-9 * abs(second):
            break
        if second > 0.0:
            step = max(-limit, min(limit, -first / second))
        else:
            step = -limit if first > 0.0 else limit
        t += t * _log_growth(step)
    return best_t, best


@helper()
def _two_lowest(scan: Array, n: int) -> tuple[int, float, float, int, float, float]:
    """Index, offset in steps and value of the lowest and next lowest of the first n: vertices of parabolas, or an end."""
    first = 0 if scan[1, 0] < scan[1, n - 1] else n - 1
    low = float(scan[1, first])
    second, next_low = first, low
    shift = next_shift = 0.0
    after = scan[1, 1] - scan[1, 0]
    for i in range(1, n - 1):
        before = -after
        after = scan[1, i + 1] - scan[1, i]
        if before >= 0.0 and after > 0.0:
            offset = 0.5 * (before - after) / (before + after)
            value = scan[1, i] - 0.25 * offset * (before - after)
            if value < low:
                second, next_shift, next_low = first, shift, low
                first, shift, low = i, offset, value
            elif value < next_low or second == first:
                second, next_shift, next_low = i, offset, value
    return first, shift, low, second, next_shift, next_low


@helper()
def _log_growth(shift: float) -> float:
    """exp(shift) - 1, for a small shift that need not be exact."""
    return shift * (1.0 + shift * (0.5 + shift * (1.0 / 6.0)))


@helper()
def _vertex(scan: Array, n: int, i: int, offset: float) -> float:
    """Offset in steps from point i to the minimum: of the polynomial through five points, where there are five."""
    if i < 2 or i > n - 3:
        return offset
    outer0, inner0, value, inner1, outer1 = scan[1, i - 2], scan[1, i - 1], scan[1, i], scan[1, i + 1], scan[1, i + 2]
    first = (8.0 * (inner1 - inner0) - (outer1 - outer0)) * (1.0 / 12.0)
    second = (16.0 * (inner0 + inner1) - 30.0 * value - (outer0 + outer1)) * (1.0 / 12.0)
    if not second > 0.0:
        return offset
    third = 0.5 * (outer1 - outer0) - (inner1 - inner0)
    inverse = 1.0 / second
    straight = -first * inverse
    better = straight - 0.5 * third * inverse * straight * straight
    return better if abs(better - offset) < 0.5 else offset


@helper()
def lowest_g(
    a: float, b: float, rho: float, m: float, sigma: float, witness: float, scan: Array
) -> tuple[float, float]:
    """Log-moneyness and value of the lowest g that was found; `witness` is a log-moneyness to look at too, NaN for none.

    `scan` is any float64 array of `SCAN_SHAPE`.
    """
    if b == 0.0:
        return 0.0, 1.0
    width_inverse = 1.0 / sigma
    right, left = 0.5 * sigma * b * (1.0 + rho), 0.5 * sigma * b * (1.0 - rho)
    half_centre, quarter_width, curvature = 0.5 * m, 0.25 * sigma, 0.5 * b * width_inverse
    at_money = asinh_exponential(-m * width_inverse)
    low = min(1.0, at_money)
    needed = _G_REACH * _G_REACH * (max(1.0, at_money) / low)
    low *= 1.0 / _G_REACH
    low_inverse = 1.0 / low
    n = _G_POINTS
    step = _G_STEP
    if needed <= _G_TIMES[_MOST - 1]:
        while _G_TIMES[n - 1] < needed:
            n += 8
        for i in range(n):
            t = low * _G_TIMES[i]
            scan[0, i] = t
            scan[1, i] = _density(
                t, low_inverse * _G_INVERSE[i], a, right, left, half_centre, quarter_width, width_inverse, curvature
            )
    else:  # a smile whose centre is thousands of its widths away from the money
        n = _MOST
        step = math.log(needed) / (_MOST - 1)
        ratio = math.exp(step)
        t = low
        for i in range(n):
            scan[0, i] = t
            scan[1, i] = _density(t, 1.0 / t, a, right, left, half_centre, quarter_width, width_inverse, curvature)
            t *= ratio
    start, at_start = 1.0, np.inf
    if not math.isnan(witness):
        start = asinh_exponential((witness - m) * width_inverse)
        at_start = _density(start, 1.0 / start, a, right, left, half_centre, quarter_width, width_inverse, curvature)
    best_t, best = start, at_start
    first, shift, low_value, second, next_shift, next_low = _two_lowest(scan, n)
    if low_value < best:
        t = float(scan[0, first])
        if first == 0 or first == n - 1:
            t *= 2.0 if first else 0.5
            best_t, best = t, _density(t, 1.0 / t, a, right, left, half_centre, quarter_width, width_inverse, curvature)
            if not best < low_value:
                best_t, best = float(scan[0, first]), low_value
        else:
            shift = _vertex(scan, n, first, shift)
            best_t, best = _descend_g(a, b, rho, m, sigma, t + t * _log_growth(shift * step), step)
    if next_low < best and 0 < second < n - 1:
        t = float(scan[0, second])
        t, g = _descend_g(a, b, rho, m, sigma, t + t * _log_growth(next_shift * step), step)
        if g < best:
            best_t, best = t, g
    if at_start <= best:
        best_t, best = _descend_g(a, b, rho, m, sigma, start, step)
    return m + 0.5 * sigma * (best_t - 1.0 / best_t), best


@helper()
def _gain_scan(
    a: float,
    b: float,
    rho: float,
    m: float,
    sigma: float,
    other_a: float,
    other_b: float,
    other_rho: float,
    other_m: float,
    other_sigma: float,
    sign: float,
    scan: Array,
) -> tuple[float, float, float, bool]:
    """sign * (w of the other - w of the slice) on points around the slice.

    Returns k and value of the lowest vertex, how far the points next to it lie, and whether it is an end.
    """
    at_money = asinh_exponential(-m / sigma)
    low = min(1.0, at_money)
    needed = _GAIN_REACH * _GAIN_REACH * (max(1.0, at_money) / low)
    low *= 1.0 / _GAIN_REACH
    low_inverse = 1.0 / low
    half = 0.5 * sigma
    gap = m - other_m
    square = other_sigma * other_sigma
    level = sign * (other_a - a + other_b * other_rho * gap)
    slope = sign * (other_b * other_rho - b * rho)
    other_root = sign * other_b
    root = sign * b * half
    n = _GAIN_POINTS
    step = _GAIN_STEP
    if needed <= _GAIN_TIMES[_MOST - 1]:
        while _GAIN_TIMES[n - 1] < needed:
            n += 8
        for i in range(n):
            t = low * _GAIN_TIMES[i]
            t_inverse = low_inverse * _GAIN_INVERSE[i]
            x = half * (t - t_inverse)
            scan[0, i] = t
            y = x + gap
            scan[1, i] = level + slope * x + other_root * math.sqrt(y * y + square) - root * (t + t_inverse)
    else:
        n = _MOST
        step = math.log(needed) / (_MOST - 1)
        ratio = math.exp(step)
        t = low
        for i in range(n):
            t_inverse = 1.0 / t
            x = half * (t - t_inverse)
            scan[0, i] = t
            y = x + gap
            scan[1, i] = level + slope * x + other_root * math.sqrt(y * y + square) - root * (t + t_inverse)
            t *= ratio
    first, shift, value, _, _, _ = _two_lowest(scan, n)
    t = float(scan[0, first])
    k = m + half * (t - 1.0 / t)
    spacing = half * (t + 1.0 / t) * step
    if first == 0:
        return k, value, -spacing, True
    if first == n - 1:
        return k, value, spacing, True
    t += t * _log_growth(_vertex(scan, n, first, shift) * step)
    return m + half * (t - 1.0 / t), value, spacing, False


@helper()
def _gain_at(
    k: float,
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
) -> float:
    """w_far - w_near by Gatheral's formula as it stands: its cancellation far out in a wing does not matter to a scan."""
    x1, x2 = k - m1, k - m2
    near = a1 + b1 * (rho1 * x1 + math.sqrt(x1 * x1 + sigma1 * sigma1))
    return a2 + b2 * (rho2 * x2 + math.sqrt(x2 * x2 + sigma2 * sigma2)) - near


@helper()
def _descend_gain(
    k: float,
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
    limit: float,
) -> tuple[float, float]:
    """k and value of the minimum of w_far - w_near next to k, by Newton's method with steps up to `limit`."""
    best = np.inf
    best_k = k
    for _ in range(_STEPS):
        x1, x2 = k - m1, k - m2
        root1, root2 = math.sqrt(x1 * x1 + sigma1 * sigma1), math.sqrt(x2 * x2 + sigma2 * sigma2)
        near = a1 + b1 * (rho1 * x1 + root1)
        gain = a2 + b2 * (rho2 * x2 + root2) - near
        if not gain < best:
            limit *= 0.25
            k = best_k + (limit if k > best_k else -limit)
            continue
        best, best_k = gain, k
        inverse1, inverse2 = 1.0 / root1, 1.0 / root2
        first = b2 * (rho2 + x2 * inverse2) - b1 * (rho1 + x1 * inverse1)
        z1, z2 = sigma1 * inverse1, sigma2 * inverse2
        second = b2 * z2 * z2 * inverse2 - b1 * z1 * z1 * inverse1
        if first * first <= 1.6e-6 * abs(second * gain) + 1e-11 * abs(second * near):
            break
        if second > 0.0:
            k += max(-limit, min(limit, -first / second))
        else:
            k -= limit if first > 0.0 else -limit
    return best_k, best


@helper()
def smallest_gain(
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
    witness: float,
    scan: Array,
) -> tuple[float, float]:
    """Log-moneyness and value of the smallest w_far - w_near that was found; `witness` as in `lowest_g`."""
    if b1 == 0.0 and b2 == 0.0:
        return 0.0, a2 - a1
    start, at_start = 0.0, np.inf
    if not math.isnan(witness):
        start, at_start = witness, _gain_at(witness, a1, b1, rho1, m1, sigma1, a2, b2, rho2, m2, sigma2)
    best_k, best = start, at_start
    k1, low1, step1, end1 = _gain_scan(a1, b1, rho1, m1, sigma1, a2, b2, rho2, m2, sigma2, 1.0, scan)
    k2, low2, step2, end2 = k1, np.inf, step1, end1
    if not (abs(m2 - m1) < 2.0 * sigma1 and 0.4 * sigma1 < sigma2 < 4.0 * sigma1):
        # The points around the near smile may pass over what the far one does.
        k2, low2, step2, end2 = _gain_scan(a2, b2, rho2, m2, sigma2, a1, b1, rho1, m1, sigma1, -1.0, scan)
        if low2 < low1:
            k1, low1, step1, end1, k2, low2, step2, end2 = k2, low2, step2, end2, k1, low1, step1, end1
    for turn in range(2):
        # Both scans mostly see the same minimum.
        if low1 < best and (turn == 0 or abs(k1 - best_k) > abs(step1)):
            if end1:
                k, gain = k1 + step1, _gain_at(k1 + step1, a1, b1, rho1, m1, sigma1, a2, b2, rho2, m2, sigma2)
                if not gain < low1:
                    k, gain = k1, low1
            else:
                k, gain = _descend_gain(k1, a1, b1, rho1, m1, sigma1, a2, b2, rho2, m2, sigma2, step1)
            if gain < best:
                best_k, best = k, gain
        k1, low1, step1, end1 = k2, low2, step2, end2
    if at_start <= best:
        limit = 0.5 * math.sqrt((start - m1) * (start - m1) + sigma1 * sigma1)
        best_k, best = _descend_gain(start, a1, b1, rho1, m1, sigma1, a2, b2, rho2, m2, sigma2, limit)
    return best_k, best
