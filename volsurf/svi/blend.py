"""Butterfly arbitrage between two expiries, where total variance is a blend of two slices: decided over all strikes and times.

    w = (1 - alpha) w1 + alpha w2,   0 <= alpha <= 1,   at fixed log-moneyness

Two slices without butterfly arbitrage may blend to one that has it, so this is checked, not assumed. In h = w - k w', s = w',
c = w'', each of which is linear in alpha, Durrleman's function is

    w^2 g = ((w + h)/2)^2 + w^2 (c/2 - s^2/16) - w s^2/4,

of degree four in alpha. For one k its five Bernstein coefficients >= 0 prove it for every alpha; for an interval of k they are
bounded from the ranges of w, h, s and c, which are easy because a slice is convex: s rises, h rises up to k = 0 and falls
after it, c has one maximum. What is not decided is halved in k or in alpha. The first and last coefficients at alpha = 0 and 1
are g of the slices themselves, >= 0 by their own certificates. Beyond the last node one bound in the scaled numbers w/k, h/k
holds out to infinity: there w^2 g / k^2 tends to U^2 (1/4 - U^2/16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volsurf._jit import ensure_compiled, helper, kernel
from volsurf.svi.params import RawSVI

Array = npt.NDArray[np.float64]

UNDECIDED, PROVED, VIOLATED = 0, 1, 2
"""Values of `certificate.Verdict`, as the kernel uses them."""

_MAX_NODES = 8000
"""Per pair; ordinary pairs take about a hundred."""
_SMALLEST_SHARE = 2.0**-12
_ROUNDING = 1e-13
"""Allowance per coefficient, in units of the sum of its terms' sizes: some 400 roundings, three times what it takes."""


@dataclass(frozen=True, slots=True)
class BlendCheck:
    """What was found of each pair, arrays of shape (n,)."""

    verdict: npt.NDArray[np.int8]
    """`Verdict`: PROVED for every k and every time between the two slices, VIOLATED with a witness, or UNDECIDED."""
    k: Array
    """Where g < 0 if VIOLATED, else NaN."""
    share: Array
    """alpha there."""
    nodes: npt.NDArray[np.int32]
    """Boxes of (k, alpha) that were examined."""


def check_blend(near: RawSVI, far: RawSVI) -> BlendCheck:
    """Whether blends of each pair of slices are free of butterfly arbitrage. The slices must be, by `check_butterfly`."""
    ensure_compiled("blend")
    # Writable copies: numba would compile the kernel afresh for the read-only arrays of a RawSVI.
    slices = np.array([[s.a, s.b, s.rho, s.m, s.sigma] for s in (near, far)]).reshape(2, 5, -1)
    return BlendCheck(*certify_blends(slices[0].copy(), slices[1].copy()))


@helper()
def _point(a: float, up: float, low: float, m: float, sigma: float, k: float) -> tuple[float, float, float]:
    """w, w' and w''."""
    x = (k - m) / sigma
    radius = math.sqrt(1.0 + x * x)
    if x >= 0.0:
        t = radius + x
        t_inverse = 1.0 / t
    else:
        t_inverse = radius - x
        t = 1.0 / t_inverse
    right, left = up * t, low * t_inverse
    return (
        a + 0.5 * sigma * (right + left),
        0.5 * (right - left) / radius,
        0.5 * (up + low) / (sigma * radius * radius * radius),
    )


@helper()
def _inside(slice_: Array, first: float, last: float, out: Array) -> None:
    """Ranges over first <= k <= last, first >= 0: lowest and highest w, lowest and highest s, lowest (w + h)/2, lowest c."""
    a, up, low, m, sigma = slice_[0], slice_[1], slice_[2], slice_[3], slice_[4]
    w0, s0, c0 = _point(a, up, low, m, sigma, first)
    w1, s1, c1 = _point(a, up, low, m, sigma, last)
    lowest = min(w0, w1)
    if s0 < 0.0 < s1:
        lowest = a + sigma * math.sqrt(up * low)
    # a may be negative and cancel most of the rest; the widening carries that.
    rounding = 2.0**-48 * (abs(a) + w0 + w1)
    h = w1 - last * s1 - rounding - 2.0**-48 * last * abs(s1)
    out[0] = lowest - rounding
    out[1] = max(w0, w1) + rounding
    out[2] = s0
    out[3] = s1
    tilt = first * s0 if s0 >= 0.0 else last * s0
    out[4] = max(
        0.5 * (out[0] + h), h + 0.5 * tilt, 0.0
    )  # positive where d1 and d2 fall, as they do on a certified slice
    out[5] = min(c0, c1)


