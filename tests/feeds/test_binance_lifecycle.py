"""A group of Binance connections from opening to closing: discovery, subscriptions, silence, limits, expiry, takeover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.feeds.binance_frames import (
    BTC_OPTIONS,
    SECOND,
    START,
    START_MS,
    XRP_OPTIONS,
    Desk,
    book_ticker,
    columns,
    combined,
    index,
    listing,
    mark_row,
    marks,
    ready,
)
from volsurf.errors import ConfigError
from volsurf.feeds.binance import LIFETIME, PRODUCTION, TESTNET, make
from volsurf.feeds.protocol import Health, HealthEvent, InstrumentEvent
from volsurf.feeds.registry import make_venues
from volsurf.instruments import Kind, Settlement
from volsurf.sim.listing import from_ns

HOUR = 3600 * SECOND


def chain(count: int, expiry: str = "270326") -> list[dict[str, object]]:
    """So many options around the money."""
    return [listing(f"BTC-{expiry}-{81_000 + 100 * (i // 2 - count // 4)}-{'CP'[i % 2]}") for i in range(count)]


def test_the_connections_and_their_addresses() -> None:
    assert [venue.url for venue in make(["BTC"])] == [f"{PRODUCTION}/market/stream", f"{PRODUCTION}/public/stream"]
    assert [venue.url for venue in make(["BTC"], quotes="none")] == [f"{PRODUCTION}/market/stream"]
    assert len(make(["BTC"], quotes="none", trades=True)) == 2
    assert len(make(["BTC"], shards=3)) == 4
    # 800 options in streams of 200, and with order books twice as many; ETH beside it.
    assert len(make(["BTC"], quotes="all")) == 1 + 4
    assert len(make(["BTC"], quotes="all", books=True)) == 1 + 8
    assert len(make(["BTC", "ETH"], quotes="all")) == 1 + 8
    assert [venue.name for venue in make_venues("binance", ["BTC"], url="ws://127.0.0.1:1")] == ["binance"] * 2


@pytest.mark.parametrize(
    ("url", "rest"),
    [
        (PRODUCTION, "https://eapi.binance.com/eapi/v1/exchangeInfo"),
        (TESTNET + "/", "https://testnet.binancefuture.com/eapi/v1/exchangeInfo"),
        ("ws://127.0.0.1:99", "http://127.0.0.1:99/eapi/v1/exchangeInfo"),
        ("wss://proxy.example/x", "https://proxy.example/eapi/v1/exchangeInfo"),
    ],
)
def test_the_pages_address_follows_from_the_sockets(url: str, rest: str) -> None:
    venue = make(["BTC"], quotes="none", url=url)[0]
    venue.connected(START)
    assert [request.url for request in venue.http_requests()] == [rest]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"underlyings": []}, "at least one underlying"),
        ({"underlyings": ["BTC-USDT"]}, "BTC-USDT"),
        ({"quotes": "some"}, "'some'"),
        ({"partial_depth": 7}, "7"),
        ({"shards": 0}, "0"),
    ],
)
def test_arguments_that_mean_nothing(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make(**({"underlyings": ["BTC"]} | arguments))  # type: ignore[arg-type]


def test_discovery_asks_once_and_every_connection_follows() -> None:
    desk = Desk(["BTC"], trades=True).connect()
    paths = [request.url.partition("/eapi/v1/")[2] for request in desk.pages]
    assert paths == ["index?underlying=BTCUSDT", "exchangeInfo"]
    desk.wait(1, tell=False)
    assert [request["params"] for request in desk.sent[0]] == [
        ["!index@arr", "!optionSymbol", "btcusdt@optionMarkPrice"]
    ]
    wanted = {f"{name.lower()}@bookTicker" for name in BTC_OPTIONS} | {"btcusdt@optionTrade"}
    assert {stream for request in desk.sent[1] for stream in request["params"]} == wanted
    for member in (0, 1):
        assert desk.venues[member].is_ready
        events = desk.events(member)
        added = next(event for event in events if isinstance(event, InstrumentEvent)).added
        names = {desk.venues[member].universe[row].symbol for row in added}
        assert names == {*BTC_OPTIONS, *(["BTCUSDT"] if member == 0 else [])}


def test_the_instruments() -> None:
    desk = ready(["BTC", "XRP"], listed=[listing(name) for name in (*BTC_OPTIONS, *XRP_OPTIONS)])
    btc, xrp = (desk.market.universe["binance", name] for name in (BTC_OPTIONS[0], XRP_OPTIONS[0]))
    assert (btc.kind, btc.underlying, btc.settlement, btc.quote_currency) == (
        Kind.OPTION,
        "BTC",
        Settlement.LINEAR,
        "USDT",
    )
    assert (btc.strike, btc.is_call, btc.contract_size, btc.tick_size) == (80_000.0, True, 1.0, 5.0)
    assert btc.is_discounted
    assert from_ns(btc.expiry_ns).isoformat() == "2027-03-26T08:00:00+00:00"
    # A tick of 0.01 for a contract of 100 coins.
    assert (xrp.contract_size, xrp.price_index) == (100.0, "XRPUSDT")
    assert xrp.tick_size == pytest.approx(0.0001)
    assert desk.market.universe["binance", "BTCUSDT"].kind is Kind.INDEX


def test_units_end_at_the_door() -> None:
    desk = ready(["BTC", "XRP"], listed=[listing(name) for name in XRP_OPTIONS])
    row = mark_row(XRP_OPTIONS[0], mp="12.0", bo="11.5", ao="12.5", bq="3", aq="0.00", i="1.25", vo="0.8", rf="0.0")
    desk.say(marks(row, pair="XRPUSDT"))
    got = desk.take()[XRP_OPTIONS[0]]
    assert got["mark"] == pytest.approx(0.12)
    assert got["bid"] == pytest.approx(0.115)
    assert got["bid_size"] == 300.0
    assert math.isnan(got["ask"])  # nothing on offer at that price
    assert got["forward"] == got["index"] == 1.25


def test_more_than_one_message_of_subscriptions_stays_within_the_limits() -> None:
    desk = Desk(["BTC"], chain(500), shards=2).connect()
    desk.wait(3, tell=False)
    for member in (1, 2):
        sizes = [len(request["params"]) for request in desk.sent[member]]
        assert sizes == [100, 100]
        assert desk.venues[member].is_ready
    followed = [{desk.venues[member].universe[row].symbol for row in range(200)} for member in (1, 2)]
    assert not followed[0] & followed[1]
    # What has no stream of its own are the options farthest from the money.
    distances = [abs(math.log(float(name.split("-")[2]) / 81_000)) for name in followed[0] | followed[1]]
    others = [row["symbol"] for row in desk.listed if row["symbol"] not in followed[0] | followed[1]]
    assert len(others) == 100
    assert max(distances) <= min(abs(math.log(float(str(name).split("-")[2]) / 81_000)) for name in others) + 1e-9
    said = desk.health(Health.READY, member=1)[0].detail
    assert "100 options too far from the money" in said


def test_messages_are_paced_within_ten_a_second() -> None:
    desk = Desk(["BTC"], chain(200))
    desk.refused = {f"{str(row['symbol']).lower()}@bookTicker" for row in desk.listed[:40]}
    desk.connect()
    sent_at: list[int] = []
    for _ in range(4000):
        desk.now += SECOND // 100
        before = len(desk.sent[1])
        for venue in desk.venues:
            venue.timer(desk.now)
        desk.serve()
        sent_at += [desk.now] * (len(desk.sent[1]) - before)
    times = np.array(sent_at)
    assert len(times) > 50
    most = max(int(((times >= t) & (times < t + SECOND)).sum()) for t in times)
    assert most <= 10
    assert desk.venues[1].is_ready
    # Each of those refused was found out by halving, asked for once more, and named.
    assert desk.venues[1].refused_streams == desk.refused
    whole, *named = [event.detail for event in desk.health(Health.REFUSED, member=1)]
    assert whole.startswith("100 streams: SUBSCRIBE")
    assert {said.split(" ")[0] for said in named} == desk.refused
    assert len(named) == 40


def test_options_near_the_money_are_chosen_anew_as_the_index_moves() -> None:
    desk = ready(["BTC"], listed=chain(500))
    first = set(desk.venues[1]._link.asked)
    desk.say(index(START_MS + 1000, BTCUSDT="81500.0"))
    desk.wait(2, tell=False)
    assert set(desk.venues[1]._link.asked) == first  # 0.6 %: not far enough
    desk.say(index(START_MS + 3000, BTCUSDT="85000.0"))
    desk.wait(2, tell=False)
    second = set(desk.venues[1]._link.asked)
    assert len(second) == len(first) == 200
    assert second != first
    dropped = [s for r in desk.sent[1] if r["method"] == "UNSUBSCRIBE" for s in r["params"]]
    assert set(dropped) == first - second
    # What is no longer followed there is still listed, and nothing was said of its quotes.
    assert not [e for e in desk.events(1) if isinstance(e, InstrumentEvent) and e.retired]
    assert desk.take(1) == {}


def test_an_underlying_that_is_not_listed_is_refused_with_what_there_is() -> None:
    desk = Desk(["BTC", "SOL_USDC"]).connect()
    refused = [event.detail for member in (0, 1) for event in desk.health(Health.REFUSED, member=member)]
    assert refused == ["Binance lists no options of SOL_USDC; there is BTC_USDT"]
    assert desk.market.fatal is None
    assert desk.market.failure is None


def test_with_nothing_at_all_left_connecting_again_cannot_help() -> None:
    desk = Desk(["DOGE", "BTC_USDC"]).connect()
    for venue in desk.venues:
        assert venue.fatal == "Binance lists no options of DOGE, BTC_USDC; there is BTC_USDT"
        venue.timer(desk.now)
        assert venue.failure == "nothing that was asked for is listed"
    desk = Desk(["BTC"], []).connect()
    assert desk.market.fatal is None  # an empty answer may be a better one later
    assert desk.market.failure == "nothing that was asked for is listed"


def test_a_disconnect_clears_what_was_quoted_and_connecting_again_brings_it_back() -> None:
    desk = ready(["BTC"])
    desk.say(marks(*(mark_row(name) for name in BTC_OPTIONS)))
    assert desk.take()[BTC_OPTIONS[0]]["bid"] == 6100.0
    desk.say(marks(*(mark_row(name, START_MS + 1000) for name in BTC_OPTIONS)))
    desk.market.disconnected(desk.now, "closed")
    assert not desk.market.is_ready
    cleared = desk.take()
    assert set(cleared) == set(BTC_OPTIONS)
    assert all(math.isnan(row["bid"]) and math.isnan(row["ask"]) and row["fields"] == 1 for row in cleared.values())
    assert desk.take() == {}
    desk.now += SECOND
    desk.connect(0)
    desk.wait(1, tell=False)
    assert desk.market.is_ready
    # Nobody has to wait for the listings again.
    desk.say(marks(*(mark_row(name, START_MS + 500) for name in BTC_OPTIONS)))
    assert desk.take()[BTC_OPTIONS[0]]["bid"] == 6100.0


def test_listings_are_read_again_now_and_then_and_when_something_new_is_announced() -> None:
    desk = ready(["BTC"])
    new = "BTC-270122-82000-C"
    desk.listed.append(listing(new))
    asked = len(desk.pages)
    announced = {
        "e": "optionSymbol",
        "E": START_MS,
        "s": new,
        "ps": "BTCUSDT",
        "qa": "USDT",
        "d": "CALL",
        "sp": "82000",
    }
    desk.say(combined("!optionSymbol", announced | {"dt": START_MS, "u": 1, "ot": START_MS, "cs": "TRADING"}))
    desk.wait(12)
    assert len(desk.pages) == asked + 1
    for member in (0, 1):
        added = [e.added for e in desk.events(member) if isinstance(e, InstrumentEvent)]
        assert [[desk.venues[member].universe[row].symbol for row in rows] for rows in added] == [[new]]
    assert f"{new.lower()}@bookTicker" in desk.venues[1]._link.granted
    asked = len(desk.pages)
    desk.wait(605, step=1.0)
    assert len(desk.pages) == asked + 1


def test_an_option_in_the_chain_that_is_not_listed_has_the_listings_read() -> None:
    desk = ready(["BTC"])
    desk.wait(11)
    asked = len(desk.pages)
    desk.say(marks(mark_row(BTC_OPTIONS[0], desk.now // 1_000_000), mark_row("BTC-270122-82000-C")))
    assert set(desk.take()) == {BTC_OPTIONS[0], "BTCUSDT"}
    assert desk.market.counters["mark_unknown"] == 1
    desk.wait(1)
    assert len(desk.pages) == asked + 1


def test_what_is_listed_no_more_is_retired() -> None:
    desk = ready(["BTC"])
    desk.wait(2)
    desk.take()
    gone = str(desk.listed.pop(0)["symbol"])
    for _ in range(7):
        desk.wait(1)
        if gone in (rows := desk.take()):
            # First its chain stops naming it: the quote goes, and the listings are read.
            assert math.isnan(rows[gone]["bid"])
    desk.wait(6)
    events = desk.events()
    stale = [e.detail for e in events if isinstance(e, HealthEvent) and e.kind is Health.STALE]
    assert "no longer in their chain" in stale[0]
    retired = [e.retired for e in events if isinstance(e, InstrumentEvent)]
    assert [[desk.market.universe[row].symbol for row in rows] for rows in retired] == [[gone]]
    assert f"{gone.lower()}@bookTicker" not in desk.venues[1]._link.asked


def test_expiry_retires_when_both_clocks_agree() -> None:
    first = "BTC-270116-75000-P"
    desk = ready(["BTC"])
    desk.say(marks(*(mark_row(name) for name in BTC_OPTIONS)))
    desk.take()
    expiry = desk.market.universe["binance", first].expiry_ns
    # Our clock alone, a day fast: nothing expires.
    desk.now = expiry + 60 * SECOND
    desk.market.timer(desk.now)
    assert not [e for e in desk.events() if isinstance(e, InstrumentEvent)]
    desk.say(index((expiry + 20 * SECOND) // 1_000_000))
    desk.market.timer(desk.now)
    assert not [e for e in desk.events() if isinstance(e, InstrumentEvent)]
    desk.say(index((expiry + 31 * SECOND) // 1_000_000))
    for venue in desk.venues:
        venue.timer(desk.now)
    for member in (0, 1):
        retired = [e.retired for e in desk.events(member) if isinstance(e, InstrumentEvent)]
        assert [[desk.venues[member].universe[row].symbol for row in rows] for rows in retired] == [[first]]
    assert math.isnan(desk.take()[first]["bid"])


def test_a_second_socket_takes_over_an_hour_before_the_cut() -> None:
    desk = ready(["BTC"])
    desk.say(marks(*(mark_row(name) for name in BTC_OPTIONS)))
    desk.take()
    for _ in range(22 * 60):
        desk.now += 60 * SECOND
        desk.market.timer(desk.now)
    assert desk.market.takeover == ""
    for _ in range(70):
        desk.now += 60 * SECOND
        desk.market.timer(desk.now)
    assert desk.market.takeover == "Binance cuts a connection after 24 hours"
    twin = desk.market.twin()
    assert twin.url == desk.market.url
    desk.venues[0] = twin
    desk.connect(0)
    desk.wait(1, tell=False)
    assert twin.is_ready
    assert twin.takeover == ""
    assert twin.take_quotes(desk.now) is None
    # Members of a group go one after another.
    ages = []
    for venue in make(["BTC"], shards=3):
        venue.connected(START)
        age = LIFETIME - 3600 * SECOND
        while not venue.takeover:
            age += 60 * SECOND
            venue.timer(START + age)
        ages.append(age)
    assert sorted(ages, reverse=True) == ages
    assert len(set(ages)) == 4


def test_resuming_in_the_middle_hears_what_the_live_ones_heard() -> None:
    live = ready(["BTC"], books=True, trades=True)
    resumed = Desk(["BTC"], books=True, trades=True)
    for old, new in zip(live.venues, resumed.venues, strict=True):
        new.resume(list(old.universe), live.now)
        assert [i.symbol for i in new.universe] == [i.symbol for i in old.universe]
        assert new.is_ready
        assert new.data_to_send() == []
        assert new.http_requests() == []
    resumed.now = live.now
    for desk in (live, resumed):
        desk.say(index(), marks(*(mark_row(name) for name in BTC_OPTIONS)))
        desk.say(book_ticker(BTC_OPTIONS[0], START_MS + 5), member=1)
    for member in (0, 1):
        batches = [desk.venues[member].take_quotes(desk.now) for desk in (live, resumed)]
        assert batches[0] is not None
        assert batches[1] is not None
        assert batches[0].to_bytes() == batches[1].to_bytes()
        assert columns(live.venues[member], batches[0])


def test_reading_changes_nothing() -> None:
    """Counters, events and the rest may be looked at often or never."""
    looked, not_looked = ready(["BTC"]), ready(["BTC"])
    for number in range(20):
        for desk in (looked, not_looked):
            desk.now += SECOND // 4
            time_ms = desk.now // 1_000_000
            desk.say(marks(*(mark_row(name, time_ms, bo=f"{6000 + number}") for name in BTC_OPTIONS)))
            desk.say(book_ticker(BTC_OPTIONS[number % 4], time_ms, number), member=1)
        for venue in looked.venues:
            dict(venue.counters), venue.trouble, venue.is_ready, venue.failure, venue.next_deadline, venue.takeover
            venue.events(), venue.fatal, venue.not_before, repr(venue)
        for member in (0, 1) if number % 3 == 0 else ():
            batches = [desk.venues[member].take_quotes(desk.now) for desk in (looked, not_looked)]
            assert [b and b.to_bytes() for b in batches] == [batches[0] and batches[0].to_bytes()] * 2


def test_what_is_never_listed_has_the_listings_read_ever_more_rarely() -> None:
    desk = ready(["BTC"])
    asked = []
    for _ in range(400):
        desk.wait(1, tell=False)
        time_ms = desk.now // 1_000_000
        desk.say(index(time_ms), marks(mark_row(BTC_OPTIONS[0], time_ms), mark_row("BTC-270122-82000-C", time_ms)))
        desk.take()
        asked.append(len(desk.pages))
    assert asked[4] > asked[0]  # at first within seconds
    assert asked[-1] - asked[0] < 12
