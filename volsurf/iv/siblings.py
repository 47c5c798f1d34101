"""Forwards of several markets in one expiry: what one lends another, and which of them speaks for the expiry.

A carried forward is F_there * I_here / I_there, I being each market's own index: the carry to expiry is the same, the currency of
the strikes and whose prices the index averages are not. Indexes of two venues at one instant differ by a few basis points, a
stablecoin and the dollar by tens, and the error bars below say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volsurf.instruments import NANOSECONDS_PER_YEAR
from volsurf.iv.forward import Floats, Forwards, ForwardSource, Ints

CARRIED_ERROR = 3e-4
"""Standard error of a ratio of two indexes of one instant, relative."""
INDEX_VOL = 0.6
"""What an index moves by, a year, while it is not heard of and the other one is."""
SAME_CURRENCY_ERROR = 5e-4
"""The same where an index is missing or too old and both strikes are in one currency, whose ratio is then taken as 1."""
OTHER_CURRENCY_ERROR = 5e-3
"""The same where the currencies differ: what a stablecoin is off by on a bad day."""
MUCH_TIGHTER = 4.0
"""How many times as exact another market's forward must be before it speaks for the expiry instead."""
EXACT_ENOUGH = 1e-4
"""Relative standard error below which nothing is tighter: the scatter of three pairs is small by luck, and not for long."""
_ORDER = ("USD", "USDC", "USDT")

_OWN = (int(ForwardSource.VENUE), int(ForwardSource.UNCHECKED), int(ForwardSource.PARITY))


@dataclass(frozen=True, slots=True)
class Siblings:
    """Which markets belong together, arrays of shape (markets,); markets are sorted by expiry."""

    expiry: Ints
    family: Ints
    """The same for markets that differ in their expiry only."""
    currency: Sequence[str]
    """Of the strikes."""
    index_ns: Ints
    """When the index of each was told."""

    def carry(
        self,
        forward: Floats,
        source: npt.NDArray[np.int8],
        error: Floats,
        parity: Floats,
        parity_error: Floats,
        index: Floats,
    ) -> None:
        """Give, in place, a forward to every market that has none and of whose expiry another has one.

        One or two strikes with both legs are read instead where they say it more exactly.
        """
        missing = np.flatnonzero(np.isnan(forward))
        known = np.isfinite(forward)
        if not known.any():
            return
        for market in missing.tolist():
            donors = np.flatnonzero(known & (self.expiry == self.expiry[market]))
            if not len(donors):
                continue
            ratio = index[market] / index[donors]
            has_ratio = (ratio > 0) & np.isfinite(ratio)
            same = np.array([self.currency[d] == self.currency[market] for d in donors.tolist()])
            apart = np.abs(self.index_ns[market] - self.index_ns[donors]) / NANOSECONDS_PER_YEAR
            by_ratio = np.hypot(CARRIED_ERROR, INDEX_VOL * np.sqrt(apart))
            step = np.where(same, SAME_CURRENCY_ERROR, OTHER_CURRENCY_ERROR)
            has_ratio &= by_ratio < step
            step = np.where(has_ratio, by_ratio, step)
            relative = np.hypot(step, error[donors] / forward[donors])
            best = int(np.argmin(relative))
            # Without a pair both are NaN, and the comparison is false.
            if parity_error[market] / parity[market] < relative[best]:
                forward[market], error[market], source[market] = (
                    parity[market],
                    parity_error[market],
                    ForwardSource.PARITY,
                )
                continue
            forward[market] = forward[donors[best]] * (ratio[best] if has_ratio[best] else 1.0)
            error[market] = relative[best] * forward[market]
            source[market] = ForwardSource.CARRIED


def reference_markets(
    markets: Forwards, expiry: Ints, currency: Sequence[str], heard: npt.NDArray[np.bool_], before: Ints
) -> Ints:
    """The market of each expiry whose forward is shown as that of the expiry, shape (expiries,).

    The first in this order: it has a forward of its own and live quotes; its strikes are in dollars, else in USDC, else in USDT;
    parity has checked it; it is the most exact. The last is another one every frame, so the market that spoke before goes on
    until another of its kind is four times as exact. Vols do not depend on the choice: each quote's moneyness is that to the
    forward of its own market.

    Args:
        markets: forwards, one element a market.
        expiry: of each market, rising from 0 without gaps.
        currency: of each market's strikes.
        heard: markets with a quote that may be used.
        before: the market that spoke for each expiry in the last frame, -1 for none, shape (expiries,).
    """
    count = int(expiry[-1]) + 1 if len(expiry) else 0
    place = {name: i for i, name in enumerate(_ORDER)}
    own = np.isin(markets.source, _OWN) & heard
    # One number for all that has to be equal before exactness counts, least first.
    kind = 8 * ~own + 2 * np.array([place.get(name, len(_ORDER)) for name in currency], np.int64)
    kind += markets.source == int(ForwardSource.UNCHECKED)
    # What was only inferred comes after every market's own, and nothing at all last.
    kind += np.where(np.isfinite(markets.forward), 0, 100)
    exactness = markets.standard_error / markets.forward
    exactness = np.where(np.isfinite(exactness), exactness, np.inf)
    order = np.lexsort((exactness, kind, expiry))
    best: Ints = order[np.searchsorted(expiry[order], np.arange(count))]
    held = np.flatnonzero(before >= 0)
    last = before[held]
    bound = MUCH_TIGHTER * np.maximum(exactness[best[held]], EXACT_ENOUGH)
    good = (kind[last] == kind[best[held]]) & (exactness[last] <= bound)
    best[held[good]] = last[good]
    return best
