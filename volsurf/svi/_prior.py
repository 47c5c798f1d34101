"""The prior of a slice: a weak pull to the shape of its neighbours, stronger the fewer quotes it has."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper
from volsurf.svi._varpro import copy

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

# Medians over 4,443 slices of real Deribit chains in scaled coordinates (α, Û, L̂, μ, ς).
GLOBAL_CENTRE = (-2.0, 0.85, 1.0, 0.1, 1.2)
GLOBAL_PRECISION = (1e-4, 1.0, 1.0, 0.01, 0.01)
NEIGHBOUR_PRECISION = (1e-3, 3.0, 3.0, 0.3, 0.3)
# Chosen, with the fade, on real slices thinned to 1…16 quotes, by the error at the quotes withheld.
THIN_PRECISION = (4.0, 40.0, 40.0, 10.0, 4.0)

ALONE_SHARE = 0.1
"""Of that precision where no neighbour is known: the global centre is a habit of the market, not news of this surface."""

THIN_QUOTES = 7.0
"""Below this many two-sided quotes a slice is thin: its shape is more its neighbours' than its own."""
FADE_QUOTES = 5.0
INFORMATIVE_QUOTES = 5.0
"""A neighbour with fewer two-sided quotes has no shape of its own to lend."""


@helper()
def fade(quotes: float) -> float:
    """1 for an empty slice, ½ at five quotes, 0 for a full one."""
    ratio = quotes / FADE_QUOTES
    square = ratio * ratio
    return 1.0 / (1.0 + square * square * square)


@helper()
def fill_global(quotes: float, centre: Floats, precision: Floats) -> None:
    """Prior of a slice that knows no neighbour yet; the thin-slice prior only where the quotes cannot fix five numbers."""
    for i in range(5):
        centre[i] = GLOBAL_CENTRE[i]
        thin = ALONE_SHARE * THIN_PRECISION[i]
        precision[i] = thin if quotes < THIN_QUOTES and thin > GLOBAL_PRECISION[i] else GLOBAL_PRECISION[i]


@helper()
def has_company(position: int, order: Ints, surface: Ints) -> bool:
    """True if another slice belongs to the same surface."""
    here = surface[order[position]]
    if position > 0 and surface[order[position - 1]] == here:
        return True
    return bool(position + 1 < order.size and surface[order[position + 1]] == here)


@helper()
def neighbours(
    position: int, order: Ints, surface: Ints, quotes: Floats, has_state: Booleans, least: float, found: Ints
) -> int:
    """Fill `found` with up to two slices on each side, by expiry in the same surface, that have a state and `least` quotes."""
    count = 0
    here = surface[order[position]]
    for direction in (-1, 1):
        taken = 0
        at = position + direction
        while 0 <= at < order.size and taken < 2 and surface[order[at]] == here:
            if has_state[order[at]] and quotes[order[at]] >= least:
                found[count] = order[at]
                count += 1
                taken += 1
            at += direction
    return count


@helper()
def fill_centre(
    position: int,
    order: Ints,
    surface: Ints,
    quotes: Floats,
    has_state: Booleans,
    state: Floats,
    given: Floats,
    centre: Floats,
    precision: Floats,
) -> bool:
    """Fill the prior of a slice: the given centre, else its neighbours' median (by coordinate), else the global one.

    Returns whether the centre is one that knows this surface.
    """
    found = np.empty(4, np.int64)
    values = np.empty(4)
    count = neighbours(position, order, surface, quotes, has_state, INFORMATIVE_QUOTES, found)
    if count == 0:
        count = neighbours(position, order, surface, quotes, has_state, 0.0, found)
    informed = count > 0
    if math.isfinite(given[0]):
        copy(given, centre)
        informed = True
    elif informed:
        for i in range(5):
            for j in range(count):
                value = state[found[j], i]
                at = j
                while at > 0 and values[at - 1] > value:
                    values[at] = values[at - 1]
                    at -= 1
                values[at] = value
            middle = count // 2
            centre[i] = values[middle] if count % 2 == 1 else 0.5 * (values[middle - 1] + values[middle])
        # A median by coordinate need not lie on anyone's smile. Its level is put right: every slice has ŵ = 1 at the forward.
        scale = math.exp(centre[4])
        z = centre[3] / scale
        root = math.sqrt(1.0 + z * z)
        centre[0] = 1.0 - 0.5 * scale * (centre[1] * (root - z) + centre[2] * (root + z))
    else:
        for i in range(5):
            centre[i] = GLOBAL_CENTRE[i]
    share = fade(quotes[order[position]])
    for i in range(5):
        base = NEIGHBOUR_PRECISION[i] if informed else GLOBAL_PRECISION[i]
        thin = THIN_PRECISION[i] if informed else ALONE_SHARE * THIN_PRECISION[i]
        precision[i] = base + share * (thin - base)
    return informed
