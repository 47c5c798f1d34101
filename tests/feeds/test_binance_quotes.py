"""Quotes of two routes on one board: the newer by the venue's time stands, whichever connection brings it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests.feeds.binance_frames import (
    BTC_OPTIONS,
    SECOND,
    START,
    START_MS,
    Desk,
    book_ticker,
    index,
    listing,
    mark_row,
    marks,
    ready,
    trade,
)
from volsurf.feeds.protocol import TradeEvent
from volsurf.instruments import NANOSECONDS_PER_YEAR
from volsurf.quotes import Field

NAME = BTC_OPTIONS[0]


def test_the_forward_is_the_index_carried_to_expiry() -> None:
    desk = ready()
    desk.say(
        marks(mark_row(NAME, rf="0.0535"), mark_row(BTC_OPTIONS[2], rf="-0.01"), mark_row(BTC_OPTIONS[1], rf="0.0"))
    )
    got = desk.take()
    for name, carry in ((NAME, 0.0535), (BTC_OPTIONS[2], -0.01), (BTC_OPTIONS[1], 0.0)):
        years = (desk.market.universe["binance", name].expiry_ns - START) / NANOSECONDS_PER_YEAR
        assert got[name]["forward"] == pytest.approx(81_000.0 * math.exp(carry * years), rel=1e-14)
        # What the premium is discounted by can be had from the row alone.
        assert got[name]["index"] / got[name]["forward"] == pytest.approx(math.exp(-carry * years), rel=1e-14)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"rf": "nan"}, Field.FORWARD),
        ({"rf": "55"}, Field.FORWARD),
        ({"i": "0.0"}, Field.FORWARD | Field.INDEX),
        ({"i": "inf"}, Field.FORWARD | Field.INDEX),
        ({"mp": "-1"}, Field.MARK),
        ({"mp": "inf"}, Field.MARK),
        ({"E": 0}, Field.FORWARD),
    ],
)
def test_what_cannot_be_is_left_out_of_the_row(changes: dict[str, object], missing: Field) -> None:
    desk = ready(quotes="none")
    desk.say(marks(mark_row(NAME, **changes)))
    got = desk.take()[NAME]
    whole = Field.QUOTE | Field.MARK | Field.FORWARD | Field.INDEX
    assert got["fields"] == int(whole & ~missing)
    assert got["bid"] == 6100.0


@pytest.mark.parametrize(
    ("changes", "bid", "size"),
    [
        ({"bo": "0.000", "bq": "0.00"}, math.nan, math.nan),
        ({"bo": "0.000", "bq": "5.00"}, math.nan, math.nan),
        ({"bo": "10.000", "bq": "0.00"}, math.nan, math.nan),
        ({"bo": "-5", "bq": "1"}, math.nan, math.nan),
        ({"bo": "inf", "bq": "1"}, math.nan, math.nan),
        ({"bo": "10", "bq": "nan"}, 10.0, math.nan),
        ({"bo": "10", "bq": "inf"}, 10.0, math.nan),
    ],
)
def test_an_empty_side(changes: dict[str, object], bid: float, size: float) -> None:
    desk = ready()
    desk.say(marks(mark_row(NAME, **changes)))
    got = desk.take()[NAME]
    assert [got["bid"], got["bid_size"]] == pytest.approx([bid, size], nan_ok=True)
    assert got["ask"] == 6200.0
    desk = ready()
    renamed = {{"bo": "b", "bq": "B"}[key]: value for key, value in changes.items()}
    desk.say(book_ticker(NAME, **renamed), member=1)
    got = desk.take(1)[NAME]
    assert [got["bid"], got["bid_size"]] == pytest.approx([bid, size], nan_ok=True)
    assert got["ask"] == 6195.0


@pytest.mark.parametrize("vol", ["-1.0", "0.00000060", "nan", "inf", "0"])
def test_sentinels_are_no_vols(vol: str) -> None:
    desk = ready()
    desk.say(marks(mark_row(NAME, vo=vol)))
    got = desk.take()[NAME]
    assert math.isnan(got["mark_vol"])
    assert got["mark"] == 6150.0


def test_a_newer_book_ticker_stands_over_an_older_chain() -> None:
    desk = ready()
    desk.say(book_ticker(NAME, START_MS + 600), member=1)
    assert desk.take(1)[NAME]["bid"] == 6105.0
    desk.say(marks(mark_row(NAME, START_MS + 500)))
    got = desk.take()[NAME]
    # Of the older row everything but the quote.
    assert got["fields"] == int(Field.MARK | Field.FORWARD | Field.INDEX)
    assert math.isnan(got["bid"])
    desk.say(marks(mark_row(NAME, START_MS + 601)))
    assert desk.take()[NAME]["bid"] == 6100.0


def test_a_newer_chain_stands_over_an_older_book_ticker() -> None:
    desk = ready()
    desk.say(marks(mark_row(NAME, START_MS + 500)))
    desk.take()
    desk.say(book_ticker(NAME, START_MS + 499), member=1)
    assert desk.take(1) == {}
    assert desk.venues[1].counters["ticker_stale"] == 1
    # At the same millisecond the book ticker, which comes by itself.
    desk.say(book_ticker(NAME, START_MS + 500), member=1)
    assert desk.take(1)[NAME]["bid"] == 6105.0
    desk.say(marks(mark_row(NAME, START_MS + 500)))
    assert desk.take()[NAME]["fields"] == int(Field.MARK | Field.FORWARD | Field.INDEX)


def test_the_order_in_which_connections_are_asked_does_not_matter() -> None:
    for members in ((0, 1), (1, 0)):
        desk = ready()
        desk.say(marks(mark_row(NAME, START_MS + 500)))
        desk.say(book_ticker(NAME, START_MS + 700), member=1)
        board: dict[str, float] = {}
        for member in members:
            got = desk.take(member)[NAME]
            if int(got["fields"]) & Field.QUOTE:
                board = got
        assert board["bid"] == 6105.0


def test_book_tickers_out_of_order_within_and_across_ticks() -> None:
    desk = ready()
    desk.say(
        book_ticker(NAME, START_MS + 20, 1000, b="6120.0"), book_ticker(NAME, START_MS + 10, 999, b="6110.0"), member=1
    )
    got = desk.take(1)[NAME]
    assert (got["bid"], got["sequence"], got["venue_time_ns"]) == (6120.0, 1000, (START_MS + 20) * 1_000_000)
    desk.say(book_ticker(NAME, START_MS + 20, 998, b="6110.0"), member=1)
    assert desk.take(1) == {}
    desk.say(book_ticker(NAME, START_MS + 10, 999, b="6110.0"), member=1)
    assert desk.take(1) == {}
    assert desk.venues[1].counters["ticker_stale"] == 3
    assert desk.venues[1].counters["bookTicker"] == 4
    # The same again is no news and no harm.
    desk.say(book_ticker(NAME, START_MS + 20, 1000, b="6120.0"), member=1)
    assert desk.take(1)[NAME]["bid"] == 6120.0


def test_chains_out_of_order() -> None:
    desk = ready()
    desk.say(marks(mark_row(NAME, START_MS + 2000, bo="6102.0")))
    assert desk.take()[NAME]["bid"] == 6102.0
    desk.say(marks(mark_row(NAME, START_MS + 1000, bo="6101.0")))
    assert desk.take() == {}
    assert desk.market.counters["mark_stale"] == 1


def test_one_absurd_venue_time_does_not_silence_an_option() -> None:
    desk = ready()
    desk.say(book_ticker(NAME, START_MS + 10**9), member=1)
    desk.say(marks(mark_row(NAME, START_MS + 10**9)))
    desk.take(1), desk.take()
    desk.say(marks(mark_row(NAME, START_MS + 1000, bo="6101.0")))
    assert desk.take()[NAME]["bid"] == 6101.0
    desk.say(book_ticker(NAME, START_MS + 1200), member=1)
    assert desk.take(1)[NAME]["bid"] == 6105.0


def test_when_one_connection_goes_only_the_quotes_that_were_its_last_go() -> None:
    desk = ready()
    desk.say(marks(*(mark_row(name, START_MS + 500) for name in BTC_OPTIONS)))
    desk.say(book_ticker(NAME, START_MS + 700), member=1)
    desk.take(), desk.take(1)
    desk.venues[1].disconnected(desk.now, "gone")
    assert {name: row["fields"] for name, row in desk.take(1).items()} == {NAME: int(Field.QUOTE)}
    # And the next chain fills the gap, although its time is not newer.
    desk.say(marks(mark_row(NAME, START_MS + 600)))
    assert desk.take()[NAME]["bid"] == 6100.0
    desk = ready()
    desk.say(marks(*(mark_row(name, START_MS + 500) for name in BTC_OPTIONS)))
    desk.say(book_ticker(NAME, START_MS + 700), member=1)
    desk.take(), desk.take(1)
    desk.market.disconnected(desk.now, "gone")
    assert set(desk.take()) == set(BTC_OPTIONS) - {NAME}


def test_what_was_not_taken_before_a_disconnect_never_will_be() -> None:
    desk = ready()
    desk.say(marks(mark_row(NAME)), index())
    desk.say(book_ticker(NAME, START_MS + 1), member=1)
    for member in (0, 1):
        desk.venues[member].disconnected(desk.now, "gone")
        assert desk.take(member) == {}


def test_only_the_last_of_many_is_decoded() -> None:
    desk = ready()
    for number in range(50):
        desk.say(book_ticker(NAME, START_MS + number, number, b=f"{6000 + number}"), member=1)
        desk.say(marks(*(mark_row(name, START_MS + number, bo=f"{6000 + number}") for name in BTC_OPTIONS)))
    assert desk.take(1)[NAME]["bid"] == 6049.0
    assert desk.take()[BTC_OPTIONS[1]]["bid"] == 6049.0
    assert desk.market.counters["optionMarkPrice"] == 50
    assert desk.market.counters["mark_rows"] == 4
    assert desk.venues[1].counters["bookTicker"] == 50


def test_a_chain_in_several_messages_would_be_taken_whole() -> None:
    desk = ready()
    desk.say(*(marks(mark_row(name)) for name in BTC_OPTIONS))
    assert set(desk.take()) == set(BTC_OPTIONS)
    for number in range(100):
        desk.say(marks(mark_row(f"BTC-270326-{70_000 + number}-C")))
    assert len(desk.market._market.marks._unread) == 8  # type: ignore[union-attr]


def test_one_bad_row_does_not_cost_the_chain() -> None:
    desk = ready()
    rows = [mark_row(name) for name in BTC_OPTIONS]
    rows[1]["bo"] = "twelve"
    rows[2]["E"] = -5
    desk.say(marks(*rows))
    assert set(desk.take()) == {BTC_OPTIONS[0], BTC_OPTIONS[3]}
    assert desk.market.counters["malformed.schema"] == 2
    prices = json.loads(index(BTCUSDT="81000"))
    prices["data"].insert(0, {"e": "indexPrice", "s": 5})
    desk.say(json.dumps(prices).encode())
    assert desk.take()["BTCUSDT"]["index"] == 81_000.0
    assert desk.market.counters["malformed.schema"] == 3


def test_raw_payloads_and_other_orders_of_keys_are_read_too() -> None:
    desk = ready(books=True, trades=True)
    for message in (marks(mark_row(NAME)), index()):
        desk.say(json.dumps(json.loads(message)["data"]).encode())
    got = desk.take()
    assert got[NAME]["bid"] == 6100.0
    assert got["BTCUSDT"]["index"] == 81_000.0
    desk.say(json.dumps(json.loads(trade(NAME))["data"]).encode(), member=1)
    ticker = json.loads(book_ticker(NAME, START_MS + 5, 12))
    turned = dict(reversed(list(ticker["data"].items())))
    desk.say(json.dumps({"data": turned, "stream": ticker["stream"]}).encode(), member=1)
    assert desk.take(1)[NAME]["sequence"] == 12
    desk.say(json.dumps(turned | {"u": 13, "b": "6107"}).encode(), member=1)
    desk.say(json.dumps(turned | {"u": 11, "b": "6111"}).encode(), member=1)
    assert desk.take(1)[NAME]["bid"] == 6107.0
    assert desk.venues[1].counters["bookTicker"] == 3
    assert len([e for e in desk.events(1) if isinstance(e, TradeEvent)]) == 1


def test_trades_are_events_and_last_prices() -> None:
    desk = Desk(["XRP"], [listing("XRP-270326-1.25-C")], trades=True).connect()
    name = "XRP-270326-1.25-C"
    desk.events(1)
    stream = "xrpusdt@optionTrade"
    desk.say(trade(name, stream, p="12.5", q="0.40", S="SELL", m=True, t=2159), member=1)
    event = next(e for e in desk.events(1) if isinstance(e, TradeEvent))
    assert (event.price, event.size, event.is_buy, event.trade_id) == (0.125, 40.0, False, "2159")
    assert event.venue_time_ns == (START_MS + 2) * 1_000_000
    got = desk.take(1)[name]
    assert (got["last"], got["fields"]) == (0.125, int(Field.LAST))
    # A block is dealt elsewhere; an older trade is no news of the price; nonsense is neither.
    desk.say(trade(name, stream, p="99", X="BLOCK"), trade(name, stream, p="98", T=START_MS - 5), member=1)
    assert desk.take(1) == {}
    desk.say(trade(name, stream, S="-1"), trade(name, stream, p="0"), trade("XRP-270326-9-C", stream), member=1)
    assert len([e for e in desk.events(1) if isinstance(e, TradeEvent)]) == 2
    assert desk.venues[1].counters["malformed.trade"] == 2
    assert desk.venues[1].counters["trade_elsewhere"] == 1


def test_index_prices_of_others_and_nonsense() -> None:
    desk = ready()
    desk.say(index(BTCUSDT="81001.5", XAGUSDT="66.9"))
    got = desk.take()
    assert set(got) == {"BTCUSDT"}
    assert (got["BTCUSDT"]["index"], got["BTCUSDT"]["fields"]) == (81_001.5, int(Field.INDEX))
    desk.say(index(BTCUSDT="0"), index(BTCUSDT="nan"))
    assert desk.take() == {}
    assert desk.market.counters["index_unusable"] == 2
    desk.say(index(START_MS + 10, BTCUSDT="81002"), index(START_MS + 5, BTCUSDT="81001"))
    assert desk.take()["BTCUSDT"]["index"] == 81_002.0


def test_an_option_the_chain_names_no_more_is_quoted_no_more() -> None:
    desk = ready()
    for second in range(8):
        desk.now += SECOND
        names = BTC_OPTIONS if second < 2 else BTC_OPTIONS[1:]
        time_ms = desk.now // 1_000_000
        desk.say(index(time_ms), marks(*(mark_row(name, time_ms) for name in names)))
        got = desk.take()
        desk.market.timer(desk.now)
        if NAME in got and second >= 2:
            assert second == 7
            assert math.isnan(got[NAME]["bid"])
            assert got[NAME]["fields"] == int(Field.QUOTE)
    got = desk.take()
    assert NAME in got or math.isnan(got.get(NAME, {"bid": math.nan})["bid"])
    assert desk.market.counters["gone_from_chain"] == 1
    # It comes back as it went.
    desk.say(marks(*(mark_row(name, desk.now // 1_000_000) for name in BTC_OPTIONS)))
    assert desk.take()[NAME]["bid"] == 6100.0
    assert np.isfinite(desk.market._market.marks._heard).all()  # type: ignore[union-attr]


def test_a_second_socket_takes_up_the_quotes_that_stand() -> None:
    """Nothing is told of a quiet option on a new subscription, and yet the old connection's quotes are not to be missed."""
    desk = ready()
    desk.say(marks(*(mark_row(name, START_MS + 500) for name in BTC_OPTIONS[:3])))
    desk.say(book_ticker(NAME, START_MS + 700, 77), member=1)
    desk.take(), desk.take(1)
    twin = desk.venues[1].twin()
    old, desk.venues[1] = desk.venues[1], twin
    desk.connect(1)
    desk.wait(0.5, tell=False)
    got = desk.take(1)
    assert set(got) == set(BTC_OPTIONS[:3])
    assert (got[NAME]["bid"], got[NAME]["sequence"]) == (6105.0, 77)
    assert got[NAME]["venue_time_ns"] == (START_MS + 700) * 1_000_000
    assert got[BTC_OPTIONS[1]]["bid"] == 6100.0
    assert got[BTC_OPTIONS[1]]["venue_time_ns"] == (START_MS + 500) * 1_000_000
    old.disconnected(desk.now, "replaced")
    desk.say(book_ticker(NAME, START_MS + 900, 78, b="6106"), member=1)
    assert desk.take(1)[NAME]["bid"] == 6106.0
    # After a disconnect there is nothing of its own to take up.
    twin.disconnected(desk.now, "gone")
    desk.take(1)
    desk.connect(1)
    desk.wait(0.5, tell=False)
    assert set(desk.take(1)) == set(BTC_OPTIONS[1:3])


