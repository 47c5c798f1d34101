"""From the caller's quotes to one slice's padded, sorted, scaled workspace."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper
from volsurf.svi._varpro import clamp

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]

USED, REJECTED, NOT_FINITE, BAD_VOL, BAD_ERROR, ZERO_WEIGHT, NO_SLICE = 0, 1, 2, 3, 4, 5, 6
"""Values of `QuoteUse`."""

LANE = 8
"""Each slice's workspace is padded to a multiple of this with quotes of weight 0, so that no pass has a scalar remainder."""

VOL_MIN, VOL_MAX = 1e-4, 100.0
K_MAX = 100.0
YEARS_MIN, YEARS_MAX = 1e-8, 1000.0
ERROR_MIN = 1e-7
WEIGHT_MIN, WEIGHT_MAX = 1e-12, 1e12
THIN_ITERATIONS = 12


@helper()
def check_quote(k: float, vol: float, error: float, weight: float) -> int:
    """Why a quote cannot be used, or USED."""
    if not (math.isfinite(k) and abs(k) <= K_MAX and math.isfinite(vol) and not math.isnan(error)):
        return NOT_FINITE
    if not VOL_MIN <= vol <= VOL_MAX:
        return BAD_VOL
    if not 0.0 < error < math.inf:
        return BAD_ERROR
    if not WEIGHT_MIN <= weight <= WEIGHT_MAX:
        return ZERO_WEIGHT
    return USED


@helper()
def comes_before(i: int, j: int, k: Floats, vol: Floats, error: Floats, side: Bytes, weight: Floats) -> bool:
    if k[i] != k[j]:
        return bool(k[i] < k[j])
    if vol[i] != vol[j]:
        return bool(vol[i] < vol[j])
    if error[i] != error[j]:
        return bool(error[i] < error[j])
    if side[i] != side[j]:
        return bool(side[i] < side[j])
    return bool(weight[i] < weight[j])


@helper()
def sort_rows(rows: Ints, k: Floats, vol: Floats, error: Floats, side: Bytes, weight: Floats) -> None:
    """Shell sort by (k, vol, error, side, weight): the result does not depend on the order in which quotes came."""
    count = rows.size
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap >= 1:
        for i in range(gap, count):
            row = rows[i]
            j = i
            while j >= gap and comes_before(row, rows[j - gap], k, vol, error, side, weight):
                rows[j] = rows[j - gap]
                j -= gap
            rows[j] = row
        gap //= 3


@helper()
def atm_vol(rows: Ints, k: Floats, vol: Floats, side: Bytes, weight: Floats, two_sided: bool) -> float:
    """Median vol of the three strikes nearest the forward; quotes at one strike are averaged: duplicates change nothing.

    Rows are sorted by k. NaN if there is none.
    """
    near = np.empty(3)
    away = np.empty(3)
    for slot in range(3):
        away[slot] = math.inf
    count = 0
    i = 0
    while i < rows.size:
        at = k[rows[i]]
        total = 0.0
        mass = 0.0
        while i < rows.size and k[rows[i]] == at:
            row = rows[i]
            if side[row] == 0 or not two_sided:
                total += weight[row] * vol[row]
                mass += weight[row]
            i += 1
        if mass > 0.0:
            count += 1
            distance = abs(at)
            for slot in range(3):
                if distance < away[slot]:
                    for move in range(2, slot, -1):
                        away[move] = away[move - 1]
                        near[move] = near[move - 1]
                    away[slot] = distance
                    near[slot] = total / mass
                    break
    if count == 0:
        return math.nan
    if count == 1:
        return float(near[0])
    if count == 2:
        return float(0.5 * (near[0] + near[1]))
    low, high = (near[0], near[1]) if near[0] <= near[1] else (near[1], near[0])
    return float(clamp(near[2], low, high))


@helper()
def thin_theta(rows: Ints, k: Floats, vol: Floats, side: Bytes, years: float, theta: float, shape: Floats) -> float:
    """θ at which the few quotes of a slice lie, in the median, on the curve `shape` of its neighbours.

    The quotes of a thin slice may all be far from the forward, where their vol says nothing of σ_ATM but through a shape. Solves
    median_j ln(σ_j²T/(θ ŵ(k_j/√θ))) = 0 by fixed point; θ·ŵ(k/√θ) rises between √θ and θ, so the error at least halves.
    """
    logs = np.empty(rows.size)
    two_sided = False
    for row in rows:
        two_sided = two_sided or side[row] == 0
    scale = math.exp(shape[4])
    for _ in range(THIN_ITERATIONS):
        root_theta = math.sqrt(theta)
        count = 0
        for row in rows:
            if two_sided and side[row] != 0:
                continue
            z = (k[row] / root_theta - shape[3]) / scale
            root = math.sqrt(1.0 + z * z)
            variance = shape[0] + 0.5 * scale * (shape[1] * (root + z) + shape[2] * (root - z))
            value = math.log(vol[row] * vol[row] * years / (theta * (variance if variance > 1e-4 else 1e-4)))
            at = count
            while at > 0 and logs[at - 1] > value:
                logs[at] = logs[at - 1]
                at -= 1
            logs[at] = value
            count += 1
        move = logs[count // 2] if count % 2 == 1 else 0.5 * (logs[count // 2 - 1] + logs[count // 2])
        theta *= math.exp(move)
    return theta


@helper()
def scale_rows(
    rows: Ints,
    k: Floats,
    vol: Floats,
    error: Floats,
    side: Bytes,
    weight: Floats,
    atm: float,
    root_theta: float,
    quotes: Floats,
) -> None:
    """Fill the slice's workspace, columns y, q, g, weight and side; past the quotes it is padding of weight 0."""
    n = quotes.size // 5
    for j in range(n):
        if j < rows.size:
            row = rows[j]
            quotes[j] = k[row] / root_theta
            quotes[n + j] = vol[row] / atm
            quotes[2 * n + j] = atm / (error[row] if error[row] > ERROR_MIN else ERROR_MIN)
            quotes[3 * n + j] = weight[row]
            quotes[4 * n + j] = side[row]
        else:
            quotes[j], quotes[n + j], quotes[2 * n + j], quotes[3 * n + j], quotes[4 * n + j] = 0.0, 1.0, 0.0, 0.0, 0.0
