"""The best bid and the best ask of every strike in vol, over all venues, currencies and ways of settling, and whose they are.

A strike is (underlying, expiry, strike price) whatever its currency: 80,000 dollars, USDC and USDT are one strike here, and each
quote's vol is that to the forward of its own market, so a stablecoin's basis does not pass for a difference in vol. Both legs
count: by parity a bid for the put bids for the vol as well as one for the call.

A vol that crosses another is a difference in price only as far as both forwards are right: `delta / vega` times the relative
error of a forward is the vol it is worth, much in the wings and nothing at the money.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import BoolArray, FloatArray, IdArray, IntArray, Universe
from volsurf.surface.vol_columns import QuoteVols

if TYPE_CHECKING:
    import polars as pl

_STANDING = tuple(
    int(reason)
    for reason in (
        QuoteReason.USED,
        QuoteReason.AVERAGED,
        QuoteReason.TOO_WIDE,
        QuoteReason.TOO_FAR,
        QuoteReason.ONE_SIDED,
        QuoteReason.OUTLIER,
    )
)
"""Quotes that can be traded at their vol, whether a fit takes them or not; the others are stale, false, or have no vol."""


@dataclass(frozen=True, slots=True, eq=False)
class ConsolidatedQuotes:
    """One row per listed strike, sorted by underlying, expiry and strike, as columns of shape (s,).

    A side nobody quotes has a NaN vol, −1 as row, id and venue, and an age of 0.
    """

    time_ns: int
    underlyings: tuple[str, ...]
    venues: tuple[str, ...]
    underlying_id: npt.NDArray[np.int16] = field(repr=False)
    """Position in `underlyings`."""
    expiry_ns: IntArray = field(repr=False)
    strike: FloatArray = field(repr=False)
    bid_vol: FloatArray = field(repr=False)
    """Highest vol bid, a decimal."""
    ask_vol: FloatArray = field(repr=False)
    """Lowest vol asked, a decimal."""
    bid_row: IntArray = field(repr=False)
    """Row of `QuoteVols` it comes from; of several at one vol the one last confirmed."""
    ask_row: IntArray = field(repr=False)
    bid_id: IdArray = field(repr=False)
    """Instrument of the best bid."""
    ask_id: IdArray = field(repr=False)
    bid_venue: IntArray = field(repr=False)
    """Position in `venues`."""
    ask_venue: IntArray = field(repr=False)
    bid_age_ns: IntArray = field(repr=False)
    """Since the venue last said anything of it, see `quote_vols`."""
    ask_age_ns: IntArray = field(repr=False)
    bid_quotes: IntArray = field(repr=False)
    """How many bids it is the best of, both legs counted."""
    ask_quotes: IntArray = field(repr=False)
    crossed: BoolArray = field(repr=False)
    """One venue bids more than another asks."""
    universe: Universe = field(repr=False)

    def __len__(self) -> int:
        return len(self.strike)

    def __repr__(self) -> str:
        two_sided = int((np.isfinite(self.bid_vol) & np.isfinite(self.ask_vol)).sum())
        return f"ConsolidatedQuotes({len(self)} strikes, {two_sided} two-sided, {int(self.crossed.sum())} crossed)"

    @property
    def spread(self) -> FloatArray:
        """Ask less bid in vol; negative where they cross, NaN where a side is missing."""
        return np.asarray(self.ask_vol - self.bid_vol)

    def to_polars(self) -> pl.DataFrame:
        """One row per strike; names instead of numbers, ages in seconds, nulls instead of what there is not."""
        import polars as pl

        columns: dict[str, pl.Series] = {
            "underlying": pl.Series([self.underlyings[i] for i in self.underlying_id.tolist()], dtype=pl.String),
            "expiry": pl.Series(self.expiry_ns).cast(pl.Datetime("ns", "UTC")),
            "strike": pl.Series(self.strike),
        }
        for side in ("bid", "ask"):
            there = getattr(self, f"{side}_row") >= 0
            venue, instrument = getattr(self, f"{side}_venue").tolist(), getattr(self, f"{side}_id").tolist()
            symbols = [self.universe[i].symbol if i >= 0 else None for i in instrument]
            age = getattr(self, f"{side}_age_ns") * 1e-9
            columns |= {
                f"{side}_vol": pl.Series(getattr(self, f"{side}_vol"), nan_to_null=True),
                f"{side}_venue": pl.Series([self.venues[i] if i >= 0 else None for i in venue], dtype=pl.String),
                f"{side}_symbol": pl.Series(symbols, dtype=pl.String),
                f"{side}_age_seconds": pl.Series(np.where(there, age, np.nan), nan_to_null=True),
                f"{side}_quotes": pl.Series(getattr(self, f"{side}_quotes")),
            }
        return pl.DataFrame(columns | {"crossed": pl.Series(self.crossed)})


def consolidated_quotes(quotes: QuoteVols) -> ConsolidatedQuotes:
    """The best bid and ask of every strike over everything that quotes it.

    Of the bids (asks) at a strike that stand and have a vol the highest (lowest) is taken; of equal ones the one last confirmed,
    then the first in the order of `quotes`.
    """
    layout = quotes.layout
    n = len(layout)
    first = np.ones(n, np.bool_)
    first[1:] = (layout.group[1:] != layout.group[:-1]) | (layout.strike[1:] != layout.strike[:-1])
    start = np.flatnonzero(first)
    place = np.cumsum(first) - 1
    standing = np.isin(quotes.reason, _STANDING)
    # Minus the vol a bid bids, so that the best of either side is the least; infinite where there is none.
    bids = np.where(standing & np.isfinite(quotes.bid_vol), -quotes.bid_vol, np.inf)
    asks = np.where(standing & np.isfinite(quotes.ask_vol), quotes.ask_vol, np.inf)
    bid_row, bid_quotes = _best(bids, quotes.age_ns, place, start)
    ask_row, ask_quotes = _best(asks, quotes.age_ns, place, start)
    bid_vol, ask_vol = _at(quotes.bid_vol, bid_row, np.nan), _at(quotes.ask_vol, ask_row, np.nan)
    bid_venue, ask_venue = _at(layout.venue, bid_row, -1), _at(layout.venue, ask_row, -1)
    return ConsolidatedQuotes(
        time_ns=quotes.time_ns,
        underlyings=quotes.underlyings,
        venues=layout.venues,
        underlying_id=layout.underlying_id[layout.group[start]],
        expiry_ns=layout.expiry_ns[layout.group[start]],
        strike=layout.strike[start],
        bid_vol=bid_vol,
        ask_vol=ask_vol,
        bid_row=bid_row,
        ask_row=ask_row,
        bid_id=_at(layout.ids, bid_row, -1),
        ask_id=_at(layout.ids, ask_row, -1),
        bid_venue=bid_venue,
        ask_venue=ask_venue,
        bid_age_ns=_at(quotes.age_ns, bid_row, 0),
        ask_age_ns=_at(quotes.age_ns, ask_row, 0),
        bid_quotes=bid_quotes,
        ask_quotes=ask_quotes,
        # Against the best of the other venues: that a venue's call and put cross each other is its own affair. NaN is never more.
        crossed=(-_least(np.where(layout.venue != ask_venue[place], bids, np.inf), start) > ask_vol)
        | (bid_vol > _least(np.where(layout.venue != bid_venue[place], asks, np.inf), start)),
        universe=layout.universe,
    )


def _least(values: FloatArray, start: npt.NDArray[np.intp]) -> FloatArray:
    """Least value of each run of rows, shape (s,)."""
    return np.asarray(np.minimum.reduceat(values, start)) if len(start) else np.zeros(0)


def _best(
    values: FloatArray, age_ns: IntArray, place: npt.NDArray[np.intp], start: npt.NDArray[np.intp]
) -> tuple[IntArray, IntArray]:
    """Row of the least finite value of each run, −1 where there is none, and how many finite ones there are; shape (s,)."""
    there = np.isfinite(values)
    count = np.bincount(place[there], minlength=len(start))
    rows = np.flatnonzero(there & (values == _least(values, start)[place]))
    # The youngest of equals, then the first: lexsort is stable.
    rows = rows[np.lexsort((age_ns[rows], place[rows]))]
    best = np.full(len(start), -1, np.int64)
    # Backwards, so that the first of each run is written last.
    best[place[rows[::-1]]] = rows[::-1]
    return best, count.astype(np.int64)


def _at(column: npt.NDArray[Any], rows: IntArray, missing: float) -> npt.NDArray[Any]:
    """A column at some rows; `missing` where the row is −1."""
    taken = np.full(len(rows), missing, column.dtype)
    there = rows >= 0
    taken[there] = column[rows[there]]
    return taken
