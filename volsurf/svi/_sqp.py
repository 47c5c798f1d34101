"""The joint solver: all slices of one surface moved together, as little as their quotes allow, until they are certified.

Damped sequential quadratic programming on the merit J + ν Σ max(0, −c): J is the objective of the fits, c the constraints of
`volsurf.svi._constraints`. Where arbitrage is left the certificates name a strike, and that strike is a constraint from then on.

When a step brings less than half of what the quadratic model promised, only its (μ, ς) are kept and (α, Û, L̂), in which variance
is linear, are solved for afresh by the same program at the trial point; the better trial is taken. That is the constrained form
of the variable projection in `volsurf.svi._lm`, and without it the solver stalls in the same valley.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper
from volsurf.svi._bernstein import CROSSING, DENSITY, PROVED, WORK_SHAPE
from volsurf.svi._constraints import (
    BUTTERFLY,
    CALENDAR,
    FLOOR_MARGIN,
    G_MARGIN,
    G_NEAR,
    GAP_NEAR,
    NODES,
    TAIL_MARGIN,
    VARIANCE_MARGIN,
    add_cut,
    cut_value,
    g_row,
    is_minimum,
    refined,
    scan_g,
    scan_gap,
    variance_row,
)
from volsurf.svi._coordinates import to_raw
from volsurf.svi._lm import MU_MAX, VARSIGMA_MAX, VARSIGMA_MIN, clip, evaluate
from volsurf.svi._qp import COLUMNS, FAR, NEAR, VALUE, solve_qp
from volsurf.svi._varpro import SLOPE_MIN, copy
from volsurf.svi.arbitrage import certify_slice
from volsurf.svi.calendar import certify_pair

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CUTS_PER_SLICE = 24
DAMPING_START = 1e-2
DAMPING_LEAST = 1e-7
DAMPING_MOST = 1e6
SHIFT_MAX = 0.7
"""Trust box of one step: on μ and ς, and on the share of itself that a wing may lose."""
PENALTY_MOST = 1e8
RESOLVE_BELOW = 0.5
ACCEPT_ABOVE = 1e-3
PLAIN_DAMPING = 1e-2
QP_SHARE = 1e-5
"""Of the tolerance: accuracy of one quadratic program."""


class Problem(NamedTuple):
    """What the slices of one surface want, in order of expiry; a row each."""

    quotes: Floats
    """Scaled quotes of all slices, padded; see `_prepare.scale_rows`."""
    first: Ints
    width: Ints
    centre: Floats
    precision: Floats
    theta: Floats
    root: Floats
    """√θ."""
    slope_max: Floats


class Scratch(NamedTuple):
    """The solver's memory, for any surface of as many slices."""

    x: Floats
    raw: Floats
    system: Floats
    trial: Floats
    at_trial: Floats
    other: Floats
    at_other: Floats
    best: Floats
    best_raw: Floats
    rows: Floats
    position: Ints
    coupled: Ints
    dual: Floats
    spare_dual: Floats
    box_dual: Floats
    spare_box_dual: Floats
    kinds: Ints
    cut_positions: Ints
    strikes: Floats
    lower: Floats
    upper: Floats
    inverse: Floats
    factor: Floats
    active: Ints
    matrix: Floats
    change: Floats
    step: Floats
    values: Floats
    work: Floats


@helper()
def new_scratch(n: int) -> Scratch:
    cuts = CUTS_PER_SLICE * n
    rows = cuts + 3 * n
    return Scratch(
        np.empty((n, 5)), np.empty((n, 5)), np.empty((n, 21)), np.empty((n, 5)), np.empty((n, 21)), np.empty((n, 5)),
        np.empty((n, 21)), np.empty((n, 5)), np.empty((n, 5)), np.empty((rows, COLUMNS)), np.empty(rows, np.int64),
        np.empty(rows, np.int64), np.empty(rows), np.empty(rows), np.empty((n, 4)), np.empty((n, 4)),
        np.empty(cuts, np.int64), np.empty(cuts, np.int64), np.empty(cuts), np.empty((n, 4)), np.empty((n, 4)),
        np.empty((n, 5, 5)), np.empty((5, 5)), np.empty(rows, np.int64), np.empty((4 * n, 4 * n)),
        np.empty(4 * n), np.empty((n, 5)), np.empty(NODES),
        np.empty(WORK_SHAPE),
    )  # fmt: skip


