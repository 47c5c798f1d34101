"""The passes of the solver over one block of options.

A block's intermediate values stand in `work`, one array in the first-level cache cut into rows of BLOCK doubles. Every
function is one loop over some of the rows, which LLVM turns into vector code. The solver is cut into short passes on
purpose: one long loop is a single chain of some 250 dependent cycles, more than an out-of-order core looks ahead, and ran
a third slower. What keeps the loops vectorised and the passes cheap to call:

* conditionals only as `a if c else b`; no counter, break or reduction in a loop that computes;
* rows at constant distances of one array: the compiler sees that they do not overlap and tests nothing;
* unsigned counts and offsets: for a signed index numba adds Python's wrap-around for negative numbers;
* no slices: each would count references, with an atomic instruction, once a block.

The number of options is always a multiple of LANES: then the scalar remainder that follows a vector loop never runs, and
an option's result does not depend on where in the array it stands (the compiler may fuse multiply-adds differently there).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper
from volsurf.iv._elementary import CONTRACT, log_ratio
from volsurf.iv._householder import CERTIFIED, householder
from volsurf.iv._mills import (
    HALF_LOG_2PI,
    SMALL,
    mills_denominator,
    mills_numerator,
    small_price_over_vega,
)
from volsurf.iv._seed import LARGEST_H, LARGEST_V, seed_inverse_variance, seed_log

Column = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Statuses = npt.NDArray[np.int8]

BLOCK = np.uint64(256)
"""Options a block."""

LANES = np.uint64(32)
"""Largest number of options one round of a vector loop takes (4 × 8 doubles)."""

# Rows of `work`. The Mills rows hold P and Q at |u| and z first, and then what becomes of them.
C = BLOCK * np.uint64(0)
H = BLOCK * np.uint64(1)
R1 = BLOCK * np.uint64(2)
V = BLOCK * np.uint64(3)
S = BLOCK * np.uint64(4)
P1 = BLOCK * np.uint64(5)
Q1 = BLOCK * np.uint64(6)
P2 = BLOCK * np.uint64(7)
Q2 = BLOCK * np.uint64(8)
CERTAIN = BLOCK * np.uint64(9)
WORK = 10 * int(BLOCK)
"""Length of `work`."""

SMALLEST_PRICE = 1e-290
"""Below this c, or this F or K, the bit patterns are not those of normal numbers and the scalar solver takes over."""

LARGEST_PRICE = 1e290


@helper(fastmath=CONTRACT)
def normalised(price: float, forward: float, strike: float, is_call: bool) -> tuple[float, float, float]:
    """c = out-of-the-money price over min(F, K), h = |ln(F/K)|, and r1 = |F − K|/min(F, K).

    A put and a call with the roles of forward and strike exchanged come out the same to the last bit. Of an
    in-the-money price the intrinsic value is taken off first: only its time value has a vol.
    """
    low = forward if forward < strike else strike
    high = strike if forward < strike else forward
    distance = high - low
    value = price - distance if (forward > strike) == is_call else price
    usable = (low > SMALLEST_PRICE) & (high < LARGEST_PRICE)
    return value / low if usable else math.nan, log_ratio(high, low), distance / low


@helper(fastmath=CONTRACT)
def begin_cold(
    price: Column, forward: Column, strike: Column, is_call: Flags, begin: np.uint64, n: np.uint64, work: Column
) -> None:
    """Rows C, H and R1."""
    for i in range(n):
        j = begin + i
        c, h, r1 = normalised(price[j], forward[j], strike[j], is_call[j])
        work[C + i] = c
        work[H + i] = h
        work[R1 + i] = r1


@helper(fastmath=CONTRACT)
def seed(n: np.uint64, work: Column) -> None:
    """V and S = 1/V of the seed."""
    for i in range(n):
        work[V + i] = seed_log(work[C + i], work[R1 + i])
    for i in range(n):
        reciprocal = math.sqrt(seed_inverse_variance(work[V + i], work[C + i], work[R1 + i], work[H + i]))
        work[S + i] = reciprocal
        work[V + i] = 1.0 / reciprocal


@helper(fastmath=CONTRACT)
def mills(small: float, n: np.uint64, work: Column) -> None:
    """P and Q of the Mills ratio at |u| and at z; for v, h < small at a instead of |u|."""
    for i in range(n):
        a = work[H + i] * work[S + i]
        t = 0.5 * work[V + i]
        near = a if (work[V + i] < small) & (work[H + i] < small) else abs(a - t)
        far = a + t
        work[P1 + i] = mills_numerator(near)
        work[Q1 + i] = mills_denominator(near)
        work[P2 + i] = mills_numerator(far)
        work[Q2 + i] = mills_denominator(far)


@helper(fastmath=CONTRACT)
def price_over_vega(n: np.uint64, work: Column) -> None:
    """Overwrite P1/Q1 with |b/b'| and P2 with the target b: c, or −(1 − c) above the inflexion."""
    for i in range(n):
        v = work[V + i]
        h = work[H + i]
        a = h * work[S + i]
        p = work[P1 + i]
        q = work[Q1 + i]
        series = small_price_over_vega(a, p, q, h, v)
        small = (v < SMALL) & (h < SMALL)
        low = (a > 0.5 * v) | small
        cross = work[P2 + i] * q
        work[P1 + i] = series if small else (p * work[Q2 + i] - cross if low else p * work[Q2 + i] + cross)
        work[Q1 + i] = q if small else q * work[Q2 + i]
        work[P2 + i] = work[C + i] if low else work[C + i] - 1.0


