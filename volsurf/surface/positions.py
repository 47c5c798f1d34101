"""Positions to be priced off a surface: options, dated futures and perpetuals, one by one or as columns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.instruments import NANOSECONDS_PER_YEAR, BoolArray, FloatArray, IntArray, Kind, Settlement
from volsurf.surface.expiries import Expiry, to_nanoseconds
from volsurf.surface.interpolation import HORIZON
from volsurf.surface.slices import expiry_label

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from volsurf.surface.surface import Surface

T = TypeVar("T")

_TYPES = {
    "call": (Kind.OPTION, True),
    "c": (Kind.OPTION, True),
    "put": (Kind.OPTION, False),
    "p": (Kind.OPTION, False),
    "future": (Kind.FUTURE, False),
    "perpetual": (Kind.PERPETUAL, False),
}
_SETTLEMENTS = {"inverse": Settlement.INVERSE, "linear": Settlement.LINEAR}
_VENUE_NAME = re.compile(r"(\d{1,2})([A-Z]{3})(\d{2})(?: (\d\d):(\d\d))?")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_REQUIRED = ("expiry", "quantity")
_COLUMNS = (
    "underlying",
    "expiry",
    "strike",
    "option_type",
    "is_call",
    "quantity",
    "settlement",
    "contract_size",
    "entry_price",
)


@dataclass(frozen=True, slots=True)
class Position:
    """Contracts of one option, dated future or perpetual held; checked when it is priced."""

    underlying: str
    expiry: Expiry | None
    """As `Surface.smile` takes it; one that is not listed is priced between those that are. None for a perpetual."""
    strike: float = math.nan
    option_type: str | bool | None = None
    """ "call" or "put" (or True for a call), "future" or "perpetual"."""
    quantity: float = 1.0
    """Contracts, negative where they were sold."""
    settlement: str | Settlement = "inverse"
    """ "inverse", premium and P&L in coin, or "linear", in the strike's currency."""
    contract_size: float = 1.0
    """Coins a contract; of an inverse future or perpetual, units of the strike's currency a contract."""
    is_call: bool | None = None
    """Instead of `option_type`."""
    entry_price: float = math.nan
    """Of a future or perpetual: its value is the gain since, none without it."""


