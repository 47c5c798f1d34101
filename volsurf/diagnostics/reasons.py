"""Why a quote was or was not used, and the ledger in which the counts add up to the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from html import escape

import numpy as np
import numpy.typing as npt


class QuoteReason(IntEnum):
    """What became of one row. The first reason that applies, in the order of the checks, is the row's.

    The numbers are part of the bytes of a frame: new ones are added at the end.
    """

    USED = 0
    AVERAGED = 1
    NO_QUOTE = 2
    BAD_PRICE = 3
    BAD_STRIKE = 4
    BAD_TYPE = 5
    BAD_EXPIRY = 6
    BAD_SETTLEMENT = 7
    BAD_UNDERLYING = 8
    DUPLICATE = 9
    EXPIRED = 10
    EXPIRING = 11
    STALE = 12
    CROSSED = 13
    NO_FORWARD = 14
    ITM_LEG = 15
    BELOW_INTRINSIC = 16
    ABOVE_MAXIMUM = 17
    TOO_WIDE = 18
    TOO_FAR = 19
    LOW_VEGA = 20
    ONE_SIDED = 21
    OUTLIER = 22
    VENUE_STALE = 23

    @property
    def label(self) -> str:
        """Two words at most, for a column."""
        return _TEXT[self][0]

    @property
    def sentence(self) -> str:
        """What it means for the row."""
        return _TEXT[self][1]

    @property
    def is_used(self) -> bool:
        """The quote took part in the fit."""
        return self in (QuoteReason.USED, QuoteReason.AVERAGED)


_TEXT = {
    QuoteReason.USED: ("used", "used in the fit"),
    QuoteReason.AVERAGED: (
        "averaged",
        "in the money but next to the forward: averaged into the other leg of its strike",
    ),
    QuoteReason.NO_QUOTE: ("no quote", "neither a bid nor an ask"),
    QuoteReason.BAD_PRICE: (
        "bad price",
        "a bid or ask that is negative, infinite or not a number, or a discount factor that is not between 0 and 2",
    ),
    QuoteReason.BAD_STRIKE: ("bad strike", "the strike is missing, zero, negative or infinite"),
    QuoteReason.BAD_TYPE: ("bad type", "the option type is neither call nor put"),
    QuoteReason.BAD_EXPIRY: ("bad expiry", "the expiry is missing or cannot be read as a time"),
    QuoteReason.BAD_SETTLEMENT: ("bad settlement", "the settlement is neither inverse nor linear"),
    QuoteReason.BAD_UNDERLYING: ("bad underlying", "the row names no underlying"),
    QuoteReason.DUPLICATE: ("duplicate", "another row for the same contract is newer, or comes later in the table"),
    QuoteReason.EXPIRED: ("expired", "the option has expired"),
    QuoteReason.EXPIRING: (
        "expiring",
        "inside the settlement window before expiry, where the payoff is already an average",
    ),
    QuoteReason.STALE: ("stale", "not heard of for longer than the limit"),
    QuoteReason.CROSSED: ("crossed", "the bid is above the ask"),
    QuoteReason.NO_FORWARD: (
        "no forward",
        "its expiry has no forward: none from the venue, from parity or from other expiries",
    ),
    QuoteReason.ITM_LEG: ("in the money", "the other leg of the strike carries the vol more exactly"),
    QuoteReason.BELOW_INTRINSIC: ("below intrinsic", "the price is at or below intrinsic value: no vol has it"),
    QuoteReason.ABOVE_MAXIMUM: ("above maximum", "the price is at or above the most an option can cost: no vol has it"),
    QuoteReason.TOO_WIDE: ("too wide", "bid and ask vol are further apart than the limit"),
    QuoteReason.TOO_FAR: (
        "too far out",
        "the strike is further from the forward than the limit, in standard deviations",
    ),
    QuoteReason.LOW_VEGA: ("low vega", "one tick of premium is worth many vol points here"),
    QuoteReason.ONE_SIDED: (
        "one-sided",
        "only an ask, at several times the venue's mark: it says nothing about the vol",
    ),
    QuoteReason.OUTLIER: ("outlier", "more than six error bars away from the rest of its expiry"),
    QuoteReason.VENUE_STALE: (
        "venue stale",
        "its venue is silent, disconnected, in maintenance or late, while another is live: it does not count until it is back",
    ),
}


@dataclass(frozen=True, slots=True)
class Ledger:
    """Every row of a board or chain by what became of it; the counts add up to `rows`."""

    rows: int
    counts: Mapping[QuoteReason, int]
    """Rows of each reason that occurs, most first."""
    one_sided: int = 0
    """How many of the used rows had one side only: they bound the fit without pulling it."""

    def __post_init__(self) -> None:
        total = sum(self.counts.values())
        if total != self.rows:
            raise AssertionError(f"the ledger does not balance: {total} reasons for {self.rows} rows")

    @classmethod
    def of(cls, reason: npt.NDArray[np.uint8], side: npt.NDArray[np.int8] | None = None) -> Ledger:
        """Ledger of a column of reasons, with the sides of the rows if known."""
        tally = np.bincount(reason, minlength=len(QuoteReason))
        order = sorted(QuoteReason, key=lambda r: (not r.is_used, -int(tally[r]), int(r)))
        one_sided = 0 if side is None else int(((side != 0) & (reason == QuoteReason.USED)).sum())
        return cls(len(reason), {r: int(tally[r]) for r in order if tally[r]}, one_sided)

    @property
    def used(self) -> int:
        """Rows that took part in a fit."""
        return sum(n for reason, n in self.counts.items() if reason.is_used)

    def __str__(self) -> str:
        lines = [f"{n:7,d}  {reason.label:16s} {reason.sentence}" for reason, n in self.counts.items()]
        return "\n".join([*lines, f"{self.rows:7,d}  rows"])

    def _repr_html_(self) -> str:
        body = "".join(
            f"<tr><td style='text-align:right'>{n:,d}</td><td style='text-align:left'>{escape(reason.label)}</td>"
            f"<td style='text-align:left'>{escape(reason.sentence)}</td></tr>"
            for reason, n in self.counts.items()
        )
        return (
            f"<table><tbody>{body}</tbody><tfoot><tr><th style='text-align:right'>{self.rows:,d}</th>"
            "<th colspan=2 style='text-align:left'>rows</th></tr></tfoot></table>"
        )
