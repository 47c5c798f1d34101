"""Fixed tenors: how long they are, and the surface read at them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.instruments import FloatArray
from volsurf.surface._rows import Rows, TableMethods, rows_of, spread

if TYPE_CHECKING:
    from volsurf.surface.surface import Surface

DEFAULT_TENORS = ("1D", "2D", "1W", "2W", "1M", "2M", "3M", "6M", "9M", "1Y")

_DAYS = {"D": 1, "W": 7, "M": 30, "Y": 365}
_TENOR = re.compile(r"ON|(\d{1,5})\s*([DWMY])")


def tenor_years(tenor: str | Sequence[str]) -> FloatArray:
    """Length in years of "1W", or of each of several: D is 1 day, W 7, M 30, Y 365, "ON" 1 day; shape () or (n,).

    Raises:
        InputError: what was given is no tenor.
    """
    if isinstance(tenor, str) or not isinstance(tenor, Iterable):
        return np.array(_years(tenor))
    return np.array([_years(one) for one in tenor], np.float64)


def is_tenor(text: str) -> bool:
    """Whether it reads as a tenor, and not as an expiry."""
    return _TENOR.fullmatch(text.strip().upper()) is not None


def _years(tenor: object) -> float:
    found = _TENOR.fullmatch(tenor.strip().upper()) if isinstance(tenor, str) else None
    if found is not None and found[0] == "ON":
        return 1 / 365
    if found is None or int(found[1]) == 0:
        raise InputError(f'a tenor is a whole number of D, W, M or Y ("1W", "3M"), or "ON", was {tenor!r}')
    return int(found[1]) * _DAYS[found[2]] / 365


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Tenors(TableMethods):
    """A surface at fixed tenors; arrays of shape (n,), one element per tenor. Vols are decimals.

    Where `reason` is not empty there is no curve and the numbers are NaN.
    """

    rows: Rows
    atm_vol: FloatArray
    atm_error: FloatArray
    """Standard errors are NaN where `error_reason` says why."""
    skew: FloatArray
    """d vol/dk at the forward."""
    risk_reversal25: FloatArray
    risk_reversal25_error: FloatArray
    fly25: FloatArray
    """Twice the butterfly."""
    fly25_error: FloatArray
    risk_reversal10: FloatArray
    fly10: FloatArray
    after: tuple[str, ...]
    """Last fitted expiry at or before the tenor; empty before the first."""
    before: tuple[str, ...]
    """First fitted expiry at or after it; empty past the last."""
    is_extrapolated: npt.NDArray[np.bool_]
    verdict: tuple[str, ...]
    """proved, undecided, violated or invalid: whether the smile there is free of arbitrage."""
    evidence: tuple[str, ...]
    """How that is known: exact-polynomial, interval (bounds that cover all strikes), theorem, or none."""
    reason: tuple[str, ...]
    error_reason: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def label(self) -> tuple[str, ...]:
        """The tenors."""
        return self.rows.label

    @property
    def years(self) -> FloatArray:
        """Their lengths."""
        return self.rows.years

    @property
    def forward(self) -> FloatArray:
        """Forwards; NaN beyond the horizon."""
        return self.rows.forward


def tenors_of(surface: Surface, names: str | Sequence[str], premium_adjusted: bool) -> Tenors:
    """`Surface.tenors`."""
    from volsurf.surface.atm import at_money
    from volsurf.surface.nodes import delta_tables
    from volsurf.surface.slice_view import place_of

    rows = rows_of(surface, names)
    readable = rows.readable
    money = at_money(surface, rows.years[readable], skew_errors=False)
    reversals, flies = delta_tables(surface, ("risk_reversal", "fly"), premium_adjusted, "forward", rows)
    ten, twenty_five = 1, 4
    numbers = {"atm_vol": money.level, "atm_error": money.level_error, "skew": money.skew}
    places = [place_of(surface, float(y)) if ok else None for y, ok in zip(rows.years, readable, strict=True)]
    return Tenors(
        rows=rows,
        **{name: spread(values, readable) for name, values in numbers.items()},
        risk_reversal25=reversals.value[:, twenty_five],
        risk_reversal25_error=reversals.error[:, twenty_five],
        fly25=flies.value[:, twenty_five],
        fly25_error=flies.error[:, twenty_five],
        risk_reversal10=reversals.value[:, ten],
        fly10=flies.value[:, ten],
        after=tuple("" if p is None else p[1] for p in places),
        before=tuple("" if p is None else p[2] for p in places),
        is_extrapolated=np.array([p is None or not (p[1] and p[2]) for p in places], np.bool_),
        verdict=tuple("" if p is None else p[4].verdict.name.lower() for p in places),
        evidence=tuple("" if p is None else p[4].evidence for p in places),
        reason=rows.reason,
        error_reason=reversals.error_reason,
    )
