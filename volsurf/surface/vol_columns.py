"""What `quote_vols` takes and returns: limits, and the columns of vols, error bars and reasons."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import Ledger, QuoteReason
from volsurf.errors import InputError
from volsurf.instruments import BoolArray, FloatArray, IdArray, IntArray
from volsurf.iv.forward import ExpiryForward, Forwards, ForwardSource
from volsurf.surface.layout import QuoteLayout
from volsurf.surface.venue_quotes import VenueQuotes


@dataclass(frozen=True, slots=True)
class QuoteRules:
    """Limits beyond which a quote is left out. Vols are decimals."""

    maximum_age_ns: int = 300_000_000_000
    """A venue repeats a ticker when its mark moves, so an option not heard of for minutes is not being quoted."""
    settlement_window_ns: int = 30 * 60 * 1_000_000_000
    """Before expiry: venues settle on an average of the index over this time, which Black's formula does not price."""
    near_the_money: float = 0.15
    """Strikes this close to the forward, in standard deviations, are read from both legs."""
    maximum_moneyness: float = 4.5
    """|ln(K/F)| in standard deviations; further out vols follow the venue's own wing rule, not trades."""
    maximum_half_spread: float = 0.5
    minimum_vega: float = 1e-4
    """In units of the forward, per 1.00 of vol."""
    error_floor: float = 2e-4
    ask_over_mark: float = 3.0
    """An ask without a bid is ignored above this multiple of the venue's mark."""


@dataclass(frozen=True, slots=True, eq=False)
class QuoteVols:
    """Implied vols of every active option of a universe at one instant, as columns of shape (n,).

    Rows are sorted by underlying, expiry, strike, put before call. `expiry_start` cuts them into expiries.
    """

    time_ns: int
    underlyings: tuple[str, ...]
    layout: QuoteLayout = field(repr=False)
    expiry_forwards: Forwards = field(repr=False)
    """Forwards as columns, one element an expiry: that of its reference market."""
    market_forwards: Forwards = field(repr=False)
    """The same of every market, in the order of the layout's."""
    reference: IntArray = field(repr=False)
    """Market whose forward is shown as that of each expiry, see `volsurf.iv.siblings.reference_markets`; shape (expiries,)."""
    expiry_years: FloatArray = field(repr=False)
    """Years to each expiry; not positive once it has passed."""
    forward: FloatArray = field(repr=False)
    """Forward of the row's market, NaN where there is none."""
    years: FloatArray = field(repr=False)
    log_moneyness: FloatArray = field(repr=False)
    """ln(K/F), F being the forward of the row's market."""
    bid: FloatArray = field(repr=False)
    """Undiscounted bid in units of the forward; NaN where there is none."""
    ask: FloatArray = field(repr=False)
    bid_vol: FloatArray = field(repr=False)
    """NaN where there is no bid, or none of the vol (the leg that is in the money is not inverted)."""
    ask_vol: FloatArray = field(repr=False)
    mid_vol: FloatArray = field(repr=False)
    """Mean of the two; NaN where either is missing."""
    vol: FloatArray = field(repr=False)
    """What a fit aims at: the mid, near the money averaged over both legs; of a one-sided quote the side there is."""
    error: FloatArray = field(repr=False)
    """Error bar of `vol`; NaN where the row is not used."""
    vega: FloatArray = field(repr=False)
    """Per 1.00 of vol, undiscounted, in units of the forward, at `vol`."""
    delta: FloatArray = field(repr=False)
    """Forward delta at `vol`."""
    side: npt.NDArray[np.int8] = field(repr=False)
    """0 two-sided, -1 only a bid, +1 only an ask."""
    reason: npt.NDArray[np.uint8] = field(repr=False)
    """`QuoteReason` of each row."""
    age_ns: IntArray = field(repr=False)
    """Since the venue last said anything of the row, see `quote_vols`."""
    refused: npt.NDArray[np.uint8] = field(repr=False)
    """`QuoteReason` of rows that never became an option: bad rows of a chain."""
    venue_quotes: VenueQuotes = field(repr=False)
    """Premiums, sizes, marks and times as the venues gave them, in the same rows."""

    def __len__(self) -> int:
        return len(self.reason)

    def __repr__(self) -> str:
        return f"QuoteVols({len(self)} options, {self.ledger().used} used, {len(self.expiry_ns_of)} expiries)"

    def _repr_html_(self) -> str:
        return self.ledger()._repr_html_()

    @property
    def instrument_id(self) -> IdArray:
        """Id of each row in the universe."""
        return self.layout.ids

    @property
    def strike(self) -> FloatArray:
        """In the strike's currency."""
        return self.layout.strike

    @property
    def is_call(self) -> BoolArray:
        """True for calls."""
        return self.layout.is_call

    @property
    def expiry_start(self) -> IntArray:
        """First row of each expiry, and the number of rows."""
        return self.layout.start

    @property
    def expiry_ns_of(self) -> IntArray:
        """Expiry of each block of rows, ns UTC, shape (expiries,)."""
        return self.layout.expiry_ns

    @property
    def expiry_ns(self) -> IntArray:
        """Expiry of each row, ns UTC."""
        return np.asarray(self.layout.expiry_ns[self.layout.group])

    @property
    def underlying_id(self) -> npt.NDArray[np.int16]:
        """Position of each row's underlying in `underlyings`."""
        return np.asarray(self.layout.underlying_id[self.layout.group])

    @property
    def settlement(self) -> npt.NDArray[np.int8]:
        """`Settlement` of each row."""
        return np.where(self.layout.inverse, 0, 1).astype(np.int8)

    @property
    def used(self) -> BoolArray:
        """True where the row takes part in the fit."""
        return np.asarray(self.reason <= QuoteReason.AVERAGED)

    @property
    def forwards(self) -> tuple[ExpiryForward, ...]:
        """The forward of every expiry and how it was found."""
        f = self.expiry_forwards
        return tuple(
            ExpiryForward(
                self.underlyings[self.layout.underlying_id[i]],
                int(self.layout.expiry_ns[i]),
                float(f.forward[i]),
                ForwardSource(int(f.source[i])),
                float(f.venue_forward[i]),
                float(f.parity_forward[i]),
                float(f.standard_error[i]),
                float(f.parity_low[i]),
                float(f.parity_high[i]),
                int(f.pairs[i]),
                float(f.mismatch_bp[i]),
                bool(f.flagged[i]),
            )
            for i in range(len(f.forward))
        )

    def ledger(self, underlying: str | None = None) -> Ledger:
        """Rows by reason, the refused ones included; of one underlying if named (then without the refused ones)."""
        if underlying is None:
            sides = np.concatenate((self.side, np.zeros(len(self.refused), np.int8)))
            return Ledger.of(np.concatenate((self.reason, self.refused)), sides)
        if underlying not in self.underlyings:
            raise InputError(f"no underlying {underlying!r}; there are {', '.join(self.underlyings)}")
        mine = self.underlying_id == self.underlyings.index(underlying)
        return Ledger.of(self.reason[mine], self.side[mine])
