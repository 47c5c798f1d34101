"""What becomes of an expiry whose quotes have all gone for the moment: its last curve is carried on.

Market makers pull their quotes when something happens and are back within seconds. An expiry without quotes would take the shape
and level of its neighbours and jump back later; so for as long as a quote is believed (`KEPT_NS`) it keeps the curve it had, with
the same vols at the same log-moneyness while time passes. Neighbours that move across it push it: it enters the joint fit as
eleven pseudo-quotes that lie on the curve, with wide error bars, so that it is certified with the others and gives way where
they disagree. Its prior is its own shape, so without a disagreement none of its five numbers changes but for the time that
passed. An expiry that never had quotes has no curve to keep, and stays a copy of its neighbours' shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from volsurf.instruments import BoolArray, FloatArray, IntArray
from volsurf.surface.smile_columns import SmileColumns
from volsurf.svi.params import RawSVI

T = TypeVar("T", bound=np.generic)

KEPT_NS = 300_000_000_000
"""How long a curve outlives the last quote of its own."""

# Three knots at the forward: the fit takes the median of the three strikes nearest to it as the level of the slice, which is then
# that of the curve itself.
_KNOTS = np.array([-3.0, -2.0, -1.2, -0.6, -1e-6, 0.0, 1e-6, 0.6, 1.2, 2.0, 3.0])
_ERROR = 0.02
"""Error bar of a pseudo-quote as a share of the vol at the forward: a vol point at 50 %."""


@dataclass(frozen=True, slots=True, eq=False)
class FitInput:
    """What the batch fit is given: the quotes of the smiles, and pseudo-quotes of kept curves after those of their smile."""

    log_moneyness: FloatArray
    vol: FloatArray
    error: FloatArray
    side: npt.NDArray[np.int8]
    offsets: IntArray
    prior_centre: FloatArray | None
    real: BoolArray | None
    """False for pseudo-quotes, shape (rows,); None where there are none."""

    @classmethod
    def of(
        cls, columns: SmileColumns, kept: IntArray, carried: FloatArray, centre: FloatArray | None = None
    ) -> FitInput:
        """
        Args:
            kept: positions of the smiles whose curve is kept, shape (m,).
            carried: their a, b, rho, m, sigma at today's years, shape (m, 5).
            centre: of the priors of the others, shape (smiles, 5), NaN for that of the neighbours.
        """
        if not kept.size:
            return cls(columns.log_moneyness, columns.vol, columns.error, columns.side, columns.offsets, centre, None)
        curves = RawSVI(*carried.T)
        root = np.sqrt(curves.total_variance(0.0))
        k = root[:, None] * _KNOTS
        vol = curves.vol(k, columns.years[kept])
        error = np.repeat(_ERROR * root / np.sqrt(columns.years[kept]), len(_KNOTS))
        place = np.repeat(columns.offsets[kept + 1], len(_KNOTS))
        added = np.zeros(len(columns) + 1, np.int64)
        added[kept + 1] = len(_KNOTS)
        centre = np.full((len(columns), 5), np.nan) if centre is None else centre.copy()
        centre[kept] = _scaled(carried, root)
        return cls(
            np.insert(columns.log_moneyness, place, k.ravel()),
            np.insert(columns.vol, place, vol.ravel()),
            np.insert(columns.error, place, error),
            np.insert(columns.side, place, np.int8(0)),
            columns.offsets + np.cumsum(added),
            centre,
            np.insert(np.ones(len(columns.vol), np.bool_), place, False),
        )

    def strip(self, column: npt.NDArray[T]) -> npt.NDArray[T]:
        """A column of the fit's quotes without the pseudo-quotes."""
        return column if self.real is None else column[self.real]


def _scaled(raw: FloatArray, root: FloatArray) -> FloatArray:
    """Raw slices in the fit's coordinates (alpha, U, L, mu, varsigma) at scale theta = root^2."""
    a, b, rho, m, sigma = raw.T
    return np.column_stack(
        (a / root**2, b * (1.0 + rho) / root, b * (1.0 - rho) / root, m / root, np.log(sigma / root))
    )
