"""QuoteBatch and QuoteBoard: what goes in comes out, only what changed is dirty, and nothing is lost in conflation."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st

from volsurf.errors import InputError
from volsurf.instruments import Instrument, Kind, Universe
from volsurf.quotes import VALUES, Field, QuoteBatch, QuoteBoard

COUNT = 20


def universe(count: int = COUNT) -> Universe:
    return Universe(
        Instrument(venue="v", symbol=f"S{i}", kind=Kind.OPTION, underlying="BTC", expiry_ns=10**18, strike=1.0 + i)
        for i in range(count)
    )


@st.composite
def batches(draw: st.DrawFn, highest: int = COUNT - 1) -> QuoteBatch:
    rows = draw(st.integers(0, 12))
    column = st.lists(st.sampled_from([np.nan, 0.0, 0.5, 1.0]), min_size=rows, max_size=rows)
    return QuoteBatch(
        draw(st.lists(st.integers(0, highest), min_size=rows, max_size=rows)),
        draw(st.lists(st.integers(0, 31), min_size=rows, max_size=rows)),
        **{name: draw(column) for name in VALUES},
        venue_time_ns=np.arange(rows),
        receive_time_ns=np.arange(rows) + 1,
        sequence=np.arange(rows),
        feed=3,
        number=draw(st.integers(0, 2**63)),
        time_ns=draw(st.integers(-(2**62), 2**62)),
    )


def columns(batch: QuoteBatch) -> dict[str, npt.NDArray[np.generic]]:
    return {n: getattr(batch, n) for n in QuoteBatch.__slots__ if n not in ("feed", "number", "time_ns")}


@given(batches())
def test_bytes_round_trip(batch: QuoteBatch) -> None:
    back = QuoteBatch.from_bytes(batch.to_bytes())
    assert (back.feed, back.number, back.time_ns) == (batch.feed, batch.number, batch.time_ns)
    for name, value in columns(batch).items():
        np.testing.assert_array_equal(getattr(back, name), value, strict=True)


def test_binary_layout_is_as_documented() -> None:
    batch = QuoteBatch([7], Field.QUOTE | Field.MARK, bid=[0.25], mark=[0.5], feed=2, number=9, time_ns=11)
    data = batch.to_bytes()
    assert struct.unpack_from("<4sHHIIQq", data) == (b"VSQB", 2, 16, 1, 2, 9, 11)
    assert struct.unpack_from("<d", data, 32)[0] == 0.25
    assert struct.unpack_from("<d", data, 32 + 4 * 8)[0] == 0.5
    assert struct.unpack_from("<iH", data, 32 + 14 * 8) == (7, 3)
    assert len(data) == 32 + 14 * 8 + 6


@given(batches(), st.integers(0, 40), st.binary(min_size=1, max_size=4))
def test_damaged_bytes_are_an_input_error(batch: QuoteBatch, at: int, junk: bytes) -> None:
    data = bytearray(batch.to_bytes())
    for damaged in (data[: min(at, len(data) - 1)], bytes(data) + junk, junk + data):
        with pytest.raises(InputError):
            QuoteBatch.from_bytes(bytes(damaged))


def test_wrong_columns_are_named() -> None:
    with pytest.raises(InputError, match="bids"):
        QuoteBatch([1], Field.QUOTE, bids=[1.0])
    with pytest.raises(InputError, match="ask"):
        QuoteBatch([1, 2], Field.QUOTE, ask=[1.0, 2.0, 3.0])
    with pytest.raises(AttributeError, match="colour"):
        QuoteBoard(universe()).colour  # noqa: B018


@given(st.lists(batches(), max_size=6))
def test_draining_a_board_conflates_without_loss(updates: list[QuoteBatch]) -> None:
    """A board fed directly and one fed through another board's drains end equal, whatever was conflated on the way."""
    direct, feed, core = (QuoteBoard(universe()) for _ in range(3))
    for i, batch in enumerate(updates):
        direct.apply(batch)
        feed.apply(batch)
        if i % 2:
            core.apply(feed.drain())
    core.apply(feed.drain())
    assert len(feed.drain()) == 0
    for name in (*VALUES, "venue_time_ns", "receive_time_ns", "sequence"):
        np.testing.assert_array_equal(getattr(core, name), getattr(direct, name), err_msg=name)
    # A value that moved and came back is dirty for who saw it move, never the other way round.
    assert not (core.changed & ~direct.changed).any()


@given(batches(), batches())
def test_changed_marks_exactly_the_groups_that_differ(first: QuoteBatch, second: QuoteBatch) -> None:
    board = QuoteBoard(universe())
    board.apply(first)
    board.take_changed()
    before = {n: getattr(board, n).copy() for n in VALUES}
    # One row, so that "differs from before" is the same as "differed when it was written".
    board.apply(QuoteBatch(second.instrument_id[:1], second.fields[:1], **{n: getattr(second, n)[:1] for n in VALUES}))
    for group, names in ((Field.QUOTE, VALUES[:4]), (Field.MARK, VALUES[4:6]), (Field.LAST, VALUES[6:7])):
        differs = np.zeros(COUNT, bool)
        for name in names:
            differs |= ~np.isclose(before[name], getattr(board, name), equal_nan=True, rtol=0, atol=0)
        np.testing.assert_array_equal((board.changed & group) != 0, differs)


def test_a_group_not_carried_is_left_alone() -> None:
    board = QuoteBoard(universe())
    board.apply(QuoteBatch([1], Field.QUOTE | Field.FORWARD, bid=1.0, ask=2.0, forward=100.0))
    board.apply(QuoteBatch([1], Field.MARK, mark=1.5))
    assert (board.bid[1], board.mark[1], board.forward[1]) == (1.0, 1.5, 100.0)


def test_unknown_ids_are_counted_and_left_out() -> None:
    board = QuoteBoard(universe())
    board.apply(QuoteBatch([1, 5000, -1], Field.QUOTE, bid=[1.0, 2.0, 3.0]))
    assert board.unknown_rows == 2
    assert np.isfinite(board.bid).sum() == 1


def test_board_grows_with_its_universe() -> None:
    table = universe()
    board = QuoteBoard(table)
    board.apply(QuoteBatch([3], Field.QUOTE, bid=7.0))
    table.add(
        Instrument(venue="v", symbol=f"N{i}", kind=Kind.OPTION, underlying="ETH", expiry_ns=10**18, strike=1.0)
        for i in range(5000)
    )
    board.apply(QuoteBatch([5019], Field.QUOTE, bid=8.0))
    assert len(board.bid) == 5020
    assert (board.bid[3], board.bid[5019]) == (7.0, 8.0)
    assert np.isnan(board.bid[4])


def test_cleared_quotes_are_dirty_once() -> None:
    board = QuoteBoard(universe())
    board.apply(QuoteBatch([2], Field.QUOTE, bid=1.0, ask=2.0))
    board.take_changed()
    board.clear_quotes([2, 3])
    assert list(np.flatnonzero(board.dirty)) == [2]
    assert np.isnan(board.bid[2])
    assert list(board.drain().instrument_id) == [2]
