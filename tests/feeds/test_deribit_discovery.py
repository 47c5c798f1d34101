"""From a new socket to READY: what is asked, in which order and at what rate, and what the answers make of the universe."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.feeds.deribit_frames import (
    BTC_OPTIONS,
    SECOND,
    START,
    TEST_REQUEST,
    Row,
    Server,
    future_row,
    option_row,
    standard_listings,
    state_change,
    ticker,
)
from volsurf.errors import ConfigError
from volsurf.feeds.deribit import TESTNET, Deribit
from volsurf.feeds.protocol import Health, InstrumentEvent
from volsurf.instruments import Kind, Settlement


def methods(requests: list[Row]) -> list[str]:
    return [request["method"].removeprefix("public/") for request in requests]


def large_chain(strikes: int) -> dict[tuple[str, str], list[Row]]:
    names = [f"BTC-26MAR27-{strike * 1000}-{side}" for strike in range(1, strikes + 1) for side in "CP"]
    return {("BTC", "option"): [option_row(name) for name in names], ("BTC", "future"): [future_row("BTC-PERPETUAL")]}


def test_the_heartbeat_is_set_before_anything_is_listed_and_listings_precede_subscriptions() -> None:
    server = Server(Deribit(["BTC", "SOL"], heartbeat_seconds=20))
    server.venue.connected(START)
    first = server.collect()
    assert methods(first) == ["set_heartbeat", *["get_instruments"] * 4]
    assert first[0]["params"] == {"interval": 20}
    asked = [(r["params"]["currency"], r["params"]["kind"], r["params"]["expired"]) for r in first[1:]]
    assert asked == [
        ("BTC", "option", False),
        ("BTC", "future", False),
        ("USDC", "option", False),
        ("USDC", "future", False),
    ]
    for request in first[:-1]:
        server.answer(request)
    assert server.collect() == [], "subscribing waits for the last listing, so that messages go out full"
    assert not server.venue.is_ready
    server.answer(first[-1])
    (subscribe,) = server.collect()
    assert subscribe["method"] == "public/subscribe"
    assert not server.venue.is_ready
    server.answer(subscribe)
    assert server.venue.is_ready
    assert [event.kind for event in server.health()] == [Health.CONNECTED, Health.READY]


def test_everything_that_should_be_subscribed_is() -> None:
    server = Server(Deribit(["BTC", "SOL"], books=True, mark_prices=True, interval="agg2")).connect()
    (subscribe,) = [request for request in server.asked if request["method"] == "public/subscribe"]
    channels = set(subscribe["params"]["channels"])
    names = [row["instrument_name"] for rows in standard_listings().values() for row in rows]
    ours = [name for name in names if not name.startswith("XRP")]
    assert {f"ticker.{name}.agg2" for name in ours} <= channels
    assert {f"book.{name}.agg2" for name in ours} <= channels
    assert {
        f"{c}.{i}" for c in ("deribit_price_index", "markprice.options") for i in ("btc_usd", "sol_usdc")
    } <= channels
    for currency in ("BTC", "USDC"):
        assert {f"instrument.state.{kind}.{currency}" for kind in ("option", "future")} <= channels
        assert f"trades.option.{currency}.100ms" in channels
    assert {"platform_state", "platform_state.public_methods_state"} <= channels
    assert not any("XRP" in channel for channel in channels)


def test_trades_and_books_are_not_subscribed_unless_wanted() -> None:
    server = Server(Deribit(["BTC"], trades=False)).connect()
    channels = [c for r in server.asked for c in r["params"].get("channels", ())]
    assert channels
    assert not [channel for channel in channels if channel.startswith(("trades.", "book.", "markprice."))]


def test_500_channels_a_message_within_the_credits() -> None:
    """Credits: 3000 of 30000 each, 10000 a second: ten at once, then one every 0.3 s; not quite all are used."""
    server = Server(Deribit(["BTC"]), large_chain(3400)).connect()
    sizes = [len(r["params"]["channels"]) for r in server.asked if r["method"] == "public/subscribe"]
    assert max(sizes) == 500
    assert sizes == [500] * 8
    assert not server.venue.is_ready
    times = []
    while not server.venue.is_ready:
        deadline = server.venue.next_deadline
        assert deadline is not None
        server.now = max(server.now + 1, deadline)
        server.venue.timer(server.now)
        times += [server.now - START for _ in server.collect()]
        server.serve()
    assert len(times) == 6
    gaps = [later - earlier for earlier, later in zip([0, *times], times, strict=False)]
    assert all(0.32 * SECOND < gap < 0.34 * SECOND for gap in gaps), gaps
    assert sum(len(r["params"]["channels"]) for r in server.asked if r["method"] == "public/subscribe") == 6807


def test_shards_share_the_instruments_and_the_rate() -> None:
    listings = large_chain(600)
    servers = [Server(Deribit(["BTC"], shard=(i, 3)), listings).connect() for i in range(3)]
    for server in servers:
        server.wait(2)
    followed = [{i.symbol for i in server.venue.universe if i.kind is not Kind.INDEX} for server in servers]
    assert sum(map(len, followed)) == 1201
    assert len(set.union(*followed)) == 1201
    assert min(map(len, followed)) > 300
    assert all(server.venue.universe.find("deribit", "btc_usd") is not None for server in servers)
    assert all(server.venue.is_ready for server in servers)
    # Eight of the ten that the venue admits at once, in three parts.
    burst = [
        sum(
            r["method"] == "public/subscribe"
            for r in Server(Deribit(["BTC"], shard=(0, 3)), large_chain(6000)).connect().asked
        )
    ]
    assert burst == [2]


def test_instruments_are_what_their_listing_says() -> None:
    universe = Server(Deribit(["BTC", "SOL"])).connect().venue.universe
    option = universe["deribit", "BTC-26MAR27-80000-C"]
    assert (option.kind, option.underlying, option.settlement) == (Kind.OPTION, "BTC", Settlement.INVERSE)
    assert (option.strike, option.is_call, option.price_index) == (80000.0, True, "btc_usd")
    assert option.tick_at(0.004) == 0.0001
    assert option.tick_at(0.006) == 0.0005
    linear = universe["deribit", "SOL_USDC-29JAN27-0d625-P"]
    assert (linear.underlying, linear.settlement, linear.strike) == ("SOL", Settlement.LINEAR, 0.625)
    assert (linear.contract_size, linear.tick_size, linear.is_call) == (10.0, 0.01, False)
    perpetual = universe["deribit", "BTC-PERPETUAL"]
    assert (perpetual.kind, perpetual.expiry_ns) == (Kind.PERPETUAL, 0)
    assert universe["deribit", "BTC-26MAR27"].kind is Kind.FUTURE
    assert universe["deribit", "SOL_USDC-PERPETUAL"].settlement is Settlement.LINEAR
    index = universe["deribit", "sol_usdc"]
    assert (index.kind, index.underlying) == (Kind.INDEX, "SOL")
    assert universe.find("deribit", "XRP_USDC-29JAN27-1d25-C") is None


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "option_combo"},
        {"state": "delivered"},
        {"state": "archivized"},
        {"is_active": False},
        {"expiration_timestamp": START // 1_000_000, "instrument_name": "BTC-15JAN27-80000-C", "option_type": "call"},
        {"base_currency": "DOGE"},
    ],
)
def test_rows_that_are_quietly_not_ours(change: Row) -> None:
    rows = [option_row(BTC_OPTIONS[0]), option_row(BTC_OPTIONS[1], **change)]
    server = Server(Deribit(["BTC"]), {("BTC", "option"): rows}).connect()
    assert int((server.venue.universe.kind == Kind.OPTION).sum()) == 1
    assert server.venue.counters["malformed.listing"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"strike": 81000.0},
        {"strike": None},
        {"option_type": "put"},
        {"option_type": "straddle"},
        {"expiration_timestamp": START // 1_000_000 + 86_400_000},
        {"expiration_timestamp": "soon"},
        {"expiration_timestamp": 1e300},
        {"tick_size": -1},
        {"tick_size_steps": [{"above_price": 1}]},
        {"instrument_name": "BTC-CS-26MAR27-80000_85000"},
        {"instrument_name": 17},
        {"base_currency": None},
    ],
)
def test_a_row_that_contradicts_itself_is_reported_and_its_neighbours_live(change: Row) -> None:
    rows = [option_row(BTC_OPTIONS[0]), option_row(BTC_OPTIONS[0], **change), option_row(BTC_OPTIONS[1])]
    server = Server(Deribit(["BTC"]), {("BTC", "option"): rows}).connect()
    assert int((server.venue.universe.kind == Kind.OPTION).sum()) == 2
    assert server.venue.counters["malformed.listing"] == 1
    assert server.venue.is_ready
    server.wait(1.5)
    assert server.health(Health.MALFORMED)


def test_a_locked_option_is_still_listed() -> None:
    rows = [option_row(BTC_OPTIONS[0], state="locked", is_active=False), option_row(BTC_OPTIONS[1])]
    server = Server(Deribit(["BTC"]), {("BTC", "option"): rows}).connect()
    assert int((server.venue.universe.kind == Kind.OPTION).sum()) == 2


def test_an_unknown_underlying_is_refused_with_what_there_is() -> None:
    server = Server(Deribit(["BTC", "FOO", "DOGE_USDC"])).connect()
    assert server.venue.is_ready
    assert server.venue.fatal is None
    (refused,) = server.health(Health.REFUSED)
    for word in ("FOO_USDC", "DOGE_USDC", "SOL_USDC", "XRP_USDC"):
        assert word in refused.detail


def test_nothing_known_at_all_is_fatal() -> None:
    server = Server(Deribit(["FOO"])).connect()
    assert not server.venue.is_ready
    assert server.venue.failure is not None
    assert "FOO_USDC" in (server.venue.fatal or "")
    assert "SOL_USDC" in (server.venue.fatal or "")


def test_an_empty_answer_is_no_reason_to_give_up_for_good() -> None:
    server = Server(Deribit(["BTC"]), {}).connect()
    assert server.venue.fatal is None
    assert server.venue.failure == "nothing that was asked for is listed"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"underlyings": []}, "at least one"),
        ({"shard": (2, 2)}, "shard"),
        ({"shard": (-1, 2)}, "shard"),
        ({"heartbeat_seconds": 9}, "10 seconds"),
        ({"interval": "50ms"}, "interval"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Deribit(**arguments)


def test_one_name_is_a_list_of_one() -> None:
    assert Deribit("BTC", url=TESTNET).url == TESTNET
    assert Server(Deribit("BTC")).connect().venue.is_ready


def test_a_channel_left_out_is_named_looked_up_and_asked_for_once_more() -> None:
    server = Server(Deribit(["BTC"]))
    channel = f"ticker.{BTC_OPTIONS[0]}.100ms"
    server.unknown = {channel}
    server.connect()
    assert server.venue.is_ready
    (refused,) = server.health(Health.REFUSED)
    assert channel in refused.detail
    before = len(server.asked)
    server.unknown = set()
    server.wait(2)
    later = server.asked[before:]
    assert [m for m in methods(later) if m != "test"] == ["subscribe"]
    assert later[0]["params"]["channels"] == [channel]
    looked_up = [r for r in server.asked[:before] if r["method"] == "public/get_instruments"]
    assert len(looked_up) == 3, "the option listing was asked for again before subscribing again"
    assert not server.health(Health.REFUSED)
    assert server.venue.refused_channels == frozenset()
    server.say(ticker(BTC_OPTIONS[0]))
    assert server.venue.take_quotes(server.now) is not None


def test_a_channel_left_out_twice_is_given_up_by_name() -> None:
    server = Server(Deribit(["BTC"]))
    channels = {f"ticker.{BTC_OPTIONS[0]}.100ms", "platform_state"}
    server.unknown = set(channels)
    server.connect()
    server.wait(5)
    refused = server.health(Health.REFUSED)
    assert any("given up" in event.detail for event in refused)
    assert server.venue.refused_channels == channels
    asked = [c for r in server.asked for c in r["params"].get("channels", ())]
    assert all(asked.count(channel) == 2 for channel in channels)
    assert server.venue.is_ready
    assert server.venue.failure is None


def test_a_channel_left_out_because_it_ended_meanwhile_is_retired() -> None:
    server = Server(Deribit(["BTC"]))
    server.unknown = {f"ticker.{BTC_OPTIONS[0]}.100ms"}
    server.venue.connected(START)
    requests = server.collect()
    for request in requests:
        server.answer(request)
    server.listings[("BTC", "option")] = [option_row(name) for name in BTC_OPTIONS[1:]]
    server.held.clear()
    server.serve()
    row = server.venue.universe.find("deribit", BTC_OPTIONS[0])
    retired = [event for event in server.events() if isinstance(event, InstrumentEvent) and event.retired]
    assert [event.retired for event in retired] == [(row,)]


def test_an_index_that_is_not_given_is_not_expected() -> None:
    server = Server(Deribit(["BTC"]))
    server.unknown = {"deribit_price_index.btc_usd"}
    server.connect()
    server.wait(90, tell=())
    assert server.venue.failure is None
    assert not [e for e in server.health(Health.STALE) if "index" in e.detail]


def test_reconnecting_lists_anew_and_says_what_changed() -> None:
    server = Server(Deribit(["BTC"])).connect()
    gone, kept = BTC_OPTIONS[0], BTC_OPTIONS[1]
    ids = {name: server.venue.universe.find("deribit", name) for name in BTC_OPTIONS}
    server.say(ticker(gone), ticker(kept))
    server.venue.take_quotes(server.now)
    server.venue.disconnected(server.now, "closed")
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    assert sorted(batch.instrument_id.tolist()) == sorted([ids[gone], ids[kept]])
    assert not batch.bid[0] > 0
    new = "BTC-30APR27-90000-C"
    server.listings[("BTC", "option")] = [option_row(name) for name in (*BTC_OPTIONS[1:], new)]
    server.events()
    server.connect()
    changes = [event for event in server.events() if isinstance(event, InstrumentEvent)]
    assert [event.retired for event in changes if event.retired] == [(ids[gone],)]
    assert [event.added for event in changes if event.added] == [(server.venue.universe.find("deribit", new),)]
    assert server.venue.universe.find("deribit", kept) == ids[kept]
    last = [request for request in server.asked if request["method"] == "public/subscribe"][-1]
    assert f"ticker.{gone}.100ms" not in last["params"]["channels"]
    assert {f"ticker.{kept}.100ms", f"ticker.{new}.100ms"} <= set(last["params"]["channels"])


def test_a_new_tick_size_is_a_change_of_the_same_instrument() -> None:
    server = Server(Deribit(["BTC"])).connect()
    server.venue.disconnected(server.now, "closed")
    server.events()
    server.listings[("BTC", "option")][0]["tick_size"] = 0.001
    server.connect()
    added = [event.added for event in server.events() if isinstance(event, InstrumentEvent)]
    row = server.venue.universe.find("deribit", BTC_OPTIONS[0])
    assert added == [(row,)]
    assert server.venue.universe["deribit", BTC_OPTIONS[0]].tick_size == 0.001


def test_new_listings_are_found_by_one_question() -> None:
    server = Server(Deribit(["BTC"])).connect()
    new = [f"BTC-17JAN27-{strike}-{side}" for strike in range(50_000, 90_000, 1_000) for side in "CP"]
    server.listings[("BTC", "option")] += [option_row(name) for name in new]
    server.events()
    before = len(server.asked)
    server.say(*(state_change(name, "open") for name in new))
    server.wait(1.2)
    later = [request for request in server.asked[before:] if request["method"] != "public/test"]
    assert methods(later) == ["get_instruments", "subscribe"]
    assert later[1]["params"]["channels"] == [f"ticker.{name}.100ms" for name in new]
    (event,) = [event for event in server.events() if isinstance(event, InstrumentEvent)]
    assert [server.venue.universe[row].symbol for row in event.added] == new


def test_an_announced_listing_the_cache_does_not_have_yet_is_asked_for_again() -> None:
    server = Server(Deribit(["BTC"])).connect()
    new = "BTC-17JAN27-90000-C"
    before = len(server.asked)
    server.say(state_change(new, "open"))
    server.wait(2.2)
    assert server.venue.universe.find("deribit", new) is None
    server.listings[("BTC", "option")].append(option_row(new))
    server.wait(2)
    assert server.venue.universe.find("deribit", new) is not None
    assert methods(server.asked[before:]).count("get_instruments") == 3


def test_an_announced_listing_that_never_comes_is_given_up_by_name() -> None:
    server = Server(Deribit(["BTC"])).connect()
    new = "BTC-17JAN27-90000-C"
    server.events()
    before = len(server.asked)
    server.say(state_change(new, "open"))
    server.wait(30)
    assert methods(server.asked[before:]).count("get_instruments") == 5
    (refused,) = server.health(Health.REFUSED)
    assert new in refused.detail


def test_ids_of_requests_never_repeat_on_a_socket_and_begin_again_with_the_next() -> None:
    """A replay that begins after the first socket must find the ids that the capture answers."""
    server = Server(Deribit(["BTC"])).connect()
    server.say(TEST_REQUEST)
    server.wait(30)
    ids = [request["id"] for request in server.asked]
    assert ids == sorted(set(ids))
    server.venue.disconnected(server.now, "closed")
    server.venue.connected(server.now)
    assert [request["id"] for request in server.collect()] == ids[:3]


def test_requests_are_json_rpc() -> None:
    venue = Deribit(["BTC"])
    venue.connected(START)
    for data in venue.data_to_send():
        request = json.loads(data)
        assert request["jsonrpc"] == "2.0"
        assert set(request) == {"jsonrpc", "id", "method", "params"}
    assert venue.data_to_send() == []
