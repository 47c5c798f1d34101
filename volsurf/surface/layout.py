"""The order in which a frame walks through the options: by underlying, expiry, strike, with the two legs side by side.

The options of one expiry at one venue, with strikes in one currency and premiums settled one way, are a *market*: they share a
forward. Dollars, USDC and USDT are different currencies, tens of basis points apart at times, so one expiry has as many forwards
as it has markets, and a quote's moneyness is that to the forward of its own.

The order depends on the listing only, so it is made once per state of the `Universe` and every frame is array arithmetic on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volsurf.instruments import BoolArray, FloatArray, IdArray, IntArray, Kind, Settlement, Universe


@dataclass(frozen=True, slots=True)
class QuoteLayout:
    """Active options sorted by (underlying, expiry, strike, settlement, venue, currency, put before call); so are rows below."""

    universe: Universe
    version: int
    """`Universe.version` it was made of."""
    ids: IdArray
    """Instrument id of each row, shape (n,)."""
    positions: npt.NDArray[np.intp]
    """`ids` as an index: numpy converts any other type at every use, which costs more than the look-up."""
    start: IntArray
    """First row of each expiry and the number of rows, shape (expiries + 1,)."""
    group: IntArray
    """Expiry of each row, shape (n,)."""
    partner: IntArray
    """Row of the other leg: same market and strike; -1 where it is not listed. Shape (n,)."""
    strike: FloatArray
    is_call: BoolArray
    inverse: BoolArray
    expiry_ns: IntArray
    """Of each expiry, shape (expiries,)."""
    underlying_id: npt.NDArray[np.int16]
    """Of each expiry, shape (expiries,)."""
    index_group: IntArray
    """Which index each row's ticker speaks of, shape (n,)."""
    index_ids: tuple[npt.NDArray[np.intp], ...]
    """Ids of every instrument whose ticker carries an index, by index group."""
    venue: IntArray
    """Position of each row's venue in `venues`, shape (n,)."""
    venues: tuple[str, ...]
    """Names, in the order in which they were first listed."""
    market: IntArray
    """Market of each row, shape (n,). Markets are sorted by expiry; where each has but one, they are the expiries."""
    market_expiry: IntArray
    """Expiry of each market, shape (markets,)."""
    market_family: IntArray
    """The same for markets that differ in the expiry only: one venue, currency, settlement and underlying. Shape (markets,)."""
    market_index: IntArray
    """Index group of each market: that of its first row. Shape (markets,)."""
    market_start: IntArray
    """First row of each market, and the number of rows, in the order of `by_market`. Shape (markets + 1,)."""
    is_mixed: bool
    """Some underlying is listed in several families."""
    by_market: npt.NDArray[np.intp] | None
    """Rows sorted by market, in the order above within one; None where they are so already. Shape (n,)."""
    market_venue: IntArray
    """Position of each market's venue in `venues`, shape (markets,)."""
    market_currency: tuple[str, ...]
    """Currency of each market's strikes."""
    market_inverse: BoolArray
    """Premiums are in coin, shape (markets,)."""
    market_discounted: BoolArray
    """Premiums are present values, see `Instrument.is_discounted`. Shape (markets,)."""

    @classmethod
    def of(cls, universe: Universe, known: QuoteLayout | None = None) -> QuoteLayout:
        """Layout of a universe; `known` itself where it is still true."""
        if known is not None and known.universe is universe and known.version == universe.version:
            return known
        rows = list(universe)
        venues = _codes([row.venue for row in rows])
        # One index per venue and name; a ticker of BTC_USDC options speaks of another index than one of BTC options.
        indices = _codes([f"{row.venue}\0{row.underlying}\0{row.price_index}" for row in rows])
        currencies = _codes([row.quote_currency for row in rows])
        ids = np.flatnonzero(universe.active & (universe.kind == Kind.OPTION))
        keys = (
            universe.is_call[ids],
            currencies[ids],
            venues[ids],
            universe.settlement[ids],
            universe.strike[ids],
            universe.expiry_ns[ids],
            universe.underlying_id[ids],
        )
        order = np.lexsort(keys)
        ids = ids[order]
        is_call, currency, venue, settlement = keys[0][order], keys[1][order], keys[2][order], keys[3][order]
        strike, expiry, underlying = keys[4][order], keys[5][order], keys[6][order]
        new = np.ones(len(ids), np.bool_)
        new[1:] = (expiry[1:] != expiry[:-1]) | (underlying[1:] != underlying[:-1])
        start = np.flatnonzero(new)
        pair = np.zeros(len(ids), np.bool_)
        # A put followed by its call. Two listings of one contract by one venue do not occur: symbols are unique.
        pair[:-1] = (
            ~new[1:]
            & (strike[1:] == strike[:-1])
            & (settlement[1:] == settlement[:-1])
            & (venue[1:] == venue[:-1])
            & (currency[1:] == currency[:-1])
            & is_call[1:]
            & ~is_call[:-1]
        )
        partner = np.full(len(ids), -1, np.int64)
        puts = np.flatnonzero(pair)
        partner[puts], partner[puts + 1] = puts + 1, puts
        index_group = indices[ids]
        groups = int(indices.max()) + 1 if len(indices) else 0
        group = np.cumsum(new, dtype=np.int64) - 1
        # One number for (venue, currency, settlement); with the underlying in front for families, with the expiry for markets.
        kind = (venue * (int(currencies.max(initial=0)) + 1) + currency) * len(Settlement) + settlement
        kinds = int(kind.max(initial=0)) + 1
        _, family = np.unique(underlying.astype(np.int64) * kinds + kind, return_inverse=True)
        _, market = np.unique(group * kinds + kind, return_inverse=True)
        market = market.astype(np.int64)
        if not len(market) or market.max() == group[-1]:
            by_market, market, market_start = None, group, start
        else:
            by_market = np.argsort(market, kind="stable")
            market_start = np.searchsorted(market[by_market], np.arange(int(market.max()) + 1))
        # The first row of each market.
        head = market_start if by_market is None else by_market[market_start]
        return cls(
            universe=universe,
            version=universe.version,
            ids=ids.astype(np.int32),
            positions=ids.astype(np.intp),
            start=np.append(start, len(ids)).astype(np.int64),
            group=group,
            partner=partner,
            strike=np.ascontiguousarray(strike),
            is_call=np.ascontiguousarray(is_call),
            inverse=settlement == Settlement.INVERSE,
            expiry_ns=expiry[start],
            underlying_id=underlying[start],
            index_group=index_group,
            index_ids=tuple(np.flatnonzero(indices == i) for i in range(groups)),
            venue=venue,
            venues=tuple(dict.fromkeys(row.venue for row in rows)),
            market=market,
            market_expiry=group[head],
            market_family=family.astype(np.int64)[head],
            market_index=index_group[head],
            is_mixed=len(set(family.tolist())) > len(set(underlying.tolist())),
            market_start=np.append(market_start, len(ids)).astype(np.int64),
            by_market=by_market,
            market_venue=venue[head],
            market_currency=tuple(rows[i].quote_currency for i in ids[head].tolist()),
            market_inverse=settlement[head] == Settlement.INVERSE,
            market_discounted=np.array([rows[i].is_discounted for i in ids[head].tolist()], np.bool_),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def market_name(self, market: int) -> str:
        """As a trader says it: "okx USD inverse"."""
        settled = "inverse" if self.market_inverse[market] else "linear"
        return f"{self.venues[self.market_venue[market]]} {self.market_currency[market]} {settled}"


def _codes(names: list[str]) -> IntArray:
    """Small integers in order of first appearance."""
    codes: dict[str, int] = {}
    return np.fromiter((codes.setdefault(name, len(codes)) for name in names), np.int64, len(names))
