"""What is listed: instruments, the columnar table of all of them, premium conventions and the day count.

An instrument has an integer id that never changes and is never used again: a new listing appends a row, an expiry retires one.
So every other table (quotes, vols, dirty masks) can be an array indexed by that id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, Any, overload

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError

if TYPE_CHECKING:
    import polars as pl

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
IdArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]

NANOSECONDS_PER_YEAR = 365 * 86_400 * 1_000_000_000
"""ACT/365: the day count of Deribit's, OKX's, Bybit's and Binance's option models."""


class Kind(IntEnum):
    """What an instrument is."""

    OPTION = 0
    FUTURE = 1
    PERPETUAL = 2
    INDEX = 3


class Settlement(IntEnum):
    """In what a premium is paid."""

    INVERSE = 0
    """In coin: premium × forward is the value in the strike's currency."""
    LINEAR = 1
    """In the strike's currency, or a stablecoin of it."""


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One listed option, dated future, perpetual or index, with everything downstream needs to know about it."""

    venue: str
    symbol: str
    """The venue's own name, unique within the venue."""
    kind: Kind
    underlying: str
    """Base currency, e.g. `"BTC"`, whatever the settlement."""
    settlement: Settlement = Settlement.INVERSE
    quote_currency: str = "USD"
    """Currency of the strike: `"USD"`, or the stablecoin that stands for it."""
    is_discounted: bool = False
    """Its linear premium is a present value: the venue discounts at the carry of the expiry, by index / forward."""
    expiry_ns: int = 0
    """Expiry in nanoseconds UTC; 0 where there is none (perpetual, index)."""
    strike: float = math.nan
    is_call: bool = False
    tick_size: float = 0.0
    tick_steps: tuple[tuple[float, float], ...] = ()
    """`(above_price, tick_size)` pairs in rising order: the tick that holds above that price."""
    contract_size: float = 1.0
    price_index: str = ""
    """The venue's name of the index that settles it."""

    def validate(self) -> Instrument:
        """Itself, or `InputError` naming the field that cannot be."""
        if not self.symbol or not self.venue or not self.underlying:
            raise InputError(f"an instrument needs venue, symbol and underlying, was {self!r}")
        if self.kind is Kind.OPTION and not (math.isfinite(self.strike) and self.strike > 0):
            raise InputError(f"{self.symbol}: strike of an option must be positive and finite, was {self.strike!r}")
        if self.kind in (Kind.OPTION, Kind.FUTURE) and self.expiry_ns <= 0:
            raise InputError(f"{self.symbol}: expiry must be nanoseconds after 1970, was {self.expiry_ns!r}")
        if not (math.isfinite(self.tick_size) and self.tick_size >= 0):
            raise InputError(f"{self.symbol}: tick size must be finite and not negative, was {self.tick_size!r}")
        return self

    def tick_at(self, price: float) -> float:
        """Tick that holds at a price, in the premium's unit."""
        tick = self.tick_size
        for above, step in self.tick_steps:
            if price > above:
                tick = step
        return tick


def years_between(now_ns: int | IntArray, expiry_ns: int | IntArray) -> FloatArray:
    """Time to expiry in years, ACT/365, from integer nanoseconds UTC; negative after expiry."""
    # The subtraction is done in integers: doubles of 1.7e18 ns resolve only 256 ns.
    return np.asarray(np.asarray(expiry_ns, np.int64) - np.asarray(now_ns, np.int64), np.float64) / NANOSECONDS_PER_YEAR


def normalised_premium(
    premium: npt.ArrayLike,
    forward: npt.ArrayLike,
    settlement: npt.ArrayLike,
    discount: npt.ArrayLike = 1.0,
) -> FloatArray:
    """Undiscounted premium in units of the forward, β = price / (D·F).

    Args:
        premium: in the venue's unit: coin where `settlement` is INVERSE, the strike's currency where LINEAR.
        forward: of the expiry, in the strike's currency.
        settlement: `Settlement` values.
        discount: of the linear premiums (1 where the venue margins without interest); a coin premium is already β.
    """
    premium = np.asarray(premium, np.float64)
    inverse = np.asarray(settlement) == Settlement.INVERSE
    return np.where(inverse, premium, premium / (np.asarray(forward, np.float64) * np.asarray(discount, np.float64)))


