"""The certificates of whole surfaces in one call: of every slice, and of every pair of consecutive expiries.

A frame of three dozen slices costs as much in calls and array objects as in arithmetic, unless it is one call.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from volsurf._jit import ensure_compiled, kernel
from volsurf.svi._approach import SCAN_SHAPE
from volsurf.svi._bernstein import WORK_SHAPE
from volsurf.svi.arbitrage import report_slice
from volsurf.svi.calendar import report_pair
from volsurf.svi.certificate import Certificate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]


def surface_certificates(raw: Floats, order: Ints, surface: Ints) -> tuple[Certificate, Certificate, Ints, Ints]:
    """Butterfly certificates of all slices, calendar certificates of the pairs, and each pair's near and far index.

    Args:
        raw: (n, 5) a, b, rho, m, sigma of each slice; a row of NaN has no curve, and its neighbours pair with each other.
        order: slice indices sorted by surface, then time to expiry.
        surface: number of the surface each slice belongs to.
    """
    ensure_compiled("svi")
    n = len(raw)
    # Copies, because numba would compile the kernel afresh for read-only arrays.
    codes, places, nodes, pairs = certify_surfaces(raw.copy(), order.copy(), surface.copy())
    butterfly = Certificate("butterfly", codes[0, :n], codes[1, :n], places[0, :n], places[1, :n], nodes[:n])
    calendar = Certificate("calendar", codes[0, n:], codes[1, n:], places[0, n:], places[1, n:], nodes[n:])
    return butterfly, calendar, pairs[0], pairs[1]


@kernel(
    "Tuple((int8[:, ::1], float64[:, ::1], int32[::1], int64[:, ::1]))(float64[:, ::1], int64[::1], int64[::1])",
    group="svi",
)
def certify_surfaces(raw: Floats, order: Ints, surface: Ints) -> tuple[Bytes, Floats, npt.NDArray[np.int32], Ints]:
    """Verdict and condition, k and value, and nodes of each slice and then of each pair; near and far slice of each pair."""
    n = raw.shape[0]
    last = -1
    count = 0
    for i in order:
        if np.isfinite(raw[i, 0]):
            count += last >= 0 and surface[last] == surface[i]
            last = i
    codes = np.empty((2, n + count), np.int8)
    places = np.empty((2, n + count), np.float64)
    nodes = np.empty(n + count, np.int32)
    pairs = np.empty((2, count), np.int64)
    work = np.empty(WORK_SHAPE, np.float64)
    scan = np.empty(SCAN_SHAPE, np.float64)
    last = -1
    pair = 0
    for i in order:
        a, b, rho, m, sigma = raw[i, 0], raw[i, 1], raw[i, 2], raw[i, 3], raw[i, 4]
        codes[0, i], codes[1, i], places[0, i], places[1, i], nodes[i] = report_slice(a, b, rho, m, sigma, work, scan)
        if not np.isfinite(a):
            continue
        if last >= 0 and surface[last] == surface[i]:
            j = n + pair
            codes[0, j], codes[1, j], places[0, j], places[1, j], nodes[j] = report_pair(
                raw[last, 0], raw[last, 1], raw[last, 2], raw[last, 3], raw[last, 4], a, b, rho, m, sigma, work, scan
            )
            pairs[0, pair], pairs[1, pair] = last, i
            pair += 1
        last = i
    return codes, places, nodes, pairs
