"""What the joint solver asks of the curves, at single strikes, and where it has to ask.

Freedom from arbitrage at every strike is certified, not asked for; the solver asks for it, with a margin, at the strikes where it
is nearest to being lost (cuts), in the wings, and of the lowest variance. In scaled coordinates (see `volsurf.svi._lm`)

    g(y) = (1 − yŵ'/(2ŵ))² − ŵ'²/(4ŵ) − θŵ'²/16 + ŵ''/2.

Nothing here is a proof, so sums may be reordered.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper
from volsurf.svi._varpro import FAST

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BUTTERFLY, CALENDAR = 0, 1
"""Kinds of cuts."""

G_MARGIN = 2e-3
VARIANCE_MARGIN = 2e-4
TAIL_MARGIN = 1e-4
FLOOR_MARGIN = 2e-3
"""The lowest scaled variance."""
G_NEAR = 0.03
GAP_NEAR = 0.01
"""Minima below these become cuts."""

NODES = 41
REACH = 5.5
SPACING = 2.0 * REACH / (NODES - 1)
_U = np.linspace(-REACH, REACH, NODES)
T = np.exp(_U)
T_INVERSE = np.exp(-_U)
X = np.sinh(_U)
R_INVERSE = 1.0 / np.cosh(_U)

SAME_PLACE = 0.12
"""Two cuts of one kind nearer than this in u = asinh((k − m)/σ) are one, at the worse place of the two."""


@helper(fastmath=FAST)
def variance_at(y: float, x: Floats) -> float:
    scale = math.exp(x[4])
    z = (y - x[3]) / scale
    root = math.sqrt(1.0 + z * z)
    return float(x[0] + 0.5 * scale * (x[1] * (root + z) + x[2] * (root - z)))


@helper(fastmath=FAST)
def variance_row(y: float, x: Floats, factor: float, row: Floats, first: int) -> float:
    """ŵ, and `factor` times its gradient into row[first : first + 5]."""
    scale = math.exp(x[4])
    half = 0.5 * scale
    z = (y - x[3]) / scale
    root = math.sqrt(1.0 + z * z)
    t, t_inverse = root + z, root - z
    row[first] = factor
    row[first + 1] = factor * half * t
    row[first + 2] = factor * half * t_inverse
    row[first + 3] = -0.5 * factor * (x[1] * t - x[2] * t_inverse) / root
    row[first + 4] = factor * half * (x[1] + x[2]) / root
    return float(x[0] + half * (x[1] * t + x[2] * t_inverse))


@helper(fastmath=FAST)
def g_at(y: float, x: Floats, theta: float) -> float:
    scale = math.exp(x[4])
    z = (y - x[3]) / scale
    root = math.sqrt(1.0 + z * z)
    ut, lt = x[1] * (root + z), x[2] * (root - z)
    w = x[0] + 0.5 * scale * (ut + lt)
    slope = 0.5 * (ut - lt) / root
    curvature = 0.5 * (x[1] + x[2]) / (scale * root * root * root)
    tilt = 1.0 - 0.5 * y * slope / w
    return float(tilt * tilt - 0.25 * slope * slope * (1.0 / w + 0.25 * theta) + 0.5 * curvature)


@helper(fastmath=FAST)
def g_row(y: float, x: Floats, theta: float, row: Floats, first: int) -> float:
    """g, and its gradient into row[first : first + 5]."""
    scale = math.exp(x[4])
    half = 0.5 * scale
    z = (y - x[3]) / scale
    root = math.sqrt(1.0 + z * z)
    t, t_inverse = root + z, root - z
    w = x[0] + half * (x[1] * t + x[2] * t_inverse)
    slope = 0.5 * (x[1] * t - x[2] * t_inverse) / root
    per_slope = 0.5 / (scale * root * root * root)
    curvature = (x[1] + x[2]) * per_slope
    third = -3.0 * z * curvature / (scale * root * root)
    w_inverse = 1.0 / w
    tilt = 1.0 - 0.5 * y * slope * w_inverse
    by_w = tilt * y * slope * w_inverse * w_inverse + 0.25 * slope * slope * w_inverse * w_inverse
    by_slope = -tilt * y * w_inverse - 0.5 * slope * (w_inverse + 0.25 * theta)
    row[first] = by_w
    row[first + 1] = by_w * half * t + by_slope * 0.5 * t / root + 0.5 * per_slope
    row[first + 2] = by_w * half * t_inverse - by_slope * 0.5 * t_inverse / root + 0.5 * per_slope
    row[first + 3] = -by_w * slope - by_slope * curvature - 0.5 * third
    row[first + 4] = (
        by_w * half * (x[1] + x[2]) / root
        - by_slope * z * scale * curvature
        + 0.5 * curvature * (3.0 * z * z / (root * root) - 1.0)
    )
    return float(tilt * tilt - 0.25 * slope * slope * (w_inverse + 0.25 * theta) + 0.5 * curvature)


@helper()
def smallest(values: Floats) -> float:
    # A loop of its own: in the one that fills the array it would keep that from using the vector units.
    lowest = math.inf
    for j in range(NODES):
        lowest = values[j] if values[j] < lowest else lowest
    return lowest


@helper(fastmath=FAST)
def scan_g(x: Floats, theta: float, values: Floats) -> float:
    """g on the slice's own nodes u = asinh((y − μ)/e^ς); the lowest."""
    scale = math.exp(x[4])
    half = 0.5 * scale
    alpha, up, low, mu = x[0], x[1], x[2], x[3]
    bend = 0.25 * (up + low) / scale
    quarter = 0.25 * theta
    for j in range(NODES):
        ut, lt = up * T[j], low * T_INVERSE[j]
        ri = R_INVERSE[j]
        w_inverse = 1.0 / (alpha + half * (ut + lt))
        slope = 0.5 * (ut - lt) * ri
        tilt = 1.0 - 0.5 * (mu + scale * X[j]) * slope * w_inverse
        values[j] = tilt * tilt - 0.25 * slope * slope * (w_inverse + quarter) + bend * ri * ri * ri
    return smallest(values)


