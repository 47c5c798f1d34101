"""Deciding the sign of a polynomial on (0, infinity) with doubles: Bernstein subdivision on rigorous lower bounds.

A polynomial sum c_i t^i of degree n, mapped by t = s/(1 - s), has on s in [0, 1] the Bernstein coefficients c_i / C(n, i) up to
the positive factor (1 - s)^-n. All of them >= 0 proves it >= 0; halving the interval by de Casteljau's scheme sharpens the test.

Rounding. Let u = 2^-53. Every coefficient held here is at all times a *lower bound* of the exact one: the caller starts from
c_i - COEFFICIENT_ERROR * cbar_i (cbar_i: the same expression with absolute values and plus signs), and each averaging step rounds
downwards (`halve`). Nothing else has to be tracked, the bounds stay relative to each coefficient (so a wing whose slope is
1e-12 of the other's is still decided), and coefficients that are exactly 0, as those of a flat wing, stay 0 and pass.

`work` arrays of shape `WORK_SHAPE` are the only memory; a caller allocates one and uses it for any number of slices.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper

Array2 = npt.NDArray[np.float64]

UNDECIDED, PROVED, VIOLATED, INVALID = 0, 1, 2, 3
"""Values of `certificate.Verdict`, as the kernels use them."""
HOLDS, DENSITY, RIGHT_SLOPE, LEFT_SLOPE, VARIANCE, NOT_FINITE, NOT_A_SLICE, CROSSING, ROUNDING, WORK_LIMIT, SCALE = (
    range(11)
)
"""Values of `certificate.Condition`."""

MAX_DEPTH = 40
"""Halvings of one interval. Near a double root nothing is decided after about 25; the rest is for roots near 0 and infinity."""
MAX_NODES = 400

COEFFICIENT_ERROR = 2.0**-48
"""32 u. The longest chain of roundings into a coefficient of either certificate is 23 (counted beside each formula)."""
EVALUATION_ERROR = 2.0**-47
"""64 u: as above plus 2 * 10 roundings of Horner's scheme, for values that must be *certainly* negative."""
ROUND_DOWN = 2.0**-51
"""4 u: |s| * ROUND_DOWN off a rounded sum s, itself rounded, is below the exact sum (2 u would just not do)."""
SMALLEST, LARGEST = 1e-25, 1e25
"""Scale-free inputs outside these bounds are not judged: inside them no product of ten can under- or overflow."""

WORK_SHAPE = (MAX_DEPTH + 5, 16)
"""Row 0: coefficients c. Row 1: bounds cbar. From row 2: a stack of nodes. Columns 0-12: coefficients."""
LEFT_END, WIDTH = 13, 14
"""Columns of a node's interval in s; both are dyadic, hence exact."""


@helper()
def lowest(work: Array2, row: int, first: int, last: int) -> float:
    """Smallest of the coefficients first … last - 1 of a node."""
    low = float(work[row, first])
    for i in range(first + 1, last):
        low = min(low, float(work[row, i]))
    return low


@helper()
def halve(work: Array2, row: int, left: int, first: int, degree: int) -> None:
    """Split the coefficients first … first + degree of node `row` at its middle: left half to node `left`, right half in place.

    De Casteljau's scheme, each average rounded downwards.
    """
    work[left, first] = work[row, first]
    for level in range(1, degree + 1):
        for i in range(first, first + degree + 1 - level):
            mean = 0.5 * (work[row, i] + work[row, i + 1])
            work[row, i] = mean - ROUND_DOWN * abs(mean)
        work[left, first + level] = work[row, first]


@helper()
def horner(work: Array2, row: int, first: int, degree: int, t: float) -> float:
    """Value at t of the polynomial whose coefficients stand in `row`, lowest degree first."""
    value = float(work[row, first + degree])
    for i in range(first + degree - 1, first - 1, -1):
        value = value * t + work[row, i]
    return value


@helper()
def power_of_two_near(value: float) -> float:
    """The power of two next to a positive value: rescaling by it rounds nothing."""
    return math.ldexp(1.0, round(math.log2(value)))


@helper()
def asinh_exponential(x: float) -> float:
    """t = x + sqrt(1 + x^2), without cancellation for negative x."""
    large = abs(x) + math.sqrt(1.0 + x * x)
    return large if x >= 0.0 else 1.0 / large


@helper()
def in_scale(value: float) -> bool:
    """Whether a positive scale-free input is inside the bounds of the error analysis."""
    return SMALLEST <= value <= LARGEST


@helper()
def in_scale_or_zero(value: float) -> bool:
    """Whether a scale-free input of either sign, or zero, is inside the bounds of the error analysis."""
    return value == 0.0 or SMALLEST <= abs(value) <= LARGEST