Positions: TypeAlias = "Sequence[Position] | Portfolio | pl.DataFrame | pd.DataFrame | Mapping[str, Sequence[Any]]"
"""What `Surface.price` and `Surface.risk` take: a table has the columns of `Position`, the underlying and whatever has a
default may be missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Portfolio:
    """Positions as columns of shape (n,), checked against the surface that prices them."""

    underlying: str
    kind: npt.NDArray[np.int8]
    """`Kind`: option, future or perpetual."""
    expiry_ns: IntArray
    """ns UTC; 0 for a perpetual."""
    years: FloatArray
    """To expiry; 0 for a perpetual."""
    strike: FloatArray
    """NaN for what has none."""
    is_call: BoolArray
    quantity: FloatArray
    inverse: BoolArray
    contract_size: FloatArray
    entry_price: FloatArray

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def is_option(self) -> BoolArray:
        """True for options."""
        return np.asarray(self.kind == Kind.OPTION)

    def type_name(self, row: int) -> str:
        """ "call", "put", "future" or "perpetual"."""
        if self.kind[row] == Kind.OPTION:
            return "call" if self.is_call[row] else "put"
        return "future" if self.kind[row] == Kind.FUTURE else "perpetual"

    def name(self, row: int) -> str:
        """A row as traders write it: BTC-25DEC26-90000-C."""
        kind = int(self.kind[row])
        if kind == Kind.PERPETUAL:
            return f"{self.underlying}-PERPETUAL"
        label = expiry_label(int(self.expiry_ns[row]))
        if kind == Kind.FUTURE:
            return f"{self.underlying}-{label}"
        return f"{self.underlying}-{label}-{self.strike[row]:g}-{'C' if self.is_call[row] else 'P'}"

    @classmethod
    def of(cls, positions: Positions, surface: Surface) -> Portfolio:
        """The positions as columns.

        Raises:
            InputError: a row that is of another underlying, has expired, lies beyond the horizon, or holds a value that
                cannot be; it names the row (counted from 0) and the value.
        """
        if isinstance(positions, cls):
            # Made for a surface of another time, perhaps: the same contracts, closer to their expiry.
            return replace(positions, years=_years(positions.expiry_ns, positions.kind, surface))
        given = _columns_of(positions)
        count = len(next(iter(given.values()), ()))
        kind, is_call = _kinds(given, count)
        expiry_ns, years = _expiries(given["expiry"], kind, surface)
        names = given.get("underlying", ())
        if set(names) - {surface.underlying}:
            i = next(i for i, name in enumerate(names) if name != surface.underlying)
            raise InputError(f"position {i}: underlying was {names[i]!r}, the surface is of {surface.underlying}")
        portfolio = cls(
            surface.underlying,
            kind,
            expiry_ns,
            years,
            _reals("strike", given, count, math.nan),
            is_call,
            _reals("quantity", given, count, 1.0),
            _inverse(given, count),
            _reals("contract_size", given, count, 1.0),
            _reals("entry_price", given, count, math.nan),
        )
        option = portfolio.is_option
        strike, size, entry = portfolio.strike, portfolio.contract_size, portfolio.entry_price
        _refuse(option & ~(np.isfinite(strike) & (strike > 0)), "strike", strike, "it must be positive and finite")
        _refuse(~np.isfinite(portfolio.quantity), "quantity", portfolio.quantity, "it must be finite")
        _refuse(~(np.isfinite(size) & (size > 0)), "contract_size", size, "it must be positive and finite")
        _refuse(~option & ~(np.isnan(entry) | (entry > 0)), "entry_price", entry, "it must be positive")
        return portfolio


def _columns_of(positions: Any) -> Mapping[str, Sequence[Any]]:
    """Columns by column name, of equal length."""
    if isinstance(positions, Position):
        raise InputError("positions must be a sequence: write [position]")
    if isinstance(positions, Mapping):
        given = {str(name): list(column) for name, column in positions.items() if name in _COLUMNS}
    elif hasattr(positions, "columns"):
        given = {str(name): _listed(positions[name]) for name in positions.columns if name in _COLUMNS}
    else:
        try:
            rows = list(positions)
        except TypeError:
            raise InputError(f"positions must be a sequence of Position or a table, was {positions!r}") from None
        if set(map(type, rows)) - {Position}:
            i = next(i for i, row in enumerate(rows) if not isinstance(row, Position))
            raise InputError(f"position {i}: it must be a Position, was {rows[i]!r}")
        return {name: list(map(attrgetter(name), rows)) for name in _COLUMNS}
    missing = [name for name in _REQUIRED if name not in given]
    if missing or not ("option_type" in given or "is_call" in given):
        raise InputError(
            f"a table of positions needs expiry, quantity, and option_type or is_call; it has {', '.join(given) or 'no columns'}"
        )
    lengths = {name: len(column) for name, column in given.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the columns of a table of positions must be equally long, were {lengths}")
    return {name: given[name] for name in _COLUMNS if name in given}


def _listed(series: Any) -> list[Any]:
    """A polars or pandas column as Python objects; times of polars as ns, which its datetimes would round to microseconds."""
    if type(series).__module__.startswith("polars"):
        import polars as pl

        return list((series.dt.epoch("ns") if isinstance(series.dtype, pl.Datetime) else series).to_list())
    if hasattr(series, "notna"):
        return list(series.astype(object).where(series.notna(), None).tolist())
    return list(series)


def _kinds(given: Mapping[str, Sequence[Any]], count: int) -> tuple[npt.NDArray[np.int8], BoolArray]:
    texts, flags = (given.get(name, [None] * count) for name in ("option_type", "is_call"))
    if set(flags) == {None}:
        found = _each_once("option_type", texts, lambda text: _one_kind(text, None))
    else:
        found = _each_once("option_type", list(zip(texts, flags, strict=True)), lambda pair: _one_kind(*pair))
    return np.array([kind for kind, _ in found], np.int8), np.array([call for _, call in found], np.bool_)


def _one_kind(text: Any, flag: Any) -> tuple[int, bool]:
    if isinstance(text, bool | np.bool_):
        text, flag = None, text
    if text is None and isinstance(flag, bool | np.bool_):
        return int(Kind.OPTION), bool(flag)
    known = _TYPES.get(text.lower()) if isinstance(text, str) else None
    if known is None:
        raise InputError(
            f'option_type was {text!r}; it must be "call", "put", "future" or "perpetual" (or is_call True or False)'
        )
    return int(known[0]), known[1]


def _each_once(name: str, values: Sequence[Any], read: Callable[[Any], T]) -> list[T]:
    """`read` of each value, called once for equal ones; its InputError is told with the row."""
    try:
        known: dict[Any, Any] = dict.fromkeys(values)
    except TypeError:
        row = next(i for i, value in enumerate(values) if not isinstance(value, Hashable))
        raise InputError(f"position {row}: {name} was {values[row]!r}, which is none") from None
    for value in known:
        try:
            known[value] = read(value)
        except (InputError, TypeError, ValueError) as error:
            raise InputError(f"position {values.index(value)}: {error}") from None
    return [known[value] for value in values]


def _expiries(given: Sequence[Any], kind: npt.NDArray[np.int8], surface: Surface) -> tuple[IntArray, FloatArray]:
    """Expiries in ns and years; a perpetual's are 0."""
    dated = kind != Kind.PERPETUAL
    asked = [expiry if is_dated else None for expiry, is_dated in zip(given, dated.tolist(), strict=True)]
    known = _each_once("expiry", asked, lambda expiry: _one_expiry(expiry, surface.expiries))
    expiry_ns = np.array(known, np.int64)
    if (missing := dated & (expiry_ns == 0)).any():
        raise InputError(f"position {int(np.argmax(missing))}: it needs an expiry")
    return expiry_ns, _years(expiry_ns, kind, surface)


