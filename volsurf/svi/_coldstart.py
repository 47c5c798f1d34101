"""Where a slice without a past begins: the best of nine (μ, ς) nodes, each with its linear parameters solved for."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper
from volsurf.svi._lm import ALPHA_MARGIN
from volsurf.svi._varpro import FAST, copy, solve_linear

Floats = npt.NDArray[np.float64]

# With the variable-projection rescue nine nodes find the optimum of forty random restarts; sixty find no more.
NODES = np.array([(mu, scale) for scale in (0.2, 0.8, 2.0) for mu in (-1.2, 0.0, 1.2)])
OUTSIDE_PENALTY = 1.5


@helper(fastmath=FAST)
def cold_start(
    quotes: Floats,
    centre: Floats,
    precision: Floats,
    slope_max: float,
    x: Floats,
    node: Floats,
) -> None:
    """Fill x with the node of least squared error. The error of √ŵ is linearised at the quote: (ŵ−q²)/(2q)."""
    n = quotes.size // 5
    y, q, g, weight, side = quotes[:n], quotes[n : 2 * n], quotes[2 * n : 3 * n], quotes[3 * n : 4 * n], quotes[4 * n :]
    # One-sided quotes say where the curve is not. Where there is nothing else, the fit begins at them.
    two_sided = False
    for j in range(n):
        two_sided = two_sided or (side[j] == 0.0 and weight[j] > 0.0)
    best = math.inf
    copy(centre, x)
    for at in range(NODES.shape[0]):
        mu, scale = NODES[at, 0], NODES[at, 1]
        inverse = 1.0 / scale
        half = 0.5 * scale
        s0 = s1 = s2 = s11 = s22 = p0 = p1 = p2 = total = 0.0
        for j in range(n):
            near = 0.5 * g[j] / q[j]
            omega = weight[j] * near * near if side[j] == 0.0 or not two_sided else 0.0
            z = (y[j] - mu) * inverse
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
            total += omega * square * square
        node[3] = mu
        node[4] = math.log(scale)
        if not solve_linear(s0, s1, s2, s11, s22, p0, p1, p2, half, centre, precision, slope_max, node):
            continue
        a, u, l = node[0], half * node[1], half * node[2]
        error = total - 2.0 * (a * p0 + u * p1 + l * p2)
        error += a * a * s0 + u * u * s11 + l * l * s22 + 2.0 * (a * u * s1 + a * l * s2 + u * l * s0)
        for i in range(5):
            error += precision[i] * (node[i] - centre[i]) ** 2
        if a < ALPHA_MARGIN - scale * math.sqrt(node[1] * node[2]):
            error = OUTSIDE_PENALTY * abs(error)
        if error < best:
            best = error
            copy(node, x)
