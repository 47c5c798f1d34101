"""What the venues said of each option, in their own units, kept beside the vols made of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volsurf.instruments import FloatArray, IntArray
from volsurf.quotes import QuoteBoard

NO_TICK = 1e-8
"""Stands for the tick where prices are multiples of nothing coarser: nobody counts in it."""


@dataclass(frozen=True, slots=True, eq=False)
class VenueQuotes:
    """A board's values at one instant in the rows of a `QuoteLayout`, as columns of shape (n,); NaN where there is none."""

    bid: FloatArray
    """In the venue's premium unit: coin, or the strike's currency."""
    ask: FloatArray
    bid_size: FloatArray
    """In units of the underlying."""
    ask_size: FloatArray
    mark: FloatArray
    """The venue's own fair premium."""
    mark_vol: FloatArray
    """The venue's own vol, a decimal."""
    venue_time_ns: IntArray
    """Stamped by the venue, ns UTC; 0 where it stamps none."""
    receive_time_ns: IntArray
    discount: FloatArray
    """Discount factor of the premium; 1 for coin."""

    @classmethod
    def of(
        cls, board: QuoteBoard, ids: npt.NDArray[np.integer], bid: FloatArray, ask: FloatArray, discount: FloatArray
    ) -> VenueQuotes:
        """Copies of a board's values; `bid`, `ask` and `discount` are at hand where it is called."""
        return cls(
            bid=bid,
            ask=ask,
            bid_size=np.asarray(board.bid_size[ids]),
            ask_size=np.asarray(board.ask_size[ids]),
            mark=np.asarray(board.mark[ids]),
            mark_vol=np.asarray(board.mark_vol[ids]),
            venue_time_ns=np.asarray(board.venue_time_ns[ids]),
            receive_time_ns=np.asarray(board.receive_time_ns[ids]),
            discount=discount,
        )
