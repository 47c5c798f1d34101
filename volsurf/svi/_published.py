"""What enforcement and filter did to a slice, and what the next frame needs of this one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]


class Enforcement(IntEnum):
    """What was done to a slice so that its surface is free of arbitrage.

    A slice of a surface that had to be moved still counts as fitted where no constraint held it: it then is where its quotes (and
    the filter) have it, to the tolerance of the solver.
    """

    OFF = 0
    AS_FITTED = 1
    MOVED = 2
    GUARDED = 3

    @property
    def label(self) -> str:
        """One or two words for a table."""
        return _LABELS[self]

    @property
    def sentence(self) -> str:
        """What it means for somebody who trades on the curve."""
        return _SENTENCES[self]


_LABELS = {
    Enforcement.OFF: "off",
    Enforcement.AS_FITTED: "as fitted",
    Enforcement.MOVED: "moved",
    Enforcement.GUARDED: "guarded",
}
_SENTENCES = {
    Enforcement.OFF: "as its quotes have it; arbitrage was not looked for",
    Enforcement.AS_FITTED: "free of arbitrage as its quotes have it",
    Enforcement.MOVED: "moved together with its neighbours until free of arbitrage, as little as its quotes allow",
    Enforcement.GUARDED: "pulled to a curve that is free of arbitrage by construction, because its quotes and its neighbours' "
    "allow no other: do not quote on it",
}


class Smoothed(IntEnum):
    """What the temporal filter did to a slice."""

    OFF = 0
    """No filter was asked for, or there was no previous curve."""
    FILTERED = 1
    """Pulled to its previous curve."""
    JUMPED = 2
    """The quotes moved by more than their noise: the gate opened and they alone decide."""


@dataclass(frozen=True, eq=False)
class Continuation:
    """All that a fit needs of the last one to continue from it: five published numbers a slice.

    Curves are carried on at the same vols at the same log-moneyness, whatever time has passed. Everything else is derived.
    """

    key: Ints
    """(slices,) identity by which slices find themselves."""
    years: Floats
    """(slices,) time to expiry when `raw` was published."""
    raw: Floats
    """(slices, 5) published a, b, rho, m, sigma; NaN where there was no curve."""
    result: Bytes
    """(slices,) `FitResult` codes: only a slice that was fitted to the end starts its next fit and lends its shape."""
    fitted_raw: Floats | None = None
    """(slices, 5) what the quotes alone gave, a nearer start for the next fit to quotes alone; `raw` if not given."""

    def __len__(self) -> int:
        return int(self.years.size)
