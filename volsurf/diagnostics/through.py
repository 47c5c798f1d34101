"""Where the market trades through the fitted surface: expiry by strike by venue, with the size of every edge.

A cell is one strike of one expiry at one venue, read off the leg that is out of the money, whose vol is the exacter one; off the
other leg where only that one is in the fit. A bid above the curve, or an ask below it, by more than a tick and more than two
standard errors of the curve is through: either the quote is an opportunity or the curve is wrong there, and the columns say how
likely each is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.instruments import BoolArray, FloatArray, IdArray, IntArray, Universe

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import polars as pl

    from volsurf.diagnostics.history import ThroughHistory
    from volsurf.surface.quote_vols import QuoteVols
    from volsurf.surface.surface import Surface

__all__ = ["ThroughMatrix", "ThroughState", "through_matrix"]


class ThroughState(IntEnum):
    """How one quote stands to the curve."""

    INSIDE = 0
    BID_THROUGH = 1
    ASK_THROUGH = 2
    ONE_SIDED = 3
    REJECTED = 4
    STALE = 5
    MISSING = 6
    NO_CURVE = 7

    @property
    def label(self) -> str:
        """Two words at most, for a column."""
        return _TEXT[self][0]

    @property
    def sentence(self) -> str:
        """What it means for the strike."""
        return _TEXT[self][1]

    @property
    def is_through(self) -> bool:
        """The bid is above the curve or the ask below it, by more than a tick and two standard errors."""
        return self in (ThroughState.BID_THROUGH, ThroughState.ASK_THROUGH)


_TEXT = {
    ThroughState.INSIDE: ("inside", "the curve lies between bid and ask, or out of them by less than it is uncertain"),
    ThroughState.BID_THROUGH: (
        "bid through",
        "the bid is above the curve: the option can be sold for more than the fit",
    ),
    ThroughState.ASK_THROUGH: (
        "ask through",
        "the ask is below the curve: the option can be bought for less than the fit",
    ),
    ThroughState.ONE_SIDED: ("one-sided", "only a bid or only an ask, and on its own side of the curve"),
    ThroughState.REJECTED: ("rejected", "quoted, but left out of the fit for a reason of its own"),
    ThroughState.STALE: ("stale", "not heard of for longer than the limit"),
    ThroughState.MISSING: ("missing", "listed, and nobody quotes it"),
    ThroughState.NO_CURVE: ("no curve", "quoted, but its expiry could not be fitted"),
}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ThroughMatrix:
    """Every listed strike of every expiry at every venue against the fitted curve, as columns of shape (cells,).

    Sorted by expiry, strike, venue. Vols are decimals; what ends in `_bp` is in basis points of vol. A number that the quote does
    not have (no bid, no vol, no curve) is NaN, and `state` and `reason` say why.
    """

    underlying: str
    time_ns: int
    """The instant of the quotes, ns UTC."""
    surface_time_ns: int
    """The instant of the surface, ns UTC: earlier where it was published before these quotes came in."""
    universe: Universe
    expiries: IntArray
    """ns UTC, shape (expiries,)."""
    venues: tuple[str, ...]
    """Names; a venue's linear options stand apart from its inverse ones, and its USDC from its USDT ones."""
    expiry: IntArray
    """Position in `expiries`."""
    strike: FloatArray
    venue: IntArray
    """Position in `venues`."""
    instrument_id: IdArray
    """Of the leg that is read."""
    key: IdArray
    """Id of the strike's put (of its call where no put is listed): it stays when the forward passes the strike."""
    is_call: BoolArray
    state: npt.NDArray[np.int8]
    """`ThroughState`"""
    reason: npt.NDArray[np.uint8]
    """`QuoteReason` after the fit."""
    side: npt.NDArray[np.int8]
    """0 two-sided, -1 only a bid, +1 only an ask."""
    log_moneyness: FloatArray
    bid_vol: FloatArray
    ask_vol: FloatArray
    mid_vol: FloatArray
    fitted_vol: FloatArray
    standard_error: FloatArray
    """Of the fitted vol."""
    edge_bp: FloatArray
    """How far the nearer side is through: bid - fit or fit - ask, whichever is larger; negative inside the spread."""
    edge_price: FloatArray
    """The same in the venue's premium unit, priced exactly: bid - fair or fair - ask."""
    edge_ticks: FloatArray
    """`edge_price` in the tick that holds at that bid or ask; NaN where the prices have no common tick."""
    edge_se: FloatArray
    """`edge_bp` in standard errors of the curve."""
    edge_is_bid: BoolArray
    """True where the edge is the bid's."""
    threshold_bp: FloatArray
    """What the edge has to exceed to be through: the larger of one tick in vol and two standard errors."""
    u: FloatArray
    """(fit - mid) / half-spread: within -1 to 1 the curve is inside; the half-spread counts as 1 bp at least."""
    leverage: FloatArray
    """How far the curve follows this quote, 0 to 1; near 1 the curve is there because the quote is."""
    venue_spread_bp: FloatArray
    """Mid over the consensus of the other venues at the strike, weighted by 1/half-spread^2; NaN where no other quotes it. Where
    they have forwards of their own, each is taken from the curve at its own moneyness."""
    agreement: npt.NDArray[np.int16]
    """How many other venues are through on the same side at the strike."""
    age_ns: IntArray
    """Since the row was last heard of."""
    frames: npt.NDArray[np.int16] | None = None
    """Frames of the history that had the strike."""
    persistence: npt.NDArray[np.int16] | None = None
    """How many of them it was through in, on the side it is through now or on either if it is not."""
    fit_stability_bp: FloatArray | None = None
    """Standard deviation of the fitted vol at the strike over those frames."""
    u_stability: FloatArray | None = None
    """Standard deviation of `u` over those frames."""
    _columns: tuple[str, ...] = field(init=False, default=(), repr=False)

    def __post_init__(self) -> None:
        names = [f.name for f in fields(self)][_FIRST_COLUMN:-1]
        object.__setattr__(self, "_columns", tuple(n for n in names if getattr(self, n) is not None))

    def __len__(self) -> int:
        return len(self.state)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n:,d} {state.label}" for state, n in self.counts.items())
        return f"ThroughMatrix({self.underlying}, {len(self):,d} cells: {counts or 'nothing listed'})"

    def _repr_html_(self) -> str:
        from volsurf.diagnostics.through_view import through_html

        return through_html(self)

    @property
    def counts(self) -> dict[ThroughState, int]:
        """Cells by state, in the order of `ThroughState`; states that do not occur are left out."""
        tally = np.bincount(self.state, minlength=len(ThroughState))
        return {s: int(tally[s]) for s in ThroughState if tally[s]}

    @property
    def is_through(self) -> BoolArray:
        """True where bid or ask is through, shape (cells,)."""
        return np.asarray((self.state == ThroughState.BID_THROUGH) | (self.state == ThroughState.ASK_THROUGH))

    @property
    def expiry_labels(self) -> list[str]:
        """`expiries` as traders write them."""
        from volsurf.surface.slices import expiry_label

        return [expiry_label(int(t)) for t in self.expiries]

    def select(self, mask: npt.ArrayLike) -> ThroughMatrix:
        """The cells of a mask or of positions."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        index = np.asarray(mask)
        return ThroughMatrix(**(values | {name: values[name][index] for name in self._columns}))

    def of_venue(self, venue: str) -> ThroughMatrix:
        """The cells of one venue, by its name in `venues`."""
        if venue not in self.venues:
            raise InputError(f"no venue {venue!r} in the matrix; there are {', '.join(self.venues) or 'none'}")
        return self.select(self.venue == self.venues.index(venue))

    def to_polars(self) -> pl.DataFrame:
        """One row a cell, with names for expiry, venue, state and reason."""
        import polars as pl

        from volsurf.diagnostics.through_tables import table_columns

        columns = {
            name: pl.Series(c, dtype=pl.String) if isinstance(c, list) else c for name, c in table_columns(self).items()
        }
        return pl.DataFrame(columns).with_columns(pl.col("expiry").cast(pl.Datetime("ns", "UTC")))

    def to_pandas(self) -> pd.DataFrame:
        """As `to_polars`, for pandas."""
        import pandas as pd

        from volsurf.diagnostics.through_tables import table_columns

        frame = pd.DataFrame(table_columns(self))
        frame["expiry"] = pd.to_datetime(frame["expiry"], unit="ns", utc=True)
        return frame

    def pivot(self, value: str = "edge_bp") -> pd.DataFrame:
        """One column as a table of expiry by strike; of several venues the one with the largest edge.

        Args:
            value: a numeric column, or "state" for its label.
        """
        from volsurf.diagnostics.through_tables import pivot

        return pivot(self, value)

    def largest(self, n: int = 10, by: str = "edge_bp", *, through: bool = True) -> pl.DataFrame:
        """The n largest edges, largest first, as a table.

        Args:
            by: "edge_bp", "edge_price", "edge_ticks" or "edge_se".
            through: only those that are through; otherwise also those outside the spread by less than the curve is uncertain.
        """
        return self.select(self.largest_cells(n, by, through=through)).to_polars()

    def largest_cells(self, n: int, by: str = "edge_bp", *, through: bool = True) -> IntArray:
        """Positions of the cells of `largest`."""
        allowed = ("edge_bp", "edge_price", "edge_ticks", "edge_se")
        if by not in allowed:
            raise InputError(f"edges are ordered by {', '.join(allowed)}, was {by!r}")
        fitted = (self.state <= ThroughState.ONE_SIDED) & (self.edge_bp > 0)
        cells = np.flatnonzero(self.is_through if through else fitted)
        size = getattr(self, by)[cells]
        # A curve without a standard error has edges of unknown size: last, not first.
        return np.asarray(cells[np.argsort(-np.where(np.isnan(size), -np.inf, size), kind="stable")][: max(n, 0)])

    def plot(self) -> go.Figure:
        """The matrix as a heat map of expiry by strike, a plotly figure: hover a cell for its numbers."""
        from volsurf.diagnostics.figures import through_figure

        return through_figure(self)


_FIRST_COLUMN = 6
"""Fields before it are not columns of cells."""


def through_matrix(
    surface: Surface, quotes: QuoteVols, history: ThroughHistory | None = None, *, maximum_age_ns: int | None = None
) -> ThroughMatrix:
    """Every quote of a surface's underlying against the curve.

    Args:
        surface: may be older than the quotes, which is how a published surface is watched against a market that moves on: its
            vols are read at each strike's log-moneyness to the forward of the quotes.
        history: takes this frame in, and the matrix carries its persistence and stability.
        maximum_age_ns: quotes not heard of for longer are stale, besides those that were too old for the fit.

    Raises:
        InputError: the quotes do not hold the surface's underlying, or are older than the surface.
    """
    from volsurf.diagnostics._cells import build

    matrix = build(surface, quotes, maximum_age_ns)
    return matrix if history is None else history.update(matrix)