@helper(fastmath=CONTRACT)
def residual(n: np.uint64, work: Column) -> None:
    """Overwrite P1 with d = ln(target/model) and Q1 with ρ = b/b'."""
    for i in range(n):
        u = work[H + i] * work[S + i] - 0.5 * work[V + i]
        x = work[P1 + i]
        y = work[Q1 + i]
        b = work[P2 + i]
        rho = x / y
        work[P1 + i] = 0.5 * (u * u) + HALF_LOG_2PI - log_ratio(x, y * abs(b))
        work[Q1 + i] = rho if b > 0.0 else -rho


@helper(fastmath=CONTRACT)
def correct(n: np.uint64, work: Column) -> None:
    """Overwrite P1 with the relative correction e of v, and Q1 with its size."""
    for i in range(n):
        e, size = householder(work[P1 + i], work[Q1 + i], work[H + i], work[V + i], work[S + i])
        work[P1 + i] = e
        work[Q1 + i] = size


@helper(fastmath=CONTRACT)
def finish_cold(years: Column, begin: np.uint64, n: np.uint64, work: Column, vol: Column) -> None:
    """vol = (v + e v)/√T; CERTAIN is 1.0 where the certificates of seed and step hold, else 0.0."""
    for i in range(n):
        v = work[V + i]
        c = work[C + i]
        sigma = (v + v * work[P1 + i]) / math.sqrt(years[begin + i])
        vol[begin + i] = sigma
        inside = (c > SMALLEST_PRICE) & (c < 1.0) & (v < LARGEST_V) & (work[H + i] < LARGEST_H)
        finite = (sigma > 0.0) & (sigma < LARGEST_PRICE)
        work[CERTAIN + i] = 1.0 if inside & (work[Q1 + i] < CERTIFIED) & finite else 0.0


@helper(fastmath=CONTRACT)
def finish_step(n: np.uint64, work: Column) -> None:
    """Overwrite P1 with v + e v; CERTAIN is 1.0 where the step certifies it, else 0.0."""
    for i in range(n):
        c = work[C + i]
        better = work[V + i] + work[V + i] * work[P1 + i]
        work[P1 + i] = better
        inside = (c > SMALLEST_PRICE) & (c < 1.0) & (better < LARGEST_PRICE)
        work[CERTAIN + i] = 1.0 if inside & (work[Q1 + i] < CERTIFIED) else 0.0


@helper()
def padded_length(n: np.uint64) -> np.uint64:
    """The next multiple of LANES."""
    return (n + LANES - np.uint64(1)) // LANES * LANES


@helper()
def pad(column: Column, begin: np.uint64, length: np.uint64, padded: Column) -> None:
    """Copy the end of a column, from `begin` on, and repeat its last value up to `length`."""
    last = np.uint64(column.size) - np.uint64(1)
    for i in range(length):
        padded[i] = column[min(begin + i, last)]


@helper()
def pad_flags(column: Flags, begin: np.uint64, length: np.uint64, padded: Flags) -> None:
    """`pad` for flags."""
    last = np.uint64(column.size) - np.uint64(1)
    for i in range(length):
        padded[i] = column[min(begin + i, last)]