@helper(fastmath=FAST)
def scan_gap(own: Floats, other: Floats, stretch: float, level: float, is_far: bool, values: Floats) -> float:
    """w_far/w_near − 1 on the nodes of one slice of a pair; the lowest.

    Args:
        stretch: √(θ_own/θ_other), which turns own y into the other's.
        level: θ_own/θ_other.
        is_far: whether `own` is the far slice.
    """
    scale = math.exp(own[4])
    half = 0.5 * scale
    alpha, up, low, mu = own[0], own[1], own[2], own[3]
    other_scale = math.exp(other[4])
    inverse = 1.0 / other_scale
    other_half = 0.5 * other_scale
    other_alpha, other_up, other_low, other_mu = other[0], other[1], other[2], other[3]
    for j in range(NODES):
        mine = level * (alpha + half * (up * T[j] + low * T_INVERSE[j]))
        z = ((mu + scale * X[j]) * stretch - other_mu) * inverse
        root = math.sqrt(1.0 + z * z)
        yours = other_alpha + other_half * (other_up * (root + z) + other_low * (root - z))
        values[j] = (mine / yours if is_far else yours / mine) - 1.0
    return smallest(values)


@helper()
def refined(values: Floats, j: int) -> float:
    """u at the vertex of the parabola through a minimum and its neighbours on the scan."""
    u = (j - (NODES - 1) // 2) * SPACING
    if j == 0 or j == NODES - 1:
        return u
    bend = values[j - 1] - 2.0 * values[j] + values[j + 1]
    if not bend > 0.0:
        return u
    return float(u + 0.5 * SPACING * (values[j - 1] - values[j + 1]) / bend)


@helper()
def is_minimum(values: Floats, j: int, below: float) -> bool:
    value = values[j]
    if not value < below:
        return False
    if j > 0 and values[j - 1] < value:
        return False
    return not (j < NODES - 1 and values[j + 1] <= value)


@helper()
def cut_value(kind: int, p: int, k: float, x: Floats, theta: Floats, root: Floats) -> float:
    """How far a cut is from failing, its margin taken off; negative where it fails."""
    if kind == BUTTERFLY:
        return g_at(k / root[p], x[p], theta[p]) - G_MARGIN
    far = theta[p] * variance_at(k / root[p], x[p])
    near = theta[p - 1] * variance_at(k / root[p - 1], x[p - 1])
    return float(far / near - 1.0 - VARIANCE_MARGIN)


@helper()
def add_cut(
    kind: int,
    p: int,
    k: float,
    x: Floats,
    theta: Floats,
    root: Floats,
    kinds: Ints,
    positions: Ints,
    strikes: Floats,
    dual: Floats,
    count: int,
) -> int:
    """Add a cut, or move the one that is there already to the worse of the two strikes. Returns how many there are."""
    if not math.isfinite(k):
        return count
    scale = math.exp(x[p, 4])
    z = (k / root[p] - x[p, 3]) / scale
    reach = SAME_PLACE * root[p] * scale * math.sqrt(1.0 + z * z)
    for c in range(count):
        if kinds[c] == kind and positions[c] == p and abs(strikes[c] - k) < reach:
            if cut_value(kind, p, k, x, theta, root) < cut_value(kind, p, strikes[c], x, theta, root):
                strikes[c] = k
            return count
    if count == kinds.size:
        return count
    kinds[count] = kind
    positions[count] = p
    strikes[count] = k
    dual[count] = 0.0
    return count + 1
