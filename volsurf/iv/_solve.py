"""One block of options from prices to vols: one step for all, more for the few, the bracketed iteration for the rest."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper
from volsurf.iv._blocks import (
    CERTAIN,
    P1,
    Q1,
    R1,
    SMALLEST_PRICE,
    C,
    Column,
    Flags,
    H,
    S,
    Statuses,
    V,
    begin_cold,
    correct,
    finish_cold,
    finish_step,
    mills,
    padded_length,
    price_over_vega,
    residual,
    seed,
)
from volsurf.iv._elementary import CONTRACT, log_ratio
from volsurf.iv._fallback import far_start, solve_one
from volsurf.iv._mills import SMALL
from volsurf.iv._warm import begin_warm, finish_warm, price_over_vega_warm

Picked = npt.NDArray[np.uint64]

WORTH_GOING_ON = 0.3
"""A step up to this size has come closer (the error after it is below 1e-2); beyond, its end says nothing."""

ATTEMPTS = 3
"""Further steps, before what is left is solved one by one: a far start needs two, a bad guess one more."""

LARGEST_FAR_H = 600.0
"""Above this the bit patterns of forward and strike no longer give h."""


@helper(fastmath=CONTRACT)
def solve_block(
    price: Column,
    forward: Column,
    strike: Column,
    years: Column,
    is_call: Flags,
    guess: Column,
    warm: bool,
    begin: np.uint64,
    n: np.uint64,
    vol: Column,
    status: Statuses,
    work: Column,
    picked: Picked,
) -> None:
    """Write the vols and statuses of n options from `begin` on; n is a multiple of LANES."""
    if warm:
        begin_warm(price, forward, strike, years, is_call, guess, begin, n, work)
        price_over_vega_warm(n, work)
        residual(n, work)
        finish_warm(guess, begin, n, work, vol)
    else:
        begin_cold(price, forward, strike, is_call, begin, n, work)
        seed(n, work)
        mills(SMALL, n, work)
        price_over_vega(n, work)
        residual(n, work)
        correct(n, work)
        finish_cold(years, begin, n, work, vol)
    doubtful = 0
    for i in range(n):
        status[begin + i] = 0
    for i in range(n):
        doubtful += 1 if work[CERTAIN + i] == 0.0 else 0
    if doubtful > 0:
        _more_steps(price, forward, strike, years, is_call, warm, begin, n, vol, status, work, picked)


@helper(fastmath=CONTRACT)
def _more_steps(
    price: Column,
    forward: Column,
    strike: Column,
    years: Column,
    is_call: Flags,
    warm: bool,
    begin: np.uint64,
    n: np.uint64,
    vol: Column,
    status: Statuses,
    work: Column,
    picked: Picked,
) -> None:
    """Steps for the options of the block that the first one did not certify.

    They are moved together to the front of the rows, so that a block with a few of them costs a few. Each goes on from
    where its last step ended, if that came closer; else from the seed after a bad guess, else from the far start.
    """
    m = np.uint64(0)
    for i in range(n):
        if work[CERTAIN + i] == 0.0:
            j = begin + i
            if SMALLEST_PRICE < work[C + i] < 1.0 and work[H + i] < LARGEST_FAR_H and 0.0 < years[j] < math.inf:
                close = work[Q1 + i] < WORTH_GOING_ON
                work[CERTAIN + m] = work[V + i] * (1.0 + work[P1 + i]) if close else math.nan
                work[C + m] = work[C + i]
                work[H + m] = work[H + i]
                low = min(forward[j], strike[j])
                work[R1 + m] = (max(forward[j], strike[j]) - low) / low
                picked[m] = j
                m += np.uint64(1)
            else:
                vol[j], status[j] = solve_one(price[j], forward[j], strike[j], years[j], is_call[j], math.nan)
    for attempt in range(ATTEMPTS):
        if m == np.uint64(0):
            return
        length = padded_length(m)
        last = m - np.uint64(1)
        for i in range(m, length):
            work[CERTAIN + i] = work[CERTAIN + last]
            work[C + i] = work[C + last]
            work[H + i] = work[H + last]
            work[R1 + i] = work[R1 + last]
        if warm and attempt == 0:
            seed(length, work)
        else:
            _far_start(length, work)
        _start(length, work)
        mills(SMALL, length, work)
        price_over_vega(length, work)
        residual(length, work)
        correct(length, work)
        finish_step(length, work)
        kept = np.uint64(0)
        for i in range(m):
            j = picked[i]
            if work[CERTAIN + i] == 1.0:
                vol[j] = work[P1 + i] / math.sqrt(years[j])
            else:
                work[CERTAIN + kept] = work[P1 + i] if work[Q1 + i] < WORTH_GOING_ON else math.nan
                work[C + kept] = work[C + i]
                work[H + kept] = work[H + i]
                work[R1 + kept] = work[R1 + i]
                picked[kept] = j
                kept += np.uint64(1)
        m = kept
    for i in range(m):
        j = picked[i]
        vol[j], status[j] = solve_one(price[j], forward[j], strike[j], years[j], is_call[j], work[CERTAIN + i])


@helper(fastmath=CONTRACT)
def _far_start(n: np.uint64, work: Column) -> None:
    """V of `far_start`."""
    for i in range(n):
        c = work[C + i]
        tail = c if c < 0.5 else 1.0 - c
        work[V + i] = far_start(2.0 * log_ratio(1.0, tail), c, work[H + i])


@helper(fastmath=CONTRACT)
def _start(n: np.uint64, work: Column) -> None:
    """V = where the last step ended (kept in CERTAIN) unless that is NaN, and S = 1/V."""
    for i in range(n):
        ended = work[CERTAIN + i]
        start = ended if ended > 0.0 else work[V + i]
        work[V + i] = start
        work[S + i] = 1.0 / start