@helper()
def evaluate_all(problem: Problem, n: int, x: Floats, system: Floats) -> float:
    """Cost, gradient and Gauss–Newton matrix of every slice; the cost of all."""
    total = 0.0
    for p in range(n):
        block = problem.quotes[5 * problem.first[p] : 5 * (problem.first[p] + problem.width[p])]
        evaluate(block, x[p], problem.centre[p], problem.precision[p], system[p])
        total += system[p, 0]
    return total


@helper()
def certify_all(problem: Problem, n: int, s: Scratch, cuts: int) -> tuple[bool, int]:
    """Whether the doubles in `raw` are proved free of arbitrage; strikes where they are not become cuts."""
    base = 3 * n - 2
    proved = True
    raw = s.raw
    for p in range(n):
        a, b, rho, m, sigma = raw[p, 0], raw[p, 1], raw[p, 2], raw[p, 3], raw[p, 4]
        verdict, condition, k, _, _ = certify_slice(a, b, rho, m, sigma, s.work)
        if verdict != PROVED:
            proved = False
            if condition == DENSITY:
                cuts = add_cut(
                    BUTTERFLY, p, k, s.x, problem.theta, problem.root, s.kinds, s.cut_positions, s.strikes,
                    s.dual[base:], cuts,
                )  # fmt: skip
        if p > 0:
            verdict, condition, k, _, _ = certify_pair(
                raw[p - 1, 0], raw[p - 1, 1], raw[p - 1, 2], raw[p - 1, 3], raw[p - 1, 4], a, b, rho, m, sigma, s.work
            )
            if verdict != PROVED:
                proved = False
                if condition == CROSSING:
                    cuts = add_cut(
                        CALENDAR, p, k, s.x, problem.theta, problem.root, s.kinds, s.cut_positions, s.strikes,
                        s.dual[base:], cuts,
                    )  # fmt: skip
    return proved, cuts


@helper()
def scan(problem: Problem, n: int, s: Scratch, cuts: int) -> int:
    """Make cuts where a curve is nearest to arbitrage. Returns how many there are."""
    base = 3 * n - 2
    x, theta, root, values = s.x, problem.theta, problem.root, s.values
    for p in range(n):
        if scan_g(x[p], theta[p], values) < G_NEAR:
            for j in range(NODES):
                if is_minimum(values, j, G_NEAR):
                    k = root[p] * (x[p, 3] + math.exp(x[p, 4]) * math.sinh(refined(values, j)))
                    cuts = add_cut(
                        BUTTERFLY, p, k, x, theta, root, s.kinds, s.cut_positions, s.strikes, s.dual[base:], cuts
                    )
        if p == 0:
            continue
        for own in (p - 1, p):
            other = 2 * p - 1 - own
            lowest = scan_gap(x[own], x[other], root[own] / root[other], theta[own] / theta[other], own == p, values)
            if lowest < GAP_NEAR:
                for j in range(NODES):
                    if is_minimum(values, j, GAP_NEAR):
                        k = root[own] * (x[own, 3] + math.exp(x[own, 4]) * math.sinh(refined(values, j)))
                        cuts = add_cut(
                            CALENDAR, p, k, x, theta, root, s.kinds, s.cut_positions, s.strikes, s.dual[base:], cuts
                        )
    return cuts


@helper()
def violation(problem: Problem, n: int, s: Scratch, cuts: int, x: Floats) -> float:
    """Σ max(0, −c) at x."""
    total = 0.0
    root = problem.root
    for p in range(n):
        value = x[p, 0] + math.exp(x[p, 4]) * math.sqrt(x[p, 1] * x[p, 2]) - FLOOR_MARGIN
        total += -value if value < 0.0 else 0.0
        if p > 0:
            for j in (1, 2):
                value = 1.0 - (1.0 + TAIL_MARGIN) * root[p - 1] * x[p - 1, j] / (root[p] * x[p, j])
                total += -value if value < 0.0 else 0.0
    for c in range(cuts):
        value = cut_value(s.kinds[c], s.cut_positions[c], s.strikes[c], x, problem.theta, root)
        total += -value if value < 0.0 else 0.0
    return total