@helper()
def _beyond(slice_: Array, first: float, out: Array) -> None:
    """As `_inside` over k >= first, with w and h in units of k."""
    a, up, low, m, sigma = slice_[0], slice_[1], slice_[2], slice_[3], slice_[4]
    w, s, _ = _point(a, up, low, m, sigma, first)
    rounding = 2.0**-48 * (abs(a) + w + up * (first + abs(m)))
    far = min(a - up * m - rounding, 0.0) / first  # w - U k falls to a - U m, and so does h
    out[0] = max(up + far, 0.0)  # zero where the wing is flat: there w/k has no other bound, and w itself is positive
    out[1] = up + max(w - up * first + rounding, 0.0) / first
    out[2] = s
    out[3] = up
    out[4] = max(0.5 * (up + far + far), 0.0)
    out[5] = 0.0


@helper()
def _lowest(near: Array, far: Array, share: float, width: float, unit: float) -> float:
    """Lower bound of w^2 g over the box, up to a positive factor; `unit` is the number that w was divided by."""
    w0 = near[0] + share * (far[0] - near[0])
    w1 = w0 + width * (far[0] - near[0])
    v0 = near[1] + share * (far[1] - near[1])
    v1 = v0 + width * (far[1] - near[1])
    d0 = near[2] + share * (far[2] - near[2])
    d1 = d0 + width * (far[2] - near[2])
    e0 = near[3] + share * (far[3] - near[3])
    e1 = e0 + width * (far[3] - near[3])
    z0 = near[4] + share * (far[4] - near[4])
    z1 = z0 + width * (far[4] - near[4])
    c0 = 0.5 * (near[5] + share * (far[5] - near[5]))
    c1 = c0 + 0.5 * width * (far[5] - near[5])
    if w0 < 0.0 or w1 < 0.0:
        return -np.inf
    p0, p1, p2 = z0 * z0, 2.0 * z0 * z1, z1 * z1
    q0, q1, q2 = w0 * w0, 2.0 * w0 * w1, w1 * w1
    r0, r1, r2, r3 = q0 * c0, q0 * c1 + q1 * c0, q1 * c1 + q2 * c0, q2 * c1
    s0 = max(d0 * d0, e0 * e0)
    s2 = max(d1 * d1, e1 * e1)
    s1 = 2.0 * max(max(d0 * d1, d0 * e1), max(e0 * d1, e0 * e1), 0.0)
    u0, u1, u2 = 0.0625 * v0 * v0, 0.125 * v0 * v1, 0.0625 * v1 * v1
    f0, f1 = 0.25 * v0 / unit, 0.25 * v1 / unit
    x0, x1, x2, x3 = s0 * f0, s0 * f1 + s1 * f0, s1 * f1 + s2 * f0, s2 * f1
    bottom = np.inf
    for i in range(5):
        if i == 0:
            plus, minus = p0 + r0, x0 + s0 * u0
        elif i == 1:
            plus, minus = 2.0 * p0 + p1 + r0 + r1, x0 + x1 + s0 * u1 + s1 * u0
        elif i == 2:
            plus, minus = p0 + 2.0 * p1 + p2 + r1 + r2, x1 + x2 + s0 * u2 + s1 * u1 + s2 * u0
        elif i == 3:
            plus, minus = p1 + 2.0 * p2 + r2 + r3, x2 + x3 + s1 * u2 + s2 * u1
        else:
            plus, minus = p2 + r3, x3 + s2 * u2
        # At the two ends the coefficient is g of a slice that has its own certificate.
        if (i == 0 and share == 0.0) or (i == 4 and share + width == 1.0):
            continue
        bottom = min(bottom, plus - minus - _ROUNDING * (plus + minus))
    return bottom


