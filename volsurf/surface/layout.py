"""The order in which a frame walks through the options: by underlying, expiry, strike, with the two legs side by side.

It depends on the listing only, so it is made once per state of the `Universe` and every frame is array arithmetic on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volsurf.instruments import BoolArray, FloatArray, IdArray, IntArray, Kind, Settlement, Universe


@dataclass(frozen=True, slots=True)
class QuoteLayout:
    """Active options sorted by (underlying, expiry, strike, settlement, venue, put before call); rows below are of that order."""

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
    """Row of the other leg: same venue, settlement and strike; -1 where it is not listed. Shape (n,)."""
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
    group_index: IntArray
    """Index group of each expiry: that of its first row. Shape (expiries,)."""
    venue: IntArray
    """Position of each row's venue in `venues`, shape (n,)."""
    venues: tuple[str, ...]
    """Names, in the order in which they were first listed."""

    @classmethod
    def of(cls, universe: Universe, known: QuoteLayout | None = None) -> QuoteLayout:
        """Layout of a universe; `known` itself where it is still true."""
        if known is not None and known.universe is universe and known.version == universe.version:
            return known
        rows = list(universe)
        venues = _codes([row.venue for row in rows])
        # One index per venue and name; a ticker of BTC_USDC options speaks of another index than one of BTC options.
        indices = _codes([f"{row.venue}\0{row.underlying}\0{row.price_index}" for row in rows])
        ids = np.flatnonzero(universe.active & (universe.kind == Kind.OPTION))
        keys = (
            universe.is_call[ids],
            venues[ids],
            universe.settlement[ids],
            universe.strike[ids],
            universe.expiry_ns[ids],
            universe.underlying_id[ids],
        )
        order = np.lexsort(keys)
        ids = ids[order]
        is_call, venue, settlement = keys[0][order], keys[1][order], keys[2][order]
        strike, expiry, underlying = keys[3][order], keys[4][order], keys[5][order]
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
            & is_call[1:]
            & ~is_call[:-1]
        )
        partner = np.full(len(ids), -1, np.int64)
        puts = np.flatnonzero(pair)
        partner[puts], partner[puts + 1] = puts + 1, puts
        index_group = indices[ids]
        groups = int(indices.max()) + 1 if len(indices) else 0
        return cls(
            universe=universe,
            version=universe.version,
            ids=ids.astype(np.int32),
            positions=ids.astype(np.intp),
            start=np.append(start, len(ids)).astype(np.int64),
            group=np.cumsum(new, dtype=np.int64) - 1,
            partner=partner,
            strike=np.ascontiguousarray(strike),
            is_call=np.ascontiguousarray(is_call),
            inverse=settlement == Settlement.INVERSE,
            expiry_ns=expiry[start],
            underlying_id=underlying[start],
            index_group=index_group,
            index_ids=tuple(np.flatnonzero(indices == i) for i in range(groups)),
            group_index=index_group[start],
            venue=venue,
            venues=tuple(dict.fromkeys(row.venue for row in rows)),
        )

    def __len__(self) -> int:
        return len(self.ids)


def _codes(names: list[str]) -> IntArray:
    """Small integers in order of first appearance."""
    codes: dict[str, int] = {}
    return np.fromiter((codes.setdefault(name, len(codes)) for name in names), np.int64, len(names))