@helper()
def linearise(problem: Problem, n: int, s: Scratch, cuts: int, x: Floats) -> int:
    """Fill the rows of the quadratic program at x. Returns how many there are."""
    rows, position, coupled = s.rows, s.position, s.coupled
    theta, root = problem.theta, problem.root
    for p in range(n):
        product = math.exp(x[p, 4]) * math.sqrt(x[p, 1] * x[p, 2])
        position[p], coupled[p] = p, 0
        rows[p, VALUE] = x[p, 0] + product - FLOOR_MARGIN
        rows[p, FAR] = 1.0
        rows[p, FAR + 1] = 0.5 * product / x[p, 1]
        rows[p, FAR + 2] = 0.5 * product / x[p, 2]
        rows[p, FAR + 3] = 0.0
        rows[p, FAR + 4] = product
        if p > 0:
            for j in (1, 2):
                r = n + 2 * (p - 1) + j - 1
                position[r], coupled[r] = p, 1
                ratio = (1.0 + TAIL_MARGIN) * root[p - 1] / (root[p] * x[p, j])
                for i in range(10):
                    rows[r, FAR + i] = 0.0
                rows[r, VALUE] = 1.0 - ratio * x[p - 1, j]
                rows[r, FAR + j] = 1.0 / x[p, j]
                rows[r, NEAR + j] = -ratio
    base = 3 * n - 2
    for c in range(cuts):
        r = base + c
        p = s.cut_positions[c]
        position[r] = p
        k = s.strikes[c]
        if s.kinds[c] == BUTTERFLY:
            coupled[r] = 0
            rows[r, VALUE] = g_row(k / root[p], x[p], theta[p], rows[r], FAR) - G_MARGIN
        else:
            coupled[r] = 1
            near = variance_row(k / root[p - 1], x[p - 1], 1.0, rows[r], NEAR)
            level = theta[p] / (theta[p - 1] * near)
            ratio = level * variance_row(k / root[p], x[p], level, rows[r], FAR)
            for i in range(5):
                rows[r, NEAR + i] *= -(1.0 + VARIANCE_MARGIN) / near
            rows[r, VALUE] = ratio - 1.0 - VARIANCE_MARGIN
    return base + cuts


@helper()
def set_bounds(problem: Problem, n: int, x: Floats, lower: Floats, upper: Floats) -> None:
    for p in range(n):
        for j in range(2):
            lower[p, j] = max(-SHIFT_MAX * x[p, 1 + j], SLOPE_MIN - x[p, 1 + j])
            upper[p, j] = problem.slope_max[p] - x[p, 1 + j]
        lower[p, 2] = max(-SHIFT_MAX, -MU_MAX - x[p, 3])
        upper[p, 2] = min(SHIFT_MAX, MU_MAX - x[p, 3])
        lower[p, 3] = max(-SHIFT_MAX, VARSIGMA_MIN - x[p, 4])
        upper[p, 3] = min(SHIFT_MAX, VARSIGMA_MAX - x[p, 4])


@helper()
def model_change(n: int, s: Scratch, count: int, penalty: float) -> float:
    """What the quadratic model says the merit loses by the step, up to the constant Σ max(0, −c) at x."""
    total = 0.0
    for p in range(n):
        position = 6
        for i in range(5):
            total += s.system[p, 1 + i] * s.step[p, i]
            for j in range(i, 5):
                weight = 0.5 if i == j else 1.0
                total += weight * s.system[p, position] * s.step[p, i] * s.step[p, j]
                position += 1
    left = 0.0
    for r in range(count):
        p = s.position[r]
        value = s.rows[r, VALUE]
        for i in range(5):
            value += s.rows[r, FAR + i] * s.step[p, i]
        if s.coupled[r] == 1:
            for i in range(5):
                value += s.rows[r, NEAR + i] * s.step[p - 1, i]
        left += -value if value < 0.0 else 0.0
    return -total - penalty * left


@helper()
def store_best(n: int, s: Scratch) -> None:
    for p in range(n):
        copy(s.x[p], s.best[p])
        copy(s.raw[p], s.best_raw[p])


@helper()
def raised(penalty: float, n: int, system: Floats) -> float:
    """The next penalty: ten times, and no less than the objective pulls on variance and wings, which it has to outweigh."""
    penalty *= 10.0
    for p in range(n):
        for j in range(3):
            penalty = max(penalty, abs(system[p, 1 + j]))
    return min(penalty, PENALTY_MOST)


