"""What Bybit lists: pages and cursors, families, listings read again, and everything a REST answer can be."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.feeds.bybit_frames import (
    BTC_USDC,
    BTC_USDT,
    SECOND,
    START,
    XRP_USDT,
    Server,
    option_row,
    page,
    ready,
    standard_listings,
    ticker,
)
from volsurf.errors import ConfigError
from volsurf.feeds.bybit import PRODUCTION, TESTNET, Bybit, make
from volsurf.feeds.protocol import Health, InstrumentEvent
from volsurf.instruments import Kind, Settlement


def asked_for(server: Server) -> list[dict[str, list[str]]]:
    return [parse_qs(urlsplit(url).query) for url in server.urls]


def begin(venue: Bybit) -> Server:
    """Connected at nine in the morning, with the first requests in hand and nothing answered."""
    server = Server(venue)
    server.now = START + 3600 * SECOND
    venue.connected(server.now)
    server.collect()
    return server


# Requests


def test_every_coin_is_named_in_its_own_request() -> None:
    server = begin(Bybit(["BTC", "XRP_USDT", "BTC_USDT"]))
    asked = asked_for(server)
    assert [query["baseCoin"] for query in asked] == [["BTC"], ["XRP"]]
    assert all(query["category"] == ["option"] and query["limit"] == ["1000"] for query in asked)
    assert {urlsplit(url).netloc for url in server.urls} == {"api.bybit.com"}


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"url": TESTNET}, "https://api-testnet.bybit.com/v5/"),
        ({"url": "ws://127.0.0.1:99/v5/public/option"}, "http://127.0.0.1:99/v5/"),
        ({"rest_url": "http://proxy.test/bybit/"}, "http://proxy.test/bybit/v5/"),
    ],
)
def test_where_pages_are_asked_for(options: dict[str, str], start: str) -> None:
    assert begin(Bybit(["BTC"], **options)).urls[0].startswith(f"{start}market/instruments-info?")  # type: ignore[arg-type]


def test_pages_are_followed_by_their_cursor_as_it_came() -> None:
    server = Server(Bybit(["BTC"]))
    server.page_rows = 2
    server.connect()
    assert server.venue.is_ready
    cursors = [urlsplit(url).query.partition("&cursor=")[2] for url in server.urls]
    # Escaped by the venue, and not once more.
    assert cursors == ["", "from%202", "from%204"]
    assert len(server.venue.universe.options("BTC")) == 6


def test_a_cursor_with_characters_that_have_a_meaning_is_escaped() -> None:
    server = begin(Bybit(["BTC"]))
    server.http(server.requests.pop(), 200, page(standard_listings()["BTC"], "a&b=c d#e+f"))
    server.collect()
    assert server.urls[-1].endswith("&cursor=a%26b%3Dc%20d%23e%2Bf")


def test_nothing_is_subscribed_before_the_last_page() -> None:
    server = Server(Bybit(["BTC", "XRP"]))
    server.venue.connected(START)
    server.collect()
    btc, xrp = server.requests
    server.http(btc, 200, page(standard_listings()["BTC"]))
    server.now += SECOND
    server.venue.timer(server.now)
    assert not server.collect()
    assert not server.venue.is_ready
    server.http(xrp, 200, page(standard_listings()["XRP"]))
    server.now += SECOND
    server.venue.timer(server.now)
    (command,) = server.collect()
    assert command["op"] == "subscribe"
    assert set(command["args"]) == {
        *(f"tickers.{name}" for name in (*BTC_USDT, *BTC_USDC, *XRP_USDT)),
        "publicTrade.BTC",
        "publicTrade.XRP",
    }


@pytest.mark.parametrize("cursor", ["same", "new"])
def test_pages_without_end_are_given_up(cursor: str) -> None:
    server = begin(Bybit(["BTC"]))
    for number in range(60):
        if not server.requests:
            break
        request = server.requests.pop()
        server.http(request, 200, page([], "same" if cursor == "same" else f"c{number}"))
        server.collect()
    assert len(server.urls) == (2 if cursor == "same" else 50)
    assert any("pages without end" in event.detail for event in server.health(Health.REFUSED))
    assert "pages without end" in server.venue.trouble


# Instruments


def test_what_an_instrument_is() -> None:
    universe = ready("BTC", "XRP").venue.universe
    option = universe["bybit", "BTC-26MAR27-80000-C-USDT"]
    assert (option.kind, option.underlying, option.settlement) == (Kind.OPTION, "BTC", Settlement.LINEAR)
    assert (option.quote_currency, option.strike, option.is_call) == ("USDT", 80_000.0, True)
    assert (option.tick_size, option.contract_size, option.price_index) == (5.0, 1.0, "BTC-USDT-INDEX")
    assert option.expiry_ns == 1_806_048_000 * SECOND
    assert universe["bybit", "XRP-29JAN27-0.4-P-USDT"].strike == 0.4
    index = universe["bybit", "BTC-USDT-INDEX"]
    assert (index.kind, index.quote_currency) == (Kind.INDEX, "USDT")


def test_the_two_forms_of_one_contract_are_two_instruments() -> None:
    universe = ready().venue.universe
    usdt, usdc = universe["bybit", "BTC-26MAR27-80000-C-USDT"], universe["bybit", "BTC-26MAR27-80000-C"]
    assert (usdt.strike, usdt.expiry_ns, usdt.is_call) == (usdc.strike, usdc.expiry_ns, usdc.is_call)
    assert (usdt.quote_currency, usdc.quote_currency) == ("USDT", "USDC")
    assert usdt.price_index != usdc.price_index


@pytest.mark.parametrize(
    ("name", "symbols"), [("BTC", {*BTC_USDT, *BTC_USDC}), ("BTC_USDT", set(BTC_USDT)), ("BTC_USDC", set(BTC_USDC))]
)
def test_a_suffix_chooses_one_family(name: str, symbols: set[str]) -> None:
    universe = ready(name).venue.universe
    assert {universe[int(row)].symbol for row in universe.options("BTC")} == symbols
    indexes = {i.symbol for i in universe if i.kind is Kind.INDEX}
    assert indexes == {universe["bybit", symbol].price_index for symbol in symbols}


@pytest.mark.parametrize("status", ["PreLaunch", "Delivering", "Closed", ""])
def test_only_what_is_traded_is_followed(status: str) -> None:
    server = Server(Bybit(["BTC"]))
    server.listings["BTC"][0] |= {"status": status}
    server.connect()
    assert server.venue.universe.find("bybit", BTC_USDT[0]) is None
    assert server.venue.universe.find("bybit", BTC_USDT[1]) is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optionsType": "Put"}, "listed as Put"),
        ({"optionsType": "Straddle"}, "listed as Straddle"),
        ({"deliveryTime": "1800000000000"}, "expiring"),
        ({"settleCoin": "USDC"}, "in USDC"),
        ({"baseCoin": "ETH"}, "of ETH"),
        ({"quoteCoin": "EUR"}, "quoted in EUR"),
        ({"symbol": "BTC-26MAR27-80000-C-USDT-X"}, "its name says None"),
        ({"priceFilter": {"tickSize": "-5"}}, "tick size"),
        ({"deliveryTime": ""}, '"symbol"'),
        ({"symbol": 5}, '"symbol"'),
    ],
)
def test_rows_that_contradict_themselves_are_left_out_and_named(changes: dict[str, Any], said: str) -> None:
    server = Server(Bybit(["BTC"]))
    server.listings["BTC"][0] |= changes
    server.connect()
    assert server.venue.is_ready
    assert server.venue.universe.find("bybit", BTC_USDT[0]) is None
    assert len(server.venue.universe.options("BTC")) == 5
    (event,) = server.health(Health.MALFORMED)
    assert said in event.detail
    assert server.venue.counters["listings_unusable"] == 1


def test_a_strike_quoted_in_dollars_and_settled_in_usdc_is_of_the_usdc_family() -> None:
    server = Server(Bybit(["BTC_USDC"]))
    server.listings["BTC"][4] |= {"quoteCoin": "USD"}
    server.connect()
    assert server.venue.universe["bybit", BTC_USDC[0]].quote_currency == "USDC"


# What is not listed


def test_a_coin_that_is_not_listed_is_refused_and_the_rest_is_followed() -> None:
    server = Server(Bybit(["BTC", "DOGE"])).connect()
    assert server.venue.is_ready
    assert server.venue.fatal is None
    (event,) = server.health(Health.REFUSED)
    assert event.detail == "Bybit lists no options of DOGE; of the coins asked for there is BTC_USDC, BTC_USDT"


def test_a_family_that_is_not_listed_is_named() -> None:
    server = Server(Bybit(["BTC", "XRP_USDC"])).connect()
    (event,) = server.health(Health.REFUSED)
    assert "no options of XRP_USDC; of the coins asked for there is BTC_USDC, BTC_USDT, XRP_USDT" in event.detail


def test_a_bare_coin_of_one_family_is_what_there_is() -> None:
    server = Server(Bybit(["XRP"])).connect()
    assert server.venue.is_ready
    assert not server.health(Health.REFUSED)


@pytest.mark.parametrize("underlyings", [["DOGE"], ["XRP_USDC"], ["DOGE", "PEPE_USDT"]])
def test_nothing_at_all_is_fatal(underlyings: list[str]) -> None:
    server = Server(Bybit(underlyings)).connect()
    assert not server.venue.is_ready
    assert "Bybit lists no options of" in (server.venue.fatal or "")


def test_a_coin_the_venue_refuses_to_know_is_not_listed() -> None:
    server = begin(Bybit(["BTC", "ABCDEFGH"]))
    server.answer_page(server.requests.pop(0))
    server.http(server.requests.pop(0), 200, page([], code=10001, said="params error: baseCoin invalid"))
    server.serve()
    assert server.venue.is_ready
    assert any("ABCDEFGH" in event.detail for event in server.health(Health.REFUSED))


# Listings read again


def test_new_contracts_are_found_when_the_listing_is_read_again() -> None:
    server = ready()
    server.wait(250, step=1.0)
    server.listings["BTC"].append(option_row("BTC-30APR27-90000-C-USDT"))
    before = len(server.venue.universe)
    # Last read three minutes after eight, then five minutes later.
    server.wait(235, step=1.0)
    assert len(server.venue.universe) == before + 1
    added = [e for e in server.events() if isinstance(e, InstrumentEvent)]
    assert [e.added for e in added] == [(before,)]
    assert "tickers.BTC-30APR27-90000-C-USDT" in server.subscribed
    assert not server.venue.trouble


def test_listings_are_read_soon_after_eight() -> None:
    """START is 08:00:00 UTC: three looks within minutes, then every five, then again the next morning."""
    server = ready(relist_seconds=86_400.0)
    before = len(server.urls)
    server.wait(4, step=1.0)
    assert len(server.urls) == before
    server.wait(2, step=1.0)
    assert len(server.urls) == before + 1
    server.wait(240, step=1.0)
    assert len(server.urls) == before + 3


def test_a_clock_set_back_finds_its_next_eight_o_clock() -> None:
    server = Server(Bybit(["BTC"], relist_seconds=86_400.0))
    server.now = START + 3600 * SECOND
    server.connect()
    server.now -= 2 * 3600 * SECOND
    server.venue.timer(server.now)
    before = len(server.urls)
    server.wait(3600 + 10, step=1.0, every=9.0)
    assert len(server.urls) == before + 1


def test_a_contract_missing_once_is_looked_for_again() -> None:
    server = ready()
    rows = server.listings["BTC"]
    server.wait(240, step=1.0)
    server.listings["BTC"] = rows[1:]
    while len(server.urls) < 5:
        server.wait(1)
    # Back before the second look: nothing happened.
    server.listings["BTC"] = rows
    server.wait(20)
    assert not [e for e in server.events() if isinstance(e, InstrumentEvent)]
    assert bool(server.venue.universe.active.all())


def test_a_contract_missing_twice_is_gone() -> None:
    server = ready()
    server.listings["BTC"] = server.listings["BTC"][1:]
    server.wait(20)
    (event,) = (e for e in server.events() if isinstance(e, InstrumentEvent))
    assert [server.venue.universe[row].symbol for row in event.retired] == [BTC_USDT[0]]
    assert f"tickers.{BTC_USDT[0]}" not in server.subscribed
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    (at,) = (batch.instrument_id == event.retired[0]).nonzero()[0]
    assert batch.bid[at] != batch.bid[at]
    # A ticker that was on its way no longer reaches anything.
    server.say(ticker(BTC_USDT[0], server.ms))
    assert server.venue.take_quotes(server.now) is None
    assert server.venue.counters["ticker_unknown"] == 1


def test_an_empty_listing_in_mid_session_retires_nothing_at_once() -> None:
    server = ready()
    server.listings["BTC"] = []
    server.wait(7)
    assert bool(server.venue.universe.active.all())
    server.listings = standard_listings()
    server.wait(20)
    assert bool(server.venue.universe.active.all())


def test_a_new_tick_size_is_taken_without_a_new_row() -> None:
    server = ready()
    server.listings["BTC"][0] |= {"priceFilter": {"tickSize": "1"}}
    before = len(server.venue.universe)
    server.wait(10)
    assert len(server.venue.universe) == before
    assert server.venue.universe["bybit", BTC_USDT[0]].tick_size == 1.0
    assert any(isinstance(e, InstrumentEvent) and e.added for e in server.events())


# Answers that are none


@pytest.mark.parametrize(
    ("status", "body", "kind", "pause"),
    [
        (0, b"connection refused", Health.NO_ACK, 2),
        (500, b"oops", Health.REFUSED, 2),
        (503, b"<html>maintenance</html>", Health.REFUSED, 2),
        (429, b"slow down", Health.RATE_LIMITED, 2),
        (403, b"access too frequent", Health.RATE_LIMITED, 600),
        (200, page([], code=10006, said="Too many visits"), Health.RATE_LIMITED, 2),
        (200, page([], code=10018, said="Exceeded the IP Rate Limit"), Health.RATE_LIMITED, 600),
        (200, page([], code=10016, said="Server error"), Health.REFUSED, 2),
        (200, b"", Health.REFUSED, 2),
        (200, b"<html>", Health.REFUSED, 2),
        (200, b"[]", Health.REFUSED, 2),
        (200, b'{"retCode":0,"result":{}}', Health.REFUSED, 2),
        (200, b'{"retCode":0}', Health.REFUSED, 2),
        (200, page([])[:60], Health.REFUSED, 2),
    ],
)
def test_a_page_that_is_none_is_told_and_asked_for_again(status: int, body: bytes, kind: Health, pause: int) -> None:
    server = begin(Bybit(["BTC"]))
    server.http(server.requests.pop(), status, body)
    told = server.health()
    assert kind in [event.kind for event in told]
    assert "options of BTC cannot be listed" in server.venue.trouble
    server.idle(pause - 1)
    assert not server.requests
    assert server.venue.failure is None
    server.idle(1)
    assert len(server.requests) == 1
    server.serve()
    assert server.venue.is_ready
    assert not server.venue.trouble


def test_pauses_grow_and_a_good_answer_ends_them() -> None:
    server = begin(Bybit(["BTC"]))
    for pause in (2, 4, 8, 16, 32, 60, 60, 60):
        server.http(server.requests.pop(), 500, b"")
        server.idle(pause - 0.001)
        assert not server.requests, pause
        server.idle(0.001)
        assert len(server.requests) == 1, pause
    server.serve()
    assert server.venue.is_ready


def test_a_page_that_is_never_answered_is_asked_for_again_after_half_a_minute() -> None:
    server = begin(Bybit(["BTC"]))
    old = server.requests.pop()
    server.wait(33, step=1.0)
    assert [e.kind for e in server.health(Health.NO_ACK)] == [Health.NO_ACK]
    assert server.venue.is_ready
    # And the late answer is nobody's.
    server.http(old, 200, page([]))
    assert server.venue.counters["replies_unclaimed"] == 1
    assert len(server.venue.universe.options("BTC")) == 6


def test_an_error_in_mid_session_leaves_what_is_followed_alone() -> None:
    server = ready()
    server.answer_page = lambda request: server.http(request, 403, b"access too frequent")  # type: ignore[method-assign]
    server.wait(500, step=1.0)
    assert len(server.urls) == 2, "no second request within ten minutes of a 403"
    assert server.venue.is_ready
    assert server.venue.failure is None
    assert "asking again in 10 minutes" in server.venue.trouble


def test_the_ban_outlives_the_connection() -> None:
    server = begin(Bybit(["BTC"]))
    server.http(server.requests.pop(), 403, b"access too frequent")
    server.now += SECOND
    server.venue.disconnected(server.now, "closed")
    server.now += SECOND
    server.venue.connected(server.now)
    server.idle(595)
    assert not server.requests
    server.idle(10)
    assert len(server.requests) == 1


def test_a_socket_refused_with_403_keeps_the_shell_away_for_ten_minutes() -> None:
    venue = Bybit(["BTC"])
    venue.disconnected(START, "the handshake was refused: server rejected WebSocket connection: HTTP 403")
    assert venue.not_before == START + 600 * SECOND
    venue.disconnected(START, "could not connect: no route to host")
    assert venue.not_before == START + 600 * SECOND


# Arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"underlyings": []}, "at least one underlying"),
        ({"underlyings": ["BTC/USD"]}, "underlying of Bybit"),
        ({"shard": (2, 2)}, "shard"),
        ({"shard": (-1, 2)}, "shard"),
        ({"book_depth": 50}, "25 or 100"),
        ({"relist_seconds": 1.0}, "every 10 seconds"),
        ({"relist_seconds": float("nan")}, "every 10 seconds"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Bybit(**arguments)


def test_make_takes_as_many_connections_as_the_topics_need() -> None:
    assert [venue.url for venue in make(["BTC_USDT"])] == [PRODUCTION] * 2
    assert len(make(["BTC"])) == 4
    assert len(make(["BTC"], books=True)) == 8
    assert len(make(["BTC"], shards=9, url=TESTNET)) == 9
    venues = make(["BTC", "ETH"], shards=1, url="ws://h:1/v5/public/option", trades=False)
    assert len(venues) == 7
    assert {venue.url for venue in venues} == {"ws://h:1/v5/public/option"}


def test_shards_share_the_contracts_without_a_rest() -> None:
    followed: list[str] = []
    for i in range(3):
        universe = ready("BTC", shard=(i, 3)).venue.universe
        followed += [universe[int(row)].symbol for row in universe.options("BTC")]
    assert sorted(followed) == sorted((*BTC_USDT, *BTC_USDC))