@helper()
def _side(near: Array, far: Array, stack: Array, ranges: Array, budget: int) -> tuple[int, float, float, int]:
    """Decide k >= 0: verdict, k and alpha of a witness, nodes."""
    w0, _, _ = _point(near[0], near[1], near[2], near[3], near[4], 0.0)
    step = 0.25 * math.sqrt(w0)
    edge = step
    proved = False
    for _ in range(100):
        _beyond(near, edge, ranges[0])
        _beyond(far, edge, ranges[1])
        if _lowest(ranges[0], ranges[1], 0.0, 1.0, edge) >= 0.0:
            proved = True
            break
        edge *= 2.0
    if not proved:
        return UNDECIDED, np.nan, np.nan, 100
    top = 0
    last = edge
    while last > step:
        stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3] = 0.5 * last, last, 0.0, 1.0
        top += 1
        last *= 0.5
    stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3] = 0.0, step, 0.0, 1.0
    top += 1
    nodes = 0
    while top > 0:
        top -= 1
        first, last, share, width = stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3]
        nodes += 1
        _inside(near, first, last, ranges[0])
        _inside(far, first, last, ranges[1])
        if _lowest(ranges[0], ranges[1], share, width, 1.0) >= 0.0:
            continue
        middle = 0.5 * (first + last)
        _inside(near, middle, middle, ranges[0])
        _inside(far, middle, middle, ranges[1])
        centre = share + 0.5 * width
        if (
            width < 1.0
            and _lowest(ranges[0], ranges[1], centre, 0.0, 1.0) < 0.0
            and _is_negative(near, far, middle, centre)
        ):
            return VIOLATED, middle, centre, nodes
        if nodes >= budget or top + 2 >= stack.shape[0] or not first < middle < last:
            return UNDECIDED, middle, centre, nodes
        if _lowest(ranges[0], ranges[1], share, width, 1.0) >= 0.0 or width <= _SMALLEST_SHARE:
            stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3] = first, middle, share, width
            stack[top + 1, 0], stack[top + 1, 1], stack[top + 1, 2], stack[top + 1, 3] = middle, last, share, width
        else:
            stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3] = first, last, share, 0.5 * width
            stack[top + 1, 0], stack[top + 1, 1], stack[top + 1, 2], stack[top + 1, 3] = (
                first,
                last,
                centre,
                0.5 * width,
            )
        top += 2
    return PROVED, np.nan, np.nan, nodes


@helper()
def _is_negative(near: Array, far: Array, k: float, share: float) -> bool:
    """Whether g of the blend is negative at a point, beyond the rounding of the plain formula."""
    w0, s0, c0 = _point(near[0], near[1], near[2], near[3], near[4], k)
    w1, s1, c1 = _point(far[0], far[1], far[2], far[3], far[4], k)
    w = w0 + share * (w1 - w0)
    s = s0 + share * (s1 - s0)
    c = c0 + share * (c1 - c0)
    monotone = 1.0 - 0.5 * k * s / w
    return bool(monotone * monotone - 0.25 * s * s * (1.0 / w + 0.25) + 0.5 * c < -1e-11)


@kernel(
    "Tuple((int8[::1], float64[::1], float64[::1], int32[::1]))(float64[:,::1], float64[:,::1])",
    group="blend",
)
def certify_blends(near: Array, far: Array) -> tuple[npt.NDArray[np.int8], Array, Array, npt.NDArray[np.int32]]:
    """Columns of `BlendCheck` for the pairs in two (5, n) arrays of a, b, rho, m and sigma."""
    n = near.shape[1]
    verdict = np.empty(n, np.int8)
    at_k = np.empty(n, np.float64)
    at_share = np.empty(n, np.float64)
    nodes = np.empty(n, np.int32)
    stack = np.empty((256, 4), np.float64)
    ranges = np.empty((2, 6), np.float64)
    one = np.empty(5, np.float64)
    two = np.empty(5, np.float64)
    for i in range(n):
        verdict[i], at_k[i], at_share[i], nodes[i] = PROVED, np.nan, np.nan, 0
        same = True
        for j in range(5):
            same = same and near[j, i] == far[j, i]
        if same:
            continue
        for sign in (1.0, -1.0):
            # The left half of the smile is the right half of its mirror image.
            for j in range(2):
                source = near if j == 0 else far
                target = one if j == 0 else two
                tilt = sign * source[2, i]
                target[0] = source[0, i]
                target[1] = source[1, i] * (1.0 + tilt)
                target[2] = source[1, i] * (1.0 - tilt)
                target[3] = sign * source[3, i]
                target[4] = source[4, i]
            found, k, share, count = _side(one, two, stack, ranges, _MAX_NODES)
            nodes[i] += count
            if found != PROVED:
                verdict[i], at_k[i], at_share[i] = found, sign * k, share
                break
    return verdict, at_k, at_share, nodes