@helper()
def improve(
    problem: Problem,
    n: int,
    s: Scratch,
    cuts: int,
    penalty: float,
    tolerance: float,
    max_steps: int,
    plain: bool,
    constrained: bool,
    best_cost: float,
) -> tuple[int, int, float, float]:
    """Lower the merit from `x` (whose doubles are `raw`). Returns steps, cuts, and the costs of the start and of the best point.

    Both are of certified points, infinite where there is none. The best is left in `best` and `best_raw`; its cost stays as it
    was given where none better was found.

    Args:
        max_steps: 0 to certify the start only.
        plain: take every step as it comes, without merit or damping, until the first certified point.
        constrained: False to minimise the objective alone.
    """
    damping = DAMPING_START
    last_violation = start_cost = math.inf
    steps = small = stalls = int(np.int64(0))
    moved = True
    cost = evaluate_all(problem, n, s.x, s.system)
    cap = PENALTY_MOST if plain else penalty
    for r in range(s.dual.size):
        s.dual[r] = 0.0
    for p in range(n):
        for j in range(4):
            s.box_dual[p, j] = 0.0
    while True:
        if moved:
            proved = True
            if constrained:
                proved, cuts = certify_all(problem, n, s, cuts)
            if proved and steps == 0:
                start_cost = cost
            if proved and cost < best_cost:
                best_cost = cost
                store_best(n, s)
            if steps == max_steps or (plain and proved) or (small >= 2 and best_cost < math.inf):
                break
            if constrained:
                cuts = scan(problem, n, s, cuts)
        elif steps == max_steps:
            break
        count = linearise(problem, n, s, cuts, s.x) if constrained else 0
        broken = 0.0
        for r in range(count):
            broken += -s.rows[r, VALUE] if s.rows[r, VALUE] < 0.0 else 0.0
        if moved and not plain:
            stalls = stalls + 1 if broken > 0.7 * last_violation and broken > 1e-9 else 0
            last_violation = broken
            if (stalls == 2 or small >= 2) and cap < PENALTY_MOST:
                cap = raised(cap, n, s.system)
                stalls = small = 0
        steps += 1
        merit = cost + cap * broken
        accuracy = QP_SHARE * tolerance * (1.0 + cost)
        predicted = trial_cost = trial_merit = 0.0
        settled = False
        for attempt in range(2):
            # First the whole step from x; then, if it disappoints, (α, Û, L̂) afresh from where it led.
            base, system = (s.x, s.system) if attempt == 0 else (s.trial, s.at_trial)
            dual, box_dual = (s.dual, s.box_dual) if attempt == 0 else (s.spare_dual, s.spare_box_dual)
            target, at_target = (s.trial, s.at_trial) if attempt == 0 else (s.other, s.at_other)
            set_bounds(problem, n, base, s.lower, s.upper)
            solve_qp(
                n, system, PLAIN_DAMPING if plain else damping, 5 - 2 * attempt, s.rows, s.position, s.coupled, count,
                s.lower, s.upper, cap, accuracy, dual, box_dual, s.factor, s.inverse, s.active, s.matrix, s.change,
                s.step,
            )  # fmt: skip
            if attempt == 0:
                predicted = model_change(n, s, count, cap) + cap * broken
                if not plain and predicted < 0.3 * tolerance * (1.0 + cost):
                    settled = True
                    break
            for p in range(n):
                for i in range(5):
                    target[p, i] = base[p, i] + s.step[p, i]
                clip(target[p], problem.slope_max[p])
            target_cost = evaluate_all(problem, n, target, at_target)
            target_merit = target_cost
            if count > 0:
                target_merit += cap * violation(problem, n, s, cuts, target)
            if attempt == 0:
                trial_cost, trial_merit = target_cost, target_merit
                if plain or merit - trial_merit >= RESOLVE_BELOW * predicted:
                    break
                if constrained:
                    linearise(problem, n, s, cuts, s.trial)
                copy(s.dual, s.spare_dual)
                for p in range(n):
                    copy(s.box_dual[p], s.spare_box_dual[p])
            elif not trial_merit <= target_merit:
                trial_cost, trial_merit = target_cost, target_merit
                for p in range(n):
                    copy(s.other[p], s.trial[p])
                    copy(s.at_other[p], s.at_trial[p])
        if settled:
            if best_cost < math.inf or cap >= PENALTY_MOST:
                break
            cap = raised(cap, n, s.system)
            moved = False
            continue
        gain = merit - trial_merit
        moved = plain or gain > ACCEPT_ABOVE * predicted
        if moved:
            small = small + 1 if gain < tolerance * (1.0 + cost) else 0
            cost = trial_cost
            for p in range(n):
                copy(s.trial[p], s.x[p])
                copy(s.at_trial[p], s.system[p])
                to_raw(s.x[p], problem.theta[p], s.raw[p])
            if gain > 0.5 * predicted:
                damping = max(0.2 * damping, DAMPING_LEAST)
            elif gain < 0.1 * predicted:
                damping *= 4.0
        else:
            damping *= 8.0
            if damping > DAMPING_MOST:
                if best_cost < math.inf or cap >= PENALTY_MOST:
                    break
                cap = raised(cap, n, s.system)
                damping = DAMPING_START
    return steps, cuts, start_cost, best_cost
