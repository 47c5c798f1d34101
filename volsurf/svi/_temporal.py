"""The temporal filter: the previous curve as nine quotes more, and the gate that lets a jump through.

A quadratic prior on the five parameters would overshoot a jump of the vols by 20–30 %; vols at fixed places do not. With se the
standard error of the fit to quotes alone at a knot, a share β of the previous curve is what pseudo-quotes of variance
(9/5)·se²(1−β)/β bring about: nine of them stand for five parameters.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper
from volsurf.svi._constraints import variance_at, variance_row
from volsurf.svi._varpro import copy

Floats = npt.NDArray[np.float64]

KNOTS = np.array((-3.0, -2.0, -1.2, -0.6, 0.0, 0.6, 1.2, 2.0, 3.0))
ROOM = 16
"""Padded rows that the pseudo-quotes take."""
GATE = 4.0
"""Mean squared innovation, in units of its variance, above which the quotes alone decide."""
QUADRATIC = 1e3
"""Pseudo-quotes are put in with errors and weights such that their loss stays quadratic at any distance."""


@helper()
def innovation(
    fitted: Floats, previous: Floats, covariance: Floats, beta: float, vols: Floats, variances: Floats, row: Floats
) -> float:
    """Fill the previous √ŵ and the squared standard errors at the knots; the mean squared innovation."""
    total = 0.0
    for j in range(KNOTS.size):
        variance = variance_row(KNOTS[j], fitted, 1.0, row, 0)
        v = math.sqrt(max(variance, 1e-9))
        squared = 0.0
        for a in range(5):
            for b in range(5):
                squared += row[a] * covariance[a, b] * row[b]
        variances[j] = squared / (4.0 * v * v)
        vols[j] = math.sqrt(max(variance_at(KNOTS[j], previous), 1e-9))
        total += (v - vols[j]) ** 2 / (variances[j] * (1.0 + (1.0 - beta) / (1.0 + beta)))
    return total / KNOTS.size


@helper()
def extend(block: Floats, vols: Floats, variances: Floats, noise: float, beta: float, out: Floats) -> None:
    """A slice's quotes with the pseudo-quotes behind them; `out` has room for `ROOM` rows more than `block`.

    The objective counts residuals in error bars, whatever `noise` they turn out to have; a share is a share of that.
    """
    n, m = block.size // 5, out.size // 5
    for column in range(5):
        copy(block[column * n : (column + 1) * n], out[column * m : column * m + n])
    for j in range(ROOM):
        at = n + j
        out[4 * m + at] = 0.0
        if j < KNOTS.size:
            out[at] = KNOTS[j]
            out[m + at] = vols[j]
            out[2 * m + at] = 1.0 / (QUADRATIC * math.sqrt(1.8 * variances[j] / noise * (1.0 - beta) / beta))
            out[3 * m + at] = QUADRATIC * QUADRATIC
        else:
            out[at], out[m + at], out[2 * m + at], out[3 * m + at] = 0.0, 1.0, 0.0, 0.0
