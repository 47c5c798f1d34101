"""Order books: against a plain dictionary, and against everything a venue's stream can do to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from volsurf.errors import InputError
from volsurf.feeds.book import Applied, BookState, OrderBook, lost_book
from volsurf.feeds.books import DOUBT_NS, BookTable
from volsurf.feeds.protocol import BookEvent
from volsurf.instruments import Instrument, Kind, Universe
from volsurf.quotes import Field, QuoteBoard

NOW = 1_790_000_000_000_000_000
Levels = tuple[tuple[float, float], ...]

levels = st.lists(
    st.tuples(st.integers(1, 12).map(lambda i: i / 8), st.integers(0, 3).map(float)),
    max_size=8,
    unique_by=lambda x: x[0],
).map(tuple)


def event(bids: Levels, asks: Levels, sequence: int, previous: int | None, row: int = 0) -> BookEvent:
    return BookEvent(row, previous is None, bids, asks, sequence, previous or 0, NOW + sequence)


def opened(bids: Levels = ((1.0, 5.0), (0.9, 7.0)), asks: Levels = ((1.1, 2.0), (1.2, 4.0))) -> OrderBook:
    book = OrderBook()
    assert book.apply(event(bids, asks, 10, None)) is Applied.CHANGED
    return book


@given(st.lists(st.tuples(st.booleans(), levels, levels), min_size=1, max_size=30))
def test_is_the_sum_of_its_events(steps: list[tuple[bool, Levels, Levels]]) -> None:
    book, truth = OrderBook(), ({}, {})
    for sequence, (is_snapshot, bids, asks) in enumerate([(True, (), ()), *steps]):
        before = [dict(side) for side in truth]
        for side, changes in zip(truth, (bids, asks), strict=True):
            if is_snapshot:
                side.clear()
            side.update(changes)
            for price in [p for p, size in side.items() if size == 0]:
                del side[price]
        applied = book.apply(event(bids, asks, sequence + 1, None if is_snapshot else sequence))
        if sequence > 0:
            assert (applied is Applied.CHANGED) == (before != list(truth))
        found = book.levels()
        assert [tuple(x) for x in found[0].tolist()] == sorted(truth[0].items(), reverse=True)
        assert [tuple(x) for x in found[1].tolist()] == sorted(truth[1].items())
        assert book.depth(3) == (
            sum(size for _, size in sorted(truth[0].items(), reverse=True)[:3]),
            sum(size for _, size in sorted(truth[1].items())[:3]),
        )
        copy = OrderBook()
        snapshot = book.snapshot(0)
        assert snapshot is not None
        copy.apply(snapshot)
        np.testing.assert_array_equal(copy.levels()[0], found[0])
        np.testing.assert_array_equal(copy.levels()[1], found[1])


def test_a_gap_shows_nothing_until_the_next_snapshot() -> None:
    book = opened()
    assert book.apply(event(((1.0, 6.0),), (), 11, 10)) is Applied.CHANGED
    assert book.apply(event(((1.0, 8.0),), (), 13, 12)) is Applied.GAP
    assert (book.state, book.gaps, len(book)) == (BookState.WAITING, 1, 0)
    assert math.isnan(book.best_bid)
    assert book.snapshot(0) is None
    assert book.apply(event(((1.0, 8.0),), (), 14, 13)) is Applied.AWAITED
    assert book.apply(event(((0.8, 1.0),), (), 20, None)) is Applied.CHANGED
    assert book.state is BookState.ONE_SIDED
    assert book.best_bid == 0.8


def test_a_keep_alive_changes_nothing() -> None:
    book = opened()
    assert book.apply(event((), (), 10, 10)) is Applied.UNCHANGED
    assert book.apply(event(((0.5, 0.0),), (), 11, 10)) is Applied.UNCHANGED
    assert book.apply(event(((1.0, 5.0),), (), 12, 11)) is Applied.UNCHANGED


@pytest.mark.parametrize("level", [(0.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_a_level_that_cannot_be_empties_the_book(level: tuple[float, float]) -> None:
    book = opened()
    assert book.apply(event((level,), (), 11, 10)) is Applied.BAD_LEVEL
    assert book.state is BookState.WAITING


@pytest.mark.parametrize(
    ("bids", "asks", "state"),
    [
        ((), (), BookState.EMPTY),
        (((1.0, 1.0),), (), BookState.ONE_SIDED),
        (((1.0, 1.0),), ((1.0, 1.0),), BookState.LOCKED),
        (((1.1, 1.0),), ((1.0, 1.0),), BookState.CROSSED),
        (((0.9, 1.0),), ((1.0, 1.0),), BookState.OPEN),
    ],
)
def test_states(bids: Levels, asks: Levels, state: BookState) -> None:
    assert opened(bids, asks).state is state


def test_prices_that_weigh_depth() -> None:
    book = opened()
    assert book.micro_price == pytest.approx((1.0 * 2.0 + 1.1 * 5.0) / 7.0)
    assert book.price_for(1.0) == (1.0, 1.1)
    bid, ask = book.price_for(6.0)
    assert bid == pytest.approx((5 * 1.0 + 1 * 0.9) / 6)
    assert ask == pytest.approx((2 * 1.1 + 4 * 1.2) / 6)
    assert math.isnan(book.price_for(7.0)[1])
    assert math.isnan(OrderBook().micro_price)
    for size in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="size to trade"):
            book.price_for(size)


class TestTable:
    def make(self) -> tuple[BookTable, QuoteBoard]:
        universe = Universe(
            Instrument(venue="v", symbol=s, kind=Kind.OPTION, underlying="BTC", strike=1.0, expiry_ns=NOW)
            for s in "abc"
        )
        return BookTable(universe), QuoteBoard(universe)

    def test_top_and_depth_reach_the_board(self) -> None:
        table, board = self.make()
        assert table.take_quotes(NOW) is None
        table.apply(event(((1.0, 5.0), (0.9, 7.0)), ((1.1, 2.0),), 10, None), NOW + 1)
        table.apply(event(((1.0, 6.0),), (), 11, 10), NOW + 2)
        table.apply(event((), (), 5, None, row=1), NOW + 3)
        batch = table.take_quotes(NOW + 4)
        assert batch is not None
        assert batch.instrument_id.tolist() == [0, 1]
        assert set(batch.fields.tolist()) == {Field.QUOTE | Field.DEPTH}
        board.apply(batch)
        assert (board.bid[0], board.bid_size[0], board.ask[0], board.ask_size[0]) == (1.0, 6.0, 1.1, 2.0)
        assert (board.bid_depth[0], board.ask_depth[0]) == (13.0, 2.0)
        assert (board.venue_time_ns[0], board.receive_time_ns[0], board.sequence[0]) == (NOW + 11, NOW + 2, 11)
        assert np.isnan(board.bid[1])
        assert np.isnan(board.bid_depth[1])
        assert table.take_quotes(NOW + 5) is None

    def test_a_gap_clears_what_was_shown_once(self) -> None:
        table, board = self.make()
        table.apply(event(((1.0, 5.0),), (), 10, None), NOW)
        board.apply(table.take_quotes(NOW))  # type: ignore[arg-type]
        assert table.apply(event(((1.0, 5.0),), (), 13, 12), NOW) is Applied.GAP
        batch = table.take_quotes(NOW)
        assert batch is not None
        board.apply(batch)
        assert np.isnan(board.bid[0])
        table.apply(event(((1.0, 5.0),), (), 14, 13), NOW)
        assert table.take_quotes(NOW) is None
        assert table.counters == {"changed": 1, "gap": 1, "awaited": 1}

    def test_a_crossed_book_is_handed_on_and_restarted_after_a_while(self) -> None:
        table, board = self.make()
        table.apply(event(((1.1, 5.0),), ((1.0, 1.0),), 10, None), NOW)
        board.apply(table.take_quotes(NOW))  # type: ignore[arg-type]
        assert board.bid[0] > board.ask[0]
        assert table.doubtful(NOW + DOUBT_NS) == []
        assert table.doubtful(NOW + DOUBT_NS + 1) == [0]
        assert table.doubtful(NOW + DOUBT_NS + 2) == []
        table.apply(event(((1.1, 0.0), (1.0, 1.0)), (), 11, 10), NOW)
        assert table.doubtful(NOW + 9 * DOUBT_NS) == []
        assert (table.counters["crossed"], table.counters["locked"]) == (1, 1)

    def test_a_snapshot_that_does_not_come_is_asked_for_again(self) -> None:
        table, _ = self.make()
        table.apply(event(((1.0, 5.0),), (), 10, None), NOW)
        table.apply(lost_book(0), NOW)
        assert table.doubtful(NOW + DOUBT_NS) == []
        assert table.doubtful(NOW + DOUBT_NS + 1) == [0]
        assert table.doubtful(NOW + 2 * DOUBT_NS) == []
        assert table.doubtful(NOW + 2 * DOUBT_NS + 2) == [0]
        table.apply(event(((1.0, 5.0),), (), 20, None), NOW)
        assert table.doubtful(NOW + 9 * DOUBT_NS) == []
        table.apply(lost_book(0), NOW)
        table.clear([0])
        assert table.doubtful(NOW + 9 * DOUBT_NS) == []

    def test_clear_and_drop(self) -> None:
        table, board = self.make()
        for row in range(3):
            table.apply(event(((1.0, 5.0),), (), 10, None, row=row), NOW)
        board.apply(table.take_quotes(NOW))  # type: ignore[arg-type]
        table.clear([0])
        table.drop([1])
        batch = table.take_quotes(NOW)
        assert batch is not None
        assert batch.instrument_id.tolist() == [0]
        assert table.get(1) is None
        assert [snapshot.instrument_id for snapshot in table.snapshots()] == [2]
        assert "1 waiting" in repr(table)

    def test_columns(self) -> None:
        table, _ = self.make()
        table.apply(event(((1.0, 5.0), (0.9, 7.0)), ((1.1, 2.0),), 10, None, row=2), NOW)
        table.apply(event((), (), 4, None, row=0), NOW)
        columns = table.columns(2)
        assert columns.instrument_id.tolist() == [0, 2]
        assert columns.bid.shape == (2, 2)
        np.testing.assert_array_equal(columns.bid, [[np.nan, np.nan], [1.0, 0.9]])
        np.testing.assert_array_equal(columns.ask_size, [[np.nan, np.nan], [2.0, np.nan]])
        frame = table.to_polars(2)
        assert frame["symbol"].to_list() == ["a", "c"]
        assert frame["state"].to_list() == ["empty", "open"]
        assert frame["bid_size_1"].to_list()[1] == 7.0