def _years(expiry_ns: IntArray, kind: npt.NDArray[np.int8], surface: Surface) -> FloatArray:
    """Time to expiry, 0 for perpetuals; InputError for one that has expired or lies beyond the horizon."""
    dated = kind != Kind.PERPETUAL
    years = (expiry_ns - surface.time_ns) / NANOSECONDS_PER_YEAR
    place = np.minimum(np.searchsorted(surface.expiries, expiry_ns), len(surface) - 1)
    years = np.where(surface.expiries[place] == expiry_ns, surface.years[place], years)
    years[~dated] = 0.0
    for wrong, why in (
        (dated & (years <= 0.0), "it has expired"),
        (
            dated & (years > HORIZON * surface.years[-1]),
            "it is beyond the horizon, twice the last expiry of the surface",
        ),
    ):
        if wrong.any():
            i = int(np.argmax(wrong))
            raise InputError(f"position {i}: expiry was {expiry_label(int(expiry_ns[i]))}; {why}")
    return years


def _one_expiry(expiry: Any, listed: IntArray) -> int:
    """ns UTC; 0 for none."""
    if expiry is None:
        return 0
    try:
        return int(to_nanoseconds(expiry, listed))
    except InputError:
        name = _VENUE_NAME.fullmatch(expiry.strip().upper()) if isinstance(expiry, str) else None
        if name is None or name[2] not in _MONTHS:
            raise
        # Not listed, so priced between those that are: venues expire options at 08:00 UTC.
        day, month, year, hour, minute = name.groups()
        try:
            when = datetime(
                2000 + int(year), 1 + _MONTHS.index(month), int(day), int(hour or 8), int(minute or 0), tzinfo=UTC
            )
        except ValueError as error:
            raise InputError(f"expiry was {expiry!r}: {error}") from None
        return int(when.timestamp()) * 1_000_000_000


def _reals(name: str, given: Mapping[str, Sequence[Any]], count: int, default: float) -> FloatArray:
    column = given.get(name)
    if column is None:
        return np.full(count, default)
    if None in column:
        column = [default if value is None else value for value in column]
    try:
        return np.array(column, np.float64)
    except (TypeError, ValueError):
        for i, value in enumerate(column):
            if not isinstance(value, int | float | np.number):
                raise InputError(f"position {i}: {name} was {value!r}; it must be a number") from None
        raise


def _inverse(given: Mapping[str, Sequence[Any]], count: int) -> BoolArray:
    column = given.get("settlement")
    if column is None:
        return np.ones(count, np.bool_)
    return np.array(_each_once("settlement", column, _one_settlement), np.bool_)


def _one_settlement(value: Any) -> bool:
    if value is None:
        return True
    found = _SETTLEMENTS.get(value.lower()) if isinstance(value, str) else value
    if found not in (Settlement.INVERSE, Settlement.LINEAR):
        raise InputError(f'settlement was {value!r}; it must be "inverse" or "linear"')
    return bool(found == Settlement.INVERSE)


def _refuse(bad: BoolArray, name: str, values: FloatArray, rule: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(f"position {row}: {name} was {float(values[row])!r}; {rule}")
