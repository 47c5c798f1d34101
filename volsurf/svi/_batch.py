"""The batch kernel: flat quotes of many slices in, fitted slices out, in one call without a Python loop."""

from __future__ import annotations

import math

import numpy as np

from volsurf._jit import helper, kernel
from volsurf.svi._coldstart import cold_start
from volsurf.svi._coordinates import from_raw, to_raw, variance_at_forward
from volsurf.svi._lm import bounds_hit, clip, minimise
from volsurf.svi._measure import QUOTES, REJECTIONS, fill_residuals, measure, reject_outliers
from volsurf.svi._prepare import (
    LANE,
    NO_SLICE,
    USED,
    YEARS_MAX,
    YEARS_MIN,
    Bytes,
    Floats,
    Ints,
    atm_vol,
    check_quote,
    scale_rows,
    sort_rows,
    thin_theta,
)
from volsurf.svi._prior import THIN_QUOTES, Booleans, fill_centre, fill_global, has_company
from volsurf.svi._varpro import copy

CONVERGED, AT_BOUND, TOO_FEW_QUOTES, NOT_CONVERGED, SYNTHETIC, NO_DATA, INVALID = 0, 1, 2, 3, 4, 5, 6
"""Values of `FitResult`."""

SLOPE_LIMIT = 1.95
"""Lee's bound on a wing slope is 2; the box stops short of it."""

FIRST_TOLERANCE = 1e-3
"""Enough for a fit of which only the neighbours' median and the next fit's start are wanted."""


@helper()
def interpolated_theta(
    position: int, order: Ints, surface: Ints, years: Floats, theta: Floats, known: Booleans
) -> float:
    """At-the-money variance of a slice without quotes: linear in time between its neighbours, flat vol outside them."""
    here = order[position]
    before = after = -1
    at = position - 1
    while at >= 0 and surface[order[at]] == surface[here] and before < 0:
        if known[order[at]]:
            before = order[at]
        at -= 1
    at = position + 1
    while at < order.size and surface[order[at]] == surface[here] and after < 0:
        if known[order[at]]:
            after = order[at]
        at += 1
    if before >= 0 and after >= 0 and years[after] > years[before]:
        share = (years[here] - years[before]) / (years[after] - years[before])
        return float(theta[before] + share * (theta[after] - theta[before]))
    nearest = before if before >= 0 else after
    if nearest < 0:
        return math.nan
    return float(theta[nearest] * years[here] / years[nearest])


@helper()
def collect(
    first: int,
    last: int,
    k: Floats,
    vol: Floats,
    error: Floats,
    side: Bytes,
    weight: Floats,
    years: float,
    rows: Ints,
    use: Bytes,
) -> tuple[int, float]:
    """Fill `rows` with the usable quotes of a slice, sorted, and `use` with what became of each; count, two-sided weight."""
    valid = YEARS_MIN <= years <= YEARS_MAX
    count = 0
    two_sided = 0.0
    for row in range(first, last):
        use[row] = check_quote(k[row], vol[row], error[row], weight[row]) if valid else NO_SLICE
        if use[row] == USED:
            rows[count] = row
            count += 1
            if side[row] == 0:
                two_sided += weight[row]
    sort_rows(rows[:count], k, vol, error, side, weight)
    return count, two_sided


@helper()
def verdict(converged: bool, bits: int, two_sided: float) -> int:
    """The one thing to know about a fit, the gravest first."""
    if not converged:
        return NOT_CONVERGED
    if two_sided < THIN_QUOTES:
        return TOO_FEW_QUOTES
    if bits:
        return AT_BOUND
    return CONVERGED