def venue_premium(
    normalised: npt.ArrayLike,
    forward: npt.ArrayLike,
    settlement: npt.ArrayLike,
    discount: npt.ArrayLike = 1.0,
) -> FloatArray:
    """Inverse of `normalised_premium`: the premium as the venue quotes it."""
    normalised = np.asarray(normalised, np.float64)
    inverse = np.asarray(settlement) == Settlement.INVERSE
    return np.where(
        inverse, normalised, normalised * (np.asarray(forward, np.float64) * np.asarray(discount, np.float64))
    )


class Universe:
    """Columnar table of all instruments, one row per id.

    Columns (`kind`, `underlying_id`, `settlement`, `expiry_ns`, `strike`, `is_call`, `tick_size`, `tick_above`,
    `tick_size_above`, `contract_size`, `active`) are arrays of shape (n,); they are views that a later `add` may leave
    behind, so take them anew each frame. `version` rises with every change.
    """

    _COLUMNS = (
        ("kind", np.int8),
        ("underlying_id", np.int16),
        ("settlement", np.int8),
        ("expiry_ns", np.int64),
        ("strike", np.float64),
        ("is_call", np.bool_),
        ("tick_size", np.float64),
        ("tick_above", np.float64),
        ("tick_size_above", np.float64),
        ("contract_size", np.float64),
        ("active", np.bool_),
    )

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._rows: list[Instrument] = []
        self._ids: dict[tuple[str, str], int] = {}
        self._underlyings: list[str] = []
        self._data: dict[str, npt.NDArray[Any]] = {name: np.zeros(0, dtype) for name, dtype in self._COLUMNS}
        self.version = 0
        self.add(instruments)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        active = int(self.active.sum())
        return (
            f"Universe({len(self)} instruments, {active} active, underlyings {', '.join(self._underlyings) or 'none'})"
        )

    @overload
    def __getitem__(self, key: int) -> Instrument: ...
    @overload
    def __getitem__(self, key: tuple[str, str]) -> Instrument: ...
    def __getitem__(self, key: int | tuple[str, str]) -> Instrument:
        """The instrument of an id, or of a `(venue, symbol)`."""
        return self._rows[self._ids[key] if isinstance(key, tuple) else key]

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._rows)

    def add(self, instruments: Iterable[Instrument]) -> IdArray:
        """Append instruments and return their ids, shape (m,).

        One that is listed already keeps its id and takes the new tick and contract size; if it was retired it is active
        again. The same name with another strike, type or expiry is another instrument: the old row is retired and a new
        one appended.
        """
        ids: list[int] = []
        for instrument in instruments:
            instrument.validate()
            key = (instrument.venue, instrument.symbol)
            known = self._ids.get(key)
            if known is not None and not _same_contract(self._rows[known], instrument):
                self._data["active"][known] = False
                known = None
            if known is None:
                known = len(self._rows)
                self._rows.append(instrument)
                self._ids[key] = known
                self._grow(known + 1)
            else:
                self._rows[known] = instrument
            self._write(known, instrument)
            ids.append(known)
        if ids:
            self.version += 1
        return np.asarray(ids, np.int32)

    def retire(self, ids: npt.ArrayLike) -> None:
        """Mark instruments as no longer listed. Their rows and ids stay."""
        index = np.atleast_1d(np.asarray(ids, np.int64))
        if index.size and (index.min() < 0 or index.max() >= len(self)):
            raise InputError(f"no instrument with id {int(index.max())}: there are {len(self)}")
        if index.size and self.active[index].any():
            self._data["active"][index] = False
            self.version += 1

    def find(self, venue: str, symbol: str) -> int | None:
        """Id of a venue's symbol, or None where it was never listed."""
        return self._ids.get((venue, symbol))

    @property
    def underlyings(self) -> tuple[str, ...]:
        """Base currencies in the order they were first seen; `underlying_id` counts into it."""
        return tuple(self._underlyings)

    def options(self, underlying: str | None = None) -> IdArray:
        """Ids of the active options, of one underlying if named, shape (m,), in order of expiry, then strike, puts first."""
        mask = self.active & (self.kind == Kind.OPTION)
        if underlying is not None:
            if underlying not in self._underlyings:
                return np.zeros(0, np.int32)
            mask &= self.underlying_id == self._underlyings.index(underlying)
        ids = np.flatnonzero(mask)
        order = np.lexsort((self.is_call[ids], self.strike[ids], self.expiry_ns[ids]))
        return ids[order].astype(np.int32)

    def ticks(self, ids: npt.NDArray[np.integer], price: FloatArray) -> FloatArray:
        """Tick that holds for each instrument at a price, shape (m,), in the premium's unit."""
        tick: FloatArray = np.where(price > self.tick_above[ids], self.tick_size_above[ids], self.tick_size[ids])
        return tick

    def to_polars(self) -> pl.DataFrame:
        """One row per instrument."""
        import polars as pl

        frame = pl.DataFrame([{f: getattr(r, f) for f in r.__struct_fields__ if f != "tick_steps"} for r in self._rows])
        return frame.with_columns(pl.Series("active", self.active))

    def __getattr__(self, name: str) -> npt.NDArray[np.generic]:
        # The columns, cut to the rows there are; declared below for readers and type checkers.
        data = self.__dict__.get("_data", {})
        if name not in data:
            raise AttributeError(f"a universe has no column {name!r}; it has {sorted(data)}")
        column: npt.NDArray[np.generic] = data[name][: len(self._rows)]
        return column

    kind: npt.NDArray[np.int8]
    """`Kind` values, shape (n,)."""
    underlying_id: npt.NDArray[np.int16]
    """Position in `underlyings`, shape (n,)."""
    settlement: npt.NDArray[np.int8]
    """`Settlement` values, shape (n,)."""
    expiry_ns: IntArray
    """Expiry, ns UTC, 0 where there is none, shape (n,)."""
    strike: FloatArray
    """Strike, NaN where there is none, shape (n,)."""
    is_call: BoolArray
    """True for calls, shape (n,)."""
    tick_size: FloatArray
    """Tick up to `tick_above`, shape (n,)."""
    tick_above: FloatArray
    """Price above which `tick_size_above` holds; infinite where one tick holds throughout, shape (n,)."""
    tick_size_above: FloatArray
    """Tick above `tick_above`, shape (n,)."""
    contract_size: FloatArray
    """Units of the underlying in one contract, shape (n,)."""
    active: BoolArray
    """Listed now, shape (n,)."""

    def _write(self, row: int, instrument: Instrument) -> None:
        if instrument.underlying not in self._underlyings:
            self._underlyings.append(instrument.underlying)
        data = self._data
        data["kind"][row] = instrument.kind
        data["underlying_id"][row] = self._underlyings.index(instrument.underlying)
        data["settlement"][row] = instrument.settlement
        data["expiry_ns"][row] = instrument.expiry_ns
        data["strike"][row] = instrument.strike
        data["is_call"][row] = instrument.is_call
        data["tick_size"][row] = instrument.tick_size
        # No venue has listed an option with more than one step; with more, the columns hold the first and `tick_at` all of them.
        above, step = instrument.tick_steps[0] if instrument.tick_steps else (math.inf, instrument.tick_size)
        data["tick_above"][row] = above
        data["tick_size_above"][row] = step
        data["contract_size"][row] = instrument.contract_size
        data["active"][row] = True

    def _grow(self, rows: int) -> None:
        capacity = len(self._data["kind"])
        if rows <= capacity:
            return
        for name, old in self._data.items():
            new = np.zeros(max(1024, 2 * capacity, rows), old.dtype)
            new[:capacity] = old
            self._data[name] = new


def _same_contract(one: Instrument, other: Instrument) -> bool:
    same_strike = one.strike == other.strike or (math.isnan(one.strike) and math.isnan(other.strike))
    return same_strike and _terms(one) == _terms(other)


def _terms(one: Instrument) -> tuple[object, ...]:
    return one.kind, one.underlying, one.settlement, one.quote_currency, one.expiry_ns, one.is_call
