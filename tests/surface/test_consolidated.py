"""Consolidated best bid and ask in vol, against a plain reading of every row."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from tests.surface.quoted_market import DAY, NOW
from tests.surface.venue_boards import FOUR, Book, board_of, rows_of
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import Instrument, Kind, Settlement, Universe
from volsurf.iv.black import black_price
from volsurf.quotes import Field, QuoteBatch, QuoteBoard
from volsurf.surface.consolidated import ConsolidatedQuotes, consolidated_quotes
from volsurf.surface.quote_vols import QuoteVols, quote_vols

STANDING = {
    QuoteReason.USED,
    QuoteReason.AVERAGED,
    QuoteReason.TOO_WIDE,
    QuoteReason.TOO_FAR,
    QuoteReason.ONE_SIDED,
    QuoteReason.OUTLIER,
}
SECOND = 1_000_000_000


def check(quotes: QuoteVols) -> ConsolidatedQuotes:
    """Compare every column with what a loop over the rows says."""
    found = consolidated_quotes(quotes)
    layout = quotes.layout
    strikes: dict[tuple[int, int, float], list[int]] = {}
    for row in range(len(quotes)):
        key = (int(quotes.underlying_id[row]), int(quotes.expiry_ns[row]), float(quotes.strike[row]))
        strikes.setdefault(key, []).append(row)
    assert list(strikes) == sorted(strikes)
    assert list(
        zip(found.underlying_id.tolist(), found.expiry_ns.tolist(), found.strike.tolist(), strict=True)
    ) == list(strikes)
    for at, rows in enumerate(strikes.values()):
        standing = [row for row in rows if QuoteReason(int(quotes.reason[row])) in STANDING]
        sides = {}
        for side, vols, sign in (("bid", quotes.bid_vol, -1.0), ("ask", quotes.ask_vol, 1.0)):
            quoted = [row for row in standing if math.isfinite(vols[row])]
            best = min(quoted, key=lambda row: (sign * vols[row], quotes.age_ns[row], row), default=None)
            sides[side] = {row: float(vols[row]) for row in quoted}
            assert getattr(found, f"{side}_quotes")[at] == len(quoted)
            assert getattr(found, f"{side}_row")[at] == (-1 if best is None else best)
            assert getattr(found, f"{side}_id")[at] == (-1 if best is None else layout.ids[best])
            assert getattr(found, f"{side}_venue")[at] == (-1 if best is None else layout.venue[best])
            assert getattr(found, f"{side}_age_ns")[at] == (0 if best is None else quotes.age_ns[best])
            np.testing.assert_equal(getattr(found, f"{side}_vol")[at], np.nan if best is None else vols[best])
        crossed = any(
            bid > ask and layout.venue[one] != layout.venue[other]
            for one, bid in sides["bid"].items()
            for other, ask in sides["ask"].items()
        )
        assert found.crossed[at] == crossed
    return found


def test_five_books_of_four_venues() -> None:
    found = check(quote_vols(board_of(FOUR), NOW))
    assert found.venues == ("deribit", "okx", "bybit", "binance")
    assert len(found) == len(np.unique(np.column_stack((found.expiry_ns, found.strike)), axis=0))
    # The narrowest maker has the best of both sides wherever it quotes and the others are not mispriced.
    both = np.isfinite(found.spread)
    assert both.mean() > 0.8
    assert (found.bid_venue[both] == 0).mean() > 0.8
    assert not found.crossed.any()
    assert repr(found).startswith(f"ConsolidatedQuotes({len(found)} strikes")


def test_a_mispriced_venue_crosses_and_is_named() -> None:
    books = (Book("deribit"), Book("bybit", "USDT", Settlement.LINEAR, basis=-0.001, shift=0.02))
    found = check(quote_vols(board_of(books), NOW))
    both = (found.bid_quotes > 0) & (found.ask_quotes > 0) & (found.bid_venue >= 0)
    crossed = found.crossed
    assert crossed.sum() > 20
    assert (found.bid_venue[crossed] == 1).all()
    assert (found.ask_venue[crossed] == 0).all()
    assert found.spread[crossed] == pytest.approx(-0.02 + 0.008, abs=2e-3)
    assert (found.spread[~crossed & both] > 0).all()


def test_a_venue_that_is_silent_has_no_part_in_it() -> None:
    board = board_of(FOUR)
    names = np.array([i.venue for i in board.universe])
    quotes = quote_vols(board, NOW, unheard=names == "deribit")
    found = check(quotes)
    assert not (found.bid_venue == 0).any()
    assert not (found.ask_venue == 0).any()
    assert (quotes.reason[rows_of(quotes, "deribit")] == QuoteReason.VENUE_STALE).all()


def two(prices: dict[str, tuple[float, float]], received: dict[str, int] | None = None) -> QuoteBoard:
    """One strike at the money: bid and ask vol by venue, of its call, or of its put where the name ends in " put"."""
    universe = Universe()
    board = QuoteBoard(universe)
    years = 30 / 365
    for name, vols in prices.items():
        venue, _, put = name.partition(" ")
        instrument = Instrument(
            venue=venue,
            symbol=f"{venue}-{'P' if put else 'C'}",
            kind=Kind.OPTION,
            underlying="BTC",
            settlement=Settlement.LINEAR,
            expiry_ns=NOW + 30 * DAY,
            strike=90_000.0,
            is_call=not put,
            tick_size=0.5,
        )
        bid, ask = (float(black_price(90_000.0, 90_000.0, years, vol, not put)) for vol in vols)
        board.apply(
            QuoteBatch(
                universe.add([instrument]),
                int(Field.QUOTE | Field.FORWARD),
                bid=bid,
                ask=ask,
                forward=90_000.0,
                receive_time_ns=NOW - (received or {}).get(name, 0),
            )
        )
    return board


def test_of_equal_quotes_the_one_last_confirmed_then_the_first_listed() -> None:
    same = (0.50, 0.52)
    ages = {"a": 5 * SECOND, "b": 2 * SECOND, "c": 2 * SECOND}
    found = check(quote_vols(two({"a": same, "b": same, "c": same}, ages), NOW))
    assert found.bid_venue.tolist() == found.ask_venue.tolist() == [1]
    assert found.bid_age_ns.tolist() == [2 * SECOND]
    assert found.bid_quotes.tolist() == [3]
    assert not found.crossed.any()


def test_sides_may_come_from_different_venues() -> None:
    found = check(quote_vols(two({"a": (0.50, 0.56), "b": (0.48, 0.53)}), NOW))
    assert (found.bid_venue.tolist(), found.ask_venue.tolist()) == ([0], [1])
    assert found.bid_vol[0] == pytest.approx(0.50, abs=1e-9)
    assert found.ask_vol[0] == pytest.approx(0.53, abs=1e-9)
    assert found.spread[0] == pytest.approx(0.03, abs=1e-9)


def test_a_venue_whose_legs_disagree_crosses_itself_only_or_others_too() -> None:
    own = {"a": (0.58, 0.60), "a put": (0.48, 0.50)}
    alone = check(quote_vols(two(own | {"b": (0.40, 0.70)}), NOW))
    assert alone.spread[0] < 0
    assert alone.bid_venue.tolist() == alone.ask_venue.tolist() == [0]
    assert not alone.crossed.any(), "its own affair"
    other = check(quote_vols(two(own | {"b": (0.40, 0.55)}), NOW))
    assert other.bid_venue.tolist() == other.ask_venue.tolist() == [0]
    assert other.crossed.all(), "its bid is above the other venue's ask, though neither is the best ask"


def test_no_quotes_at_all() -> None:
    found = check(quote_vols(QuoteBoard(Universe()), NOW))
    assert len(found) == 0
    assert found.to_polars().is_empty()
    board = two({"a": (0.50, 0.56)})
    board.clear_quotes([0])
    found = check(quote_vols(board, NOW))
    assert (found.bid_row.tolist(), found.ask_venue.tolist(), found.bid_age_ns.tolist()) == ([-1], [-1], [0])
    frame = found.to_polars()
    assert frame["bid_vol"].to_list() == frame["bid_venue"].to_list() == frame["bid_age_seconds"].to_list() == [None]


def test_as_a_table() -> None:
    board = two({"a": (0.50, 0.56), "b": (0.57, 0.60)}, {"b": 3 * SECOND})
    (row,) = check(quote_vols(board, NOW)).to_polars().to_dicts()
    assert row["underlying"] == "BTC"
    assert row["strike"] == 90_000.0
    assert row["expiry"].timestamp() * SECOND == NOW + 30 * DAY
    assert (row["bid_venue"], row["bid_symbol"], row["bid_age_seconds"]) == ("b", "b-C", 3.0)
    assert (row["ask_venue"], row["ask_symbol"], row["ask_age_seconds"]) == ("a", "a-C", 0.0)
    assert row["crossed"] is True
    assert consolidated_quotes(quote_vols(QuoteBoard(Universe()), NOW)).to_polars().schema["expiry"] == pl.Datetime(
        "ns", "UTC"
    )


BOOKS = st.lists(
    st.builds(
        Book,
        venue=st.sampled_from(["deribit", "okx", "bybit"]),
        currency=st.sampled_from(["USD", "USDC", "USDT"]),
        settlement=st.sampled_from(list(Settlement)),
        basis=st.sampled_from([0.0, 0.001, -0.002]),
        half_spread=st.sampled_from([0.002, 0.004, 0.01]),
        shift=st.sampled_from([0.0, 0.01, -0.02]),
        days=st.sampled_from([(7,), (7, 30)]),
        legs=st.sampled_from(["both", "calls"]),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda book: (book.venue, book.currency, book.settlement),
)


@given(books=BOOKS, seed=st.integers(0, 2**32 - 1), damage=st.sampled_from([0.0, 0.1, 0.5]))
@settings(max_examples=25)
def test_any_venues_with_any_holes(books: list[Book], seed: int, damage: float) -> None:
    rng = np.random.default_rng(seed)
    board = board_of(books)
    n = len(board)
    quotes = {name: getattr(board, name).copy() for name in ("bid", "ask", "bid_size", "ask_size")}
    for side in ("bid", "ask"):
        quotes[side][rng.random(n) < damage] = np.nan
        quotes[side] *= np.where(rng.random(n) < damage, rng.choice([0.5, 0.99, 1.01, 3.0], n), 1.0)
    ages = rng.integers(0, 400, n) * SECOND
    board.apply(
        QuoteBatch(np.arange(n), int(Field.QUOTE), receive_time_ns=NOW - ages, venue_time_ns=NOW - ages, **quotes)
    )
    check(quote_vols(board, NOW))
