"""Boards of several venues quoted around a known surface, and quotes moved through its curve by a known number of ticks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

import volsurf as vs
from tests.surface.quoted_market import NOW, Quoted, Row
from volsurf.instruments import Universe
from volsurf.quotes import Field, QuoteBatch, QuoteBoard
from volsurf.surface.quote_vols import QuoteVols, quote_vols
from volsurf.surface.surface import Surface

EVERY = Field.QUOTE | Field.MARK | Field.FORWARD | Field.INDEX


def board_of_venues(
    market: Quoted, rows: Mapping[str, Iterable[Row]], universe: Universe | None = None, **columns: npt.ArrayLike
) -> QuoteBoard:
    """A board with the rows of each venue, all heard of now; `columns` override the batch's."""
    pairs = [(venue, row) for venue, mine in rows.items() for row in mine]
    universe = Universe() if universe is None else universe
    ids = universe.add(market.instrument(row, venue) for venue, row in pairs)
    board = QuoteBoard(universe)
    given: dict[str, npt.ArrayLike] = {
        "bid": [r.bid for _, r in pairs],
        "ask": [r.ask for _, r in pairs],
        "bid_size": 2.0,
        "ask_size": 3.0,
        "forward": [r.forward for _, r in pairs],
        "mark": [r.mark for _, r in pairs],
        "mark_vol": [r.vol for _, r in pairs],
        "index": market.spot,
        "venue_time_ns": NOW,
        "receive_time_ns": NOW,
    }
    board.apply(QuoteBatch(ids, EVERY, **(given | columns)))
    return board


def fitted(market: Quoted, rows: Iterable[Row] | None = None) -> tuple[Surface, QuoteVols]:
    """The surface of a market of one venue, and its quotes."""
    board = board_of_venues(market, {"one": market.rows() if rows is None else rows})
    quotes = quote_vols(board, NOW)
    return vs.fit_smiles(vs.build_smiles(quotes)), quotes


def quotes_of(market: Quoted, rows: Mapping[str, Iterable[Row]], now: int = NOW, **columns: npt.ArrayLike) -> QuoteVols:
    """The quotes of several venues."""
    return quote_vols(board_of_venues(market, rows, **columns), now)


def out_of_the_money(row: Row) -> bool:
    return row.strike > row.forward if row.is_call else row.strike < row.forward


def chosen(rows: list[Row], deviations: float, expiry_ns: int) -> int:
    """Position of the out-of-the-money option nearest a log-moneyness, in standard deviations."""

    def distance(row: Row) -> float:
        if row.expiry_ns != expiry_ns or not out_of_the_money(row):
            return np.inf
        years = (row.expiry_ns - NOW) / (365 * 86_400e9)
        return abs(float(np.log(row.strike / row.forward)) / (row.vol * np.sqrt(years)) - deviations)

    return min(range(len(rows)), key=lambda i: distance(rows[i]))


def moved(row: Row, fair: float, tick: float, bid_ticks: float | None = None, ask_ticks: float | None = None) -> Row:
    """The row with its bid so many ticks above the fair premium, or its ask so many below, and the other side beyond."""
    if bid_ticks is not None:
        bid = fair + bid_ticks * tick
        return replace(row, bid=bid, ask=bid + 2 * tick)
    assert ask_ticks is not None
    ask = fair - ask_ticks * tick
    return replace(row, bid=ask - 2 * tick, ask=ask)