@kernel(
    "void(float64[::1], float64[::1], float64[::1], int8[::1], float64[::1], int64[::1], float64[::1], int64[::1],"
    " int64[::1], float64[:,::1], int8[::1], float64[:,::1], float64, int64, int64[::1], float64[::1], int64[::1],"
    " int64[::1], float64[::1], float64[:,::1], float64[::1], float64[:,::1], float64[:,::1], float64[:,::1], int8[::1],"
    " int64[::1], float64[:,::1], float64[:,:,::1], float64[::1], int8[::1])",
    group="svi",
)
def fit_batch(
    k: Floats,
    vol: Floats,
    error: Floats,
    side: Bytes,
    weight: Floats,
    offsets: Ints,
    years: Floats,
    surface: Ints,
    order: Ints,
    carried: Floats,
    warm: Bytes,
    given_centre: Floats,
    tolerance: float,
    max_passes: int,
    blocks: Ints,
    workspace: Floats,
    rows: Ints,
    counts: Ints,
    two_sided: Floats,
    raw: Floats,
    theta: Floats,
    scaled: Floats,
    centre: Floats,
    precision: Floats,
    result: Bytes,
    passes: Ints,
    statistics: Floats,
    covariance: Floats,
    residual: Floats,
    use: Bytes,
) -> None:
    """Fit every slice. What is asked for:

    Args:
        k, vol, error, side, weight: (quotes,) quotes, those of slice i at offsets[i]:offsets[i+1], in any order.
        years, surface: (slices,) time to expiry, and the surface the slice belongs to.
        order: (slices,) slice indices sorted by (surface, years).
        carried, warm: (slices, 5), (slices,) the curve to start from as a, b, rho, m, sigma at today's years, where warm is 1.
        given_centre: (slices, 5) prior centres, NaN where the neighbours' median is wanted.
        blocks: (slices + 1,) where each slice's room in the workspace begins, in quotes; multiples of `LANE`.

    What is filled in (float arrays must hold NaN, `passes` 0):
        workspace: (5·blocks[-1],) padded scaled quotes, see `scale_rows`; those of outliers have weight 0.
        rows: (quotes,) usable quotes of slice i, sorted, at offsets[i]:offsets[i]+counts[i].
        counts, two_sided: (slices,) usable quotes, and the weight of the two-sided ones.
        raw: (slices, 5) a, b, rho, m, sigma; exactly `carried` where that is the optimum still.
        theta, scaled: the scale θ, and x in it.
        centre, precision: the prior that was used.
        result, passes: `FitResult`, fused passes over the quotes.
        statistics: (slices, 8), see `measure`.
        covariance: (slices, 5, 5) of the scaled coordinates.
        residual, use: (quotes,) (fit − quote)/error and `QuoteUse`.
    """
    slices = years.size
    widths = np.zeros(slices, np.int64)
    fitted = np.zeros(slices, np.bool_)
    has_state = np.zeros(slices, np.bool_)
    state = np.empty((slices, 5))
    begin = np.empty(5)
    system, work = np.empty(21), np.empty((5, 21))
    loose = tolerance if tolerance > FIRST_TOLERANCE else FIRST_TOLERANCE

    # Sort out the quotes, set each slice's scale, and take up its past.
    for i in range(slices):
        first = offsets[i]
        counts[i], two_sided[i] = collect(
            first, offsets[i + 1], k, vol, error, side, weight, years[i], rows[first : offsets[i + 1]], use
        )
        result[i] = NO_DATA if YEARS_MIN <= years[i] <= YEARS_MAX else INVALID
        statistics[i, QUOTES] = 0.0
        statistics[i, REJECTIONS] = 0.0
        if counts[i] > 0:
            mine = rows[first : first + counts[i]]
            atm = atm_vol(mine, k, vol, side, weight, True)
            if math.isnan(atm):
                atm = atm_vol(mine, k, vol, side, weight, False)
            theta[i] = years[i] * atm * atm
            widths[i] = (counts[i] + LANE - 1) // LANE * LANE
            block = workspace[5 * blocks[i] : 5 * (blocks[i] + widths[i])]
            scale_rows(mine, k, vol, error, side, weight, atm, math.sqrt(theta[i]), block)
            fitted[i] = True
        if warm[i] == 1 and result[i] != INVALID:
            # A shape is lent in its own scale: a smile that has moved up as a whole keeps it.
            from_raw(carried[i], variance_at_forward(carried[i]), state[i])
            has_state[i] = math.isfinite(state[i, 0] + state[i, 1] + state[i, 2] + state[i, 3] + state[i, 4])

    # A slice without a past is first fitted on its own, so that its neighbours can learn its shape and it theirs.
    for position in range(slices):
        i = order[position]
        if not fitted[i] or has_state[i] or not has_company(position, order, surface):
            continue
        block = workspace[5 * blocks[i] : 5 * (blocks[i] + widths[i])]
        slope_max = SLOPE_LIMIT / math.sqrt(theta[i])
        fill_global(two_sided[i], centre[i], precision[i])
        cold_start(block, centre[i], precision[i], slope_max, state[i], work[0, :5])
        done, _ = minimise(block, state[i], centre[i], precision[i], slope_max, loose, max_passes, system, work)
        passes[i] = done
    for i in range(slices):
        has_state[i] = has_state[i] or fitted[i]

    # The fit that counts, with the neighbours' shapes as the centre of the prior.
    for position in range(slices):
        i = order[position]
        if result[i] == INVALID:
            continue
        x = scaled[i]
        informed = fill_centre(
            position, order, surface, two_sided, has_state, state, given_centre[i], centre[i], precision[i]
        )
        if not fitted[i]:
            theta[i] = interpolated_theta(position, order, surface, years, theta, fitted)
            if informed and theta[i] > 0.0:
                copy(centre[i], x)
                clip(x, SLOPE_LIMIT / math.sqrt(theta[i]))
                to_raw(x, theta[i], raw[i])
                result[i] = SYNTHETIC
            continue
        mine = rows[offsets[i] : offsets[i] + counts[i]]
        block = workspace[5 * blocks[i] : 5 * (blocks[i] + widths[i])]
        if informed and two_sided[i] < THIN_QUOTES:
            theta[i] = thin_theta(mine, k, vol, side, years[i], theta[i], centre[i])
            scale_rows(mine, k, vol, error, side, weight, math.sqrt(theta[i] / years[i]), math.sqrt(theta[i]), block)
        slope_max = SLOPE_LIMIT / math.sqrt(theta[i])
        if passes[i] > 0:
            copy(state[i], x)
        elif warm[i] == 1:
            from_raw(carried[i], theta[i], x)
        else:
            cold_start(block, centre[i], precision[i], slope_max, x, work[0, :5])
        warm_here = passes[i] == 0 and warm[i] == 1
        copy(x, begin)
        done, converged = minimise(block, x, centre[i], precision[i], slope_max, tolerance, max_passes, system, work)
        passes[i] += done
        fill_residuals(block, mine, x, residual)
        rejected = reject_outliers(block, mine, residual, use)
        if rejected > 0:
            done, converged = minimise(
                block, x, centre[i], precision[i], slope_max, tolerance, max_passes, system, work
            )
            passes[i] += done
            fill_residuals(block, mine, x, residual)
        unmoved = warm_here
        for j in range(5):
            unmoved = unmoved and x[j] == begin[j]
        if unmoved:
            # Scaling there and back would change the last digit of a curve that nothing has changed.
            copy(carried[i], raw[i])
        else:
            to_raw(x, theta[i], raw[i])
        measure(block, mine, residual, two_sided[i], system, statistics[i], covariance[i])
        statistics[i, REJECTIONS] = rejected
        result[i] = verdict(converged, bounds_hit(x, slope_max), two_sided[i])
