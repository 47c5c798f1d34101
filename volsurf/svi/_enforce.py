"""The enforcement kernel: fitted slices of many surfaces in, published slices out, every one certified with its neighbours.

For each surface, until one of these gives a point that is certified:

1. the fits as they stand, where no filter is asked for;
2. the joint solver from the last published curves, or from the fits where there are none or they lie far from the quotes;
3. the joint solver from the fits;
4. the same without merit and damping;
5. the guard on the fits, which cannot fail.

The joint solver goes on from what 4 or 5 found.

What is certified are the published doubles themselves. Every loop is bounded by a count, never by time.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper, kernel
from volsurf.svi._batch import SLOPE_LIMIT
from volsurf.svi._constraints import variance_at
from volsurf.svi._coordinates import from_raw, to_raw
from volsurf.svi._guard import guard
from volsurf.svi._lm import clip, evaluate
from volsurf.svi._measure import COST, NOISE, fill_residuals, measure
from volsurf.svi._prepare import LANE
from volsurf.svi._sqp import Problem, Scratch, evaluate_all, improve, new_scratch, store_best
from volsurf.svi._temporal import GATE, KNOTS, ROOM, extend, innovation
from volsurf.svi._varpro import copy

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]

AS_FITTED, MOVED, GUARDED = 1, 2, 3
"""Values of `Enforcement`."""
FILTERED, JUMPED = 1, 2
"""Values of `Smoothed`."""

PENALTY = 30.0
MAX_STEPS = 40
PLAIN_STEPS = 20
KEEP_SHARE = 0.3
"""A start that is certified is kept, to the bit, if the solver finds less than this share of its tolerance to gain."""
LOST = 100.0
"""A last curve whose cost is this many times that of the fit is no start: the solver would stay where it is."""
NOTHING = 1e-7
"""A change of vol that is none."""
HIGH_COST = 1e300
AS_IT_STANDS, FROM_START, FROM_FITS, WITHOUT_MERIT, POLISHED = 0, 1, 2, 3, 4


@helper()
def start_at(curves: Floats, member: Ints, n: int, problem: Problem, s: Scratch) -> None:
    """Put the solver on the given curves, doubles untouched where they lie within its box."""
    before = s.step[0]
    for p in range(n):
        from_raw(curves[member[p]], problem.theta[p], s.x[p])
        copy(s.x[p], before)
        copy(curves[member[p]], s.raw[p])
        clip(s.x[p], problem.slope_max[p])
        for i in range(5):
            if s.x[p, i] != before[i]:
                to_raw(s.x[p], problem.theta[p], s.raw[p])
                break


@helper()
def settle(
    problem: Problem,
    n: int,
    s: Scratch,
    member: Ints,
    start: Floats,
    fitted: Floats,
    continued: bool,
    filtered: bool,
    enforce: bool,
    tolerance: float,
    guarded: Bytes,
) -> int:
    """Leave the surface to publish in `best` and `best_raw`. Returns the steps it took, or −1 if the fits do as they stand."""
    # np.int64, because a bare 0 would be a type of its own to numba, which would compile what it is passed to twice.
    steps = int(np.int64(0))
    cuts = int(np.int64(0))
    best = math.inf
    for stage in range(AS_IT_STANDS if not filtered else FROM_START, POLISHED + 1):
        if stage == FROM_FITS and not continued:
            continue
        penalty, limit = PENALTY, MAX_STEPS
        if stage == AS_IT_STANDS:
            limit = 0
        elif stage == WITHOUT_MERIT:
            limit = PLAIN_STEPS
        elif stage == POLISHED:
            penalty = 10.0 * PENALTY
            if best == math.inf:
                best = take_guard(problem, n, s, member, fitted, guarded)
        if stage <= FROM_FITS:
            start_at(start if stage == FROM_START else fitted, member, n, problem, s)
            cuts = int(np.int64(0))
        done, cuts, start_cost, best = improve(
            problem, n, s, cuts, penalty, tolerance, limit, stage == WITHOUT_MERIT, enforce, best
        )
        steps += done
        if best < math.inf and stage != WITHOUT_MERIT:
            if stage == AS_IT_STANDS:
                return -1
            if stage == FROM_START and start_cost - best < KEEP_SHARE * tolerance * (1.0 + best):
                start_at(start, member, n, problem, s)
                store_best(n, s)
            break
    return steps


@helper()
def take_guard(problem: Problem, n: int, s: Scratch, member: Ints, fitted: Floats, guarded: Bytes) -> float:
    """Make the fits certified, keep that as the best and stand on it, as far as the solver's box reaches. Its cost.

    From the fits and not from where the solver gave up: undamped steps may have led it anywhere.
    """
    for p in range(n):
        copy(fitted[member[p]], s.raw[p])
    guard(n, s.raw, problem.theta, guarded, s.work)
    reached = True
    for p in range(n):
        from_raw(s.raw[p], problem.theta[p], s.x[p])
    store_best(n, s)
    for p in range(n):
        clip(s.x[p], problem.slope_max[p])
        for i in range(5):
            reached = reached and s.x[p, i] == s.best[p, i]
    return evaluate_all(problem, n, s.x, s.system) if reached else HIGH_COST


@helper()
def is_held(problem: Problem, n: int, s: Scratch, p: int) -> bool:
    """Whether a constraint stood in the way of slice p in the last program solved."""
    for r in range(s.dual.size):
        if s.dual[r] > 0.0 and (s.position[r] == p or (s.coupled[r] == 1 and s.position[r] == p + 1)):
            return True
    return False


@helper()
def largest_move(block: Floats, used: int, x: Floats, fitted: Floats, atm: float) -> float:
    """Largest |published − fitted| vol over the used quotes; at the forward if there are none."""
    n = block.size // 5
    largest = 0.0
    for j in range(max(used, 1)):
        y = block[j] if used > 0 else 0.0
        if used > 0 and block[3 * n + j] == 0.0:
            continue
        here = math.sqrt(max(variance_at(y, x), 1e-9))
        there = math.sqrt(max(variance_at(y, fitted), 1e-9))
        largest = max(largest, abs(here - there))
    return atm * largest


@kernel(
    "void(int64[::1], int64[::1], float64[::1], int64[::1], int64[::1], int64[::1], float64[::1], int64[::1], float64[::1],"
    " float64[::1], float64[:,::1], float64[:,::1], float64[:,:,::1], float64[:,::1], float64[:,::1], float64[:,::1],"
    " float64[::1], boolean, float64, float64, float64[:,::1], float64[::1], float64[:,::1], float64[:,::1], int8[::1],"
    " int8[::1], int64[::1], float64[::1])",
    group="enforce",
)
def enforce_batch(
    order: Ints,
    surface: Ints,
    years: Floats,
    offsets: Ints,
    counts: Ints,
    rows: Ints,
    two_sided: Floats,
    blocks: Ints,
    workspace: Floats,
    theta: Floats,
    centre: Floats,
    precision: Floats,
    covariance: Floats,
    fitted_raw: Floats,
    fitted_scaled: Floats,
    carried: Floats,
    beta: Floats,
    enforce: bool,
    cold_tolerance: float,
    live_tolerance: float,
    statistics: Floats,
    residual: Floats,
    raw: Floats,
    scaled: Floats,
    enforcement: Bytes,
    smoothed: Bytes,
    steps: Ints,
    move: Floats,
) -> None:
    """Publish every slice that has a curve. The first row of arguments is as `fit_batch` takes it or leaves it.

    Args:
        carried: (slices, 5) published curves of the last frame at today's years; NaN where there are none.
        beta: (slices,) share of them in the filter.
        enforce: False to filter only.
        cold_tolerance, live_tolerance: of the joint solver, for a surface with no carried curve and for one with.

    What is filled in (`raw` and `scaled` must hold the fits, the integers 0):
        statistics, residual, covariance: of the published curve.
        raw, scaled, enforcement, smoothed, steps, move: see `SVIFit`.
    """
    slices = order.size
    largest = 1
    begin = 0
    while begin < slices:
        end = begin
        while end < slices and surface[order[end]] == surface[order[begin]]:
            end += 1
        largest = max(largest, end - begin)
        begin = end
    s = new_scratch(largest)
    member = np.empty(largest, np.int64)
    first, width = np.empty(largest, np.int64), np.empty(largest, np.int64)
    wanted, pull = np.empty((largest, 5)), np.empty((largest, 5))
    scale, root, slope_max = np.empty(largest), np.empty(largest), np.empty(largest)
    guarded = np.zeros(largest, np.int8)
    vols, variances, knot = np.empty(KNOTS.size), np.empty(KNOTS.size), np.empty(5)
    start = np.empty((slices, 5))
    previous = np.empty(5)

    begin = 0
    while begin < slices:
        end = begin
        n = 0
        continued = filtered = False
        room = 0
        while end < slices and surface[order[end]] == surface[order[begin]]:
            i = order[end]
            end += 1
            if not math.isfinite(fitted_raw[i, 0]):
                continue
            member[n] = i
            scale[n] = theta[i]
            root[n] = math.sqrt(theta[i])
            slope_max[n] = SLOPE_LIMIT / root[n]
            copy(centre[i], wanted[n])
            copy(precision[i], pull[n])
            guarded[n] = 0
            first[n] = blocks[i]
            width[n] = (counts[i] + LANE - 1) // LANE * LANE
            room += width[n] + ROOM
            copy(fitted_raw[i], start[i])
            if math.isfinite(carried[i, 0]):
                from_raw(carried[i], theta[i], previous)
                block = workspace[5 * blocks[i] : 5 * (blocks[i] + width[n])]
                evaluate(block, previous, centre[i], precision[i], s.at_other[0])
                continued = True
                cost = statistics[i, COST] if counts[i] > 0 else 0.0
                if s.at_other[0, 0] < LOST * (1.0 + cost):
                    copy(carried[i], start[i])
                if beta[i] > 0.0 and counts[i] > 0:
                    away = innovation(fitted_scaled[i], previous, covariance[i], beta[i], vols, variances, knot)
                    if away <= GATE:
                        smoothed[i] = FILTERED
                        filtered = True
                    else:
                        smoothed[i] = JUMPED
                        copy(fitted_raw[i], start[i])
            n += 1
        begin = end
        if n == 0:
            continue
        quotes = workspace
        if filtered:
            quotes = np.empty(5 * room)
            at = 0
            for p in range(n):
                i = member[p]
                block = workspace[5 * blocks[i] : 5 * (blocks[i] + width[p])]
                if smoothed[i] == FILTERED:
                    from_raw(carried[i], theta[i], previous)
                    innovation(fitted_scaled[i], previous, covariance[i], beta[i], vols, variances, knot)
                    width[p] += ROOM
                    extend(block, vols, variances, statistics[i, NOISE], beta[i], quotes[5 * at : 5 * (at + width[p])])
                else:
                    copy(block, quotes[5 * at : 5 * (at + width[p])])
                first[p] = at
                at += width[p]
        problem = Problem(quotes, first, width, wanted, pull, scale, root, slope_max)
        done = 0
        if enforce or filtered:
            tolerance = live_tolerance if continued else cold_tolerance
            done = settle(problem, n, s, member, start, fitted_raw, continued, filtered, enforce, tolerance, guarded)
        for p in range(n):
            i = member[p]
            steps[i] = max(done, 0)
            enforcement[i] = AS_FITTED if enforce else 0
            move[i] = 0.0
        if done < 0 or not (enforce or filtered):
            continue
        for p in range(n):
            i = member[p]
            if not enforce and smoothed[i] != FILTERED:
                continue
            copy(s.best[p], scaled[i])
            copy(s.best_raw[p], raw[i])
            used = counts[i]
            block = workspace[5 * blocks[i] : 5 * (blocks[i] + (used + LANE - 1) // LANE * LANE)]
            move[i] = largest_move(block, used, scaled[i], fitted_scaled[i], math.sqrt(theta[i] / years[i]))
            if enforce:
                still = move[i] <= NOTHING or not is_held(problem, n, s, p)
                enforcement[i] = GUARDED if guarded[p] == 1 else AS_FITTED if still else MOVED
            if used > 0:
                mine = rows[offsets[i] : offsets[i] + used]
                fill_residuals(block, mine, scaled[i], residual)
                evaluate(block, scaled[i], centre[i], precision[i], s.at_other[0])
                # The scaled coordinates lie in a valley: a covariance from another point of it says nothing of vols here.
                measure(block, mine, residual, two_sided[i], s.at_other[0], statistics[i], covariance[i])
