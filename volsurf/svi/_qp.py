"""The step of the joint solver: an elastic quadratic program over all slices of a surface, by Hildreth's dual ascent.

    minimise over δ   Σ_i [g_iᵀδ_i + ½ δ_iᵀ(A_i + λ diag A_i)δ_i] + ν Σ_q s_q
    subject to        c_q + a_qᵀδ ≥ −s_q,  s_q ≥ 0,       lower ≤ δ ≤ upper

A row q touches one slice or two neighbouring ones. Its multiplier lives in [0, ν]: that cap *is* the elasticity, a row that costs
more than ν is given up. Hildreth (1957) maximises the dual over one multiplier at a time, which needs A_i⁻¹ only.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

VALUE, INVERSE, FAR, NEAR, V_FAR, V_NEAR, COLUMNS = 0, 1, 2, 7, 12, 17, 22
"""Columns of a row: c, 1/(aᵀH⁻¹a), a on its slice (5) and on the slice before (5), H⁻¹a on either (5 + 5)."""

MAX_SWEEPS = 60


@helper()
def invert_damped(system: Floats, damping: float, size: int, factor: Floats, out: Floats) -> None:
    """out = (A + damping·diag A)⁻¹ on the first `size` coordinates and 0 elsewhere; A as packed by `_lm.accumulate`."""
    position = 6
    for i in range(5):
        for j in range(i, 5):
            factor[j, i] = system[position]
            out[i, j] = 0.0
            out[j, i] = 0.0
            position += 1
        factor[i, i] *= 1.0 + damping
    for j in range(size):
        diagonal = factor[j, j]
        floor = 1e-13 * diagonal
        for m in range(j):
            diagonal -= factor[j, m] * factor[j, m] * factor[m, m]
        diagonal = diagonal if diagonal > floor else floor
        factor[j, j] = diagonal
        for i in range(j + 1, size):
            value = factor[i, j]
            for m in range(j):
                value -= factor[i, m] * factor[j, m] * factor[m, m]
            factor[i, j] = value / diagonal
    # Columns of the inverse of L D Lᵀ, from the last row up; the inverse is symmetric.
    for column in range(size):
        for i in range(column, size):
            value = 1.0 if i == column else 0.0
            for m in range(column, i):
                value -= factor[i, m] * out[m, column]
            out[i, column] = value
        for i in range(column, size):
            out[i, column] /= factor[i, i]
        for i in range(size - 1, column - 1, -1):
            value = out[i, column]
            for m in range(i + 1, size):
                value -= factor[m, i] * out[m, column]
            out[i, column] = value
    for i in range(size):
        for j in range(i + 1, size):
            out[i, j] = out[j, i]


@helper()
def prepare(
    n: int,
    system: Floats,
    damping: float,
    size: int,
    rows: Floats,
    position: Ints,
    coupled: Ints,
    count: int,
    dual: Floats,
    box_dual: Floats,
    factor: Floats,
    inverse: Floats,
    step: Floats,
) -> None:
    """Invert the metric, carry the rows through it, and set the step that the multipliers stand for."""
    for p in range(n):
        invert_damped(system[p], damping, size, factor, inverse[p])
        for i in range(5):
            value = 0.0
            for j in range(5):
                value -= inverse[p, i, j] * system[p, 1 + j]
            for j in range(4):
                value += inverse[p, i, 1 + j] * box_dual[p, j]
            step[p, i] = value
    for r in range(count):
        p = position[r]
        total = 0.0
        for i in range(5):
            value = 0.0
            for j in range(5):
                value += inverse[p, i, j] * rows[r, FAR + j]
            rows[r, V_FAR + i] = value
            total += value * rows[r, FAR + i]
            step[p, i] += dual[r] * value
        if coupled[r] == 1:
            for i in range(5):
                value = 0.0
                for j in range(5):
                    value += inverse[p - 1, i, j] * rows[r, NEAR + j]
                rows[r, V_NEAR + i] = value
                total += value * rows[r, NEAR + i]
                step[p - 1, i] += dual[r] * value
        rows[r, INVERSE] = 1.0 / total if total > 1e-300 else 0.0


@helper()
def sweep_row(r: int, rows: Floats, position: Ints, coupled: Ints, dual: Floats, cap: float, step: Floats) -> float:
    """Maximise the dual over one row's multiplier; the size of the change in the metric's norm, squared."""
    row = rows[r]
    p = position[r]
    far = step[p]
    value = row[VALUE]
    for i in range(5):
        value += row[FAR + i] * far[i]
    if coupled[r] == 1:
        near = step[p - 1]
        for i in range(5):
            value += row[NEAR + i] * near[i]
    old = dual[r]
    new = old - value * row[INVERSE]
    new = 0.0 if new < 0.0 else cap if new > cap else new
    change = new - old
    if change == 0.0:
        return 0.0
    dual[r] = new
    for i in range(5):
        far[i] += change * row[V_FAR + i]
    if coupled[r] == 1:
        near = step[p - 1]
        for i in range(5):
            near[i] += change * row[V_NEAR + i]
    return float(change * change / row[INVERSE])


@helper()
def sweep_box(p: int, j: int, inverse: Floats, lower: Floats, upper: Floats, box_dual: Floats, step: Floats) -> float:
    """As `sweep_row`, for the two bounds of coordinate j + 1 of slice p, which share one signed multiplier."""
    slope = inverse[p, 1 + j, 1 + j]
    old = box_dual[p, j]
    free = step[p, 1 + j] - old * slope
    new = 0.0
    if free < lower[p, j]:
        new = (lower[p, j] - free) / slope
    elif free > upper[p, j]:
        new = (upper[p, j] - free) / slope
    change = new - old
    if change == 0.0:
        return 0.0
    box_dual[p, j] = new
    for i in range(5):
        step[p, i] += change * inverse[p, i, 1 + j]
    return float(change * change * slope)


@helper()
def overlap(p: int, coupled: int, row: Floats, q: int, other_coupled: int, other: Floats) -> float:
    """a_rᵀH⁻¹a_q of two rows."""
    total = 0.0
    if p == q:
        for i in range(5):
            total += row[FAR + i] * other[V_FAR + i]
        if coupled == 1 and other_coupled == 1:
            for i in range(5):
                total += row[NEAR + i] * other[V_NEAR + i]
    elif p == q + 1 and coupled == 1:
        for i in range(5):
            total += row[NEAR + i] * other[V_FAR + i]
    elif q == p + 1 and other_coupled == 1:
        for i in range(5):
            total += row[FAR + i] * other[V_NEAR + i]
    return total


@helper()
def newton(
    held: int,
    active: Ints,
    rows: Floats,
    position: Ints,
    coupled: Ints,
    dual: Floats,
    cap: float,
    step: Floats,
    matrix: Floats,
    change: Floats,
) -> None:
    """Solve for all multipliers that are not at a bound at once, and go there as far as none meets its bound.

    The dual is concave, so every part of the way is a gain. Where sweeps creep, because rows are nearly parallel in the metric,
    this arrives: sweeps alone take ten times as many.
    """
    for a in range(held):
        r = active[a]
        p = position[r]
        row = rows[r]
        value = row[VALUE]
        for i in range(5):
            value += row[FAR + i] * step[p, i]
        if coupled[r] == 1:
            for i in range(5):
                value += row[NEAR + i] * step[p - 1, i]
        change[a] = -value
        for b in range(a + 1):
            q = active[b]
            matrix[a, b] = overlap(p, coupled[r], row, position[q], coupled[q], rows[q])
        matrix[a, a] *= 1.0 + 1e-9
    for j in range(held):
        diagonal = matrix[j, j]
        for m in range(j):
            diagonal -= matrix[j, m] * matrix[j, m]
        floor = 1e-12 * matrix[j, j]
        diagonal = math.sqrt(diagonal if diagonal > floor else floor)
        matrix[j, j] = diagonal
        for i in range(j + 1, held):
            value = matrix[i, j]
            for m in range(j):
                value -= matrix[i, m] * matrix[j, m]
            matrix[i, j] = value / diagonal
    for i in range(held):
        value = change[i]
        for m in range(i):
            value -= matrix[i, m] * change[m]
        change[i] = value / matrix[i, i]
    for i in range(held - 1, -1, -1):
        value = change[i]
        for m in range(i + 1, held):
            value -= matrix[m, i] * change[m]
        change[i] = value / matrix[i, i]
    share = 1.0
    for a in range(held):
        old = dual[active[a]]
        if old + change[a] < 0.0:
            share = min(share, -old / change[a])
        elif old + change[a] > cap:
            share = min(share, (cap - old) / change[a])
    for a in range(held):
        r = active[a]
        p = position[r]
        old = dual[r]
        new = old + share * change[a]
        new = 0.0 if new < 1e-12 * old else cap if new > cap else new
        dual[r] = new
        for i in range(5):
            step[p, i] += (new - old) * rows[r, V_FAR + i]
        if coupled[r] == 1:
            for i in range(5):
                step[p - 1, i] += (new - old) * rows[r, V_NEAR + i]


@helper()
def solve_qp(
    n: int,
    system: Floats,
    damping: float,
    size: int,
    rows: Floats,
    position: Ints,
    coupled: Ints,
    count: int,
    lower: Floats,
    upper: Floats,
    cap: float,
    accuracy: float,
    dual: Floats,
    box_dual: Floats,
    factor: Floats,
    inverse: Floats,
    active: Ints,
    matrix: Floats,
    change: Floats,
    step: Floats,
) -> int:
    """Fill `step` with the solution, starting from the multipliers given. Returns the sweeps.

    Args:
        size: 5, or 3 to keep (μ, ς) where they are.
        accuracy: stop when no multiplier moved the step by more than the root of this in the metric's norm.
    """
    boxes = size - 1
    for r in range(count):
        dual[r] = dual[r] if dual[r] < cap else cap
    if size < 5:
        for p in range(n):
            box_dual[p, 2] = box_dual[p, 3] = 0.0
    prepare(n, system, damping, size, rows, position, coupled, count, dual, box_dual, factor, inverse, step)
    sweeps = int(np.int64(0))
    while sweeps < MAX_SWEEPS:
        sweeps += 1
        largest = 0.0
        held = int(np.int64(0))
        for r in range(count):
            if rows[r, INVERSE] > 0.0:
                gain = sweep_row(r, rows, position, coupled, dual, cap, step)
                largest = gain if gain > largest else largest
                if 0.0 < dual[r] < cap:
                    active[held] = r
                    held += 1
        for p in range(n):
            for j in range(boxes):
                gain = sweep_box(p, j, inverse, lower, upper, box_dual, step)
                largest = gain if gain > largest else largest
        if largest <= accuracy:
            break
        if 1 < held <= matrix.shape[0]:
            newton(held, active, rows, position, coupled, dual, cap, step, matrix, change)
    return sweeps