def test_vols_and_greeks_of_the_venue_are_kept_for_reference() -> None:
    desk = ready()
    row = desk.market.universe.find("binance", NAME)
    assert row is not None
    assert desk.market.greeks(row) is None
    desk.say(marks(mark_row(BTC_OPTIONS[1]), mark_row(NAME, b="-1.0", a="0.00000060", rf="0.0")))
    desk.take()
    greeks = desk.market.greeks(row)
    assert greeks is not None
    assert (greeks.delta, greeks.gamma, greeks.vega, greeks.theta) == (0.561, 0.00002, 140.2, -42.1)
    assert (greeks.mark_vol, greeks.forward) == (0.445, 81_000.0)
    assert math.isnan(greeks.bid_vol)
    assert math.isnan(greeks.ask_vol)
    assert desk.venues[1].greeks(0) is None
    assert desk.market.greeks(10_000) is None


def test_without_any_chain_the_venue_counts_as_silent() -> None:
    desk = ready()
    desk.wait(3, tell=False)
    assert desk.market.silences["quotes"][0] == pytest.approx(3 * SECOND, abs=SECOND)
    assert set(desk.market.silences) == {"quotes", "!index@arr", "btcusdt@optionMarkPrice"}
    desk.market.disconnected(desk.now, "gone")
    assert desk.market.silences == {}
