"""Every captured Bybit option frame there is, read by the protocol and by plain `json`: they agree field by field."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.conftest import shared_path
from tests.feeds.bybit_frames import SECOND, Server, acknowledgement, option_row
from volsurf.feeds._bybit_names import parse_symbol
from volsurf.feeds.bybit import Bybit
from volsurf.feeds.protocol import BookEvent, TradeEvent
from volsurf.instruments import Settlement
from volsurf.quotes import Field

Row = dict[str, Any]
EARLY = SECOND
"""A time at which nothing captured has expired yet."""
FOLDER = ("venues", "fixtures", "bybit")
STREAMS = ("gct_wsTicker.jsonl", "live_notes_2026.jsonl", "tardis_mappers_option_messages.jsonl")

IGNORED = {
    "id": "the topic and time again, and a counter over all topics that says nothing of one",
    "cts": "time of the last match: minutes before `ts` in the snapshot of a quiet book, which holds as of `ts`",
    "data.seq": "a counter over all topics; continuity is `u`'s",
    "data.highPrice24h": "statistics of the day: no price of now",
    "data.lowPrice24h": "statistics of the day",
    "data.change24h": "statistics of the day",
    "data.turnover24h": "statistics of the day",
    "data.volume24h": "statistics of the day",
    "data.totalVolume": "statistics since listing",
    "data.totalTurnover": "statistics since listing",
    "data.openInterest": "a statistic",
    "data.predictedDeliveryPrice": "a settlement to come: no price of now",
    "data.BT": "block trades are trades; nothing here treats them apart",
}
"""Fields that are not used, and why."""
REFERENCE = {
    "bidIv": "bid_vol",
    "askIv": "ask_vol",
    "markPriceIv": "mark_vol",
    "delta": "delta",
    "gamma": "gamma",
    "vega": "vega",
    "theta": "theta",
}
TICKER = {
    "bidPrice": "bid",
    "bidSize": "bid_size",
    "askPrice": "ask",
    "askSize": "ask_size",
    "lastPrice": "last",
    "markPrice": "mark",
    "markPriceIv": "mark_vol",
    "underlyingPrice": "forward",
    "indexPrice": "index",
}


def frames(name: str) -> list[str]:
    """Frames of the option socket in a file; those of other sockets are left out."""
    lines = shared_path(*FOLDER, name).read_text("utf-8").splitlines()
    return [line for line in lines if "topic" not in json.loads(line) or all(map(parse_symbol, names_in([line])))]


def following(names: set[str], **options: Any) -> Server:
    """A connection that follows some contracts, at a time when none has expired."""
    listings: dict[str, list[Row]] = {}
    for name in sorted(names):
        listings.setdefault(name.split("-")[0], []).append(option_row(name))
    server = Server(Bybit(sorted(listings), books=True, **options), listings)
    server.now = EARLY
    server.venue.connected(EARLY)
    server.collect()
    for request in server.requests:
        server.answer_page(request)
    server.now += SECOND
    server.venue.timer(server.now)
    for command in server.collect():
        server.say(acknowledgement(command["args"]))
    assert server.venue.is_ready
    server.events()
    return server


def names_in(lines: list[str]) -> set[str]:
    found = set()
    for line in lines:
        data = json.loads(line)["data"]
        for row in data if isinstance(data, list) else [data]:
            found.update(row[key] for key in ("s", "symbol") if key in row)
    return found


def paths(message: Row) -> set[str]:
    """Every field of a frame, by its way down."""
    found = set(message) - {"data"}
    data = message["data"]
    for row in data if isinstance(data, list) else [data]:
        found |= {f"data.{key}" for key in row}
    return found


def same(got: float, written: str, *, zero_is_none: bool) -> bool:
    number = float(written)
    return math.isnan(got) if zero_is_none and number == 0 else got == number


def check_ticker(server: Server, message: Row) -> set[str]:
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    assert len(batch) == 2, "the contract and its index"
    data, universe = message["data"], server.venue.universe
    option, index = (universe[int(row)] for row in batch.instrument_id)
    assert option.symbol == data["symbol"]
    assert index.symbol == option.price_index
    assert batch.index[1] == float(data["indexPrice"])
    assert batch.venue_time_ns.tolist() == [message["ts"] * 1_000_000] * 2
    for key, column in TICKER.items():
        value = float(getattr(batch, column)[0])
        # A market that was never traded says "0" for its last price too, and then the row does not carry one.
        carried = column != "last" or batch.fields[0] & Field.LAST
        zero_is_none = column not in ("mark", "last")
        assert not carried or same(value, data[key], zero_is_none=zero_is_none), key
    greeks = server.venue.greeks(int(batch.instrument_id[0]))
    for key, name in REFERENCE.items():
        assert same(getattr(greeks, name), data[key], zero_is_none=key.endswith("Iv")), key
    return {"topic", "type", "ts", "data.symbol"} | {f"data.{key}" for key in (*TICKER, *REFERENCE)}


def check_book(server: Server, message: Row) -> set[str]:
    (event,) = (e for e in server.events() if isinstance(e, BookEvent))
    data = message["data"]
    assert server.venue.universe[event.instrument_id].symbol == data["s"]
    assert event.is_snapshot == (message["type"] == "snapshot")
    assert event.sequence == data["u"]
    assert event.venue_time_ns == message["ts"] * 1_000_000
    for levels, written in ((event.bids, data["b"]), (event.asks, data["a"])):
        assert levels == tuple((float(price), float(size)) for price, size in written)
    return {"topic", "type", "ts", "data.s", "data.u", "data.b", "data.a"}


def check_trades(server: Server, message: Row) -> set[str]:
    events = [e for e in server.events() if isinstance(e, TradeEvent)]
    assert len(events) == len(message["data"])
    for event, row in zip(events, message["data"], strict=True):
        assert server.venue.universe[event.instrument_id].symbol == row["s"]
        assert (event.price, event.size, event.is_buy) == (float(row["p"]), float(row["v"]), row["S"] == "Buy")
        assert (event.venue_time_ns, event.trade_id) == (row["T"] * 1_000_000, row["i"])
    return {"topic", "type", "ts", *(f"data.{key}" for key in "spvSTi")}


CHECKS = {"tickers": check_ticker, "orderbook": check_book, "publicTrade": check_trades}


@pytest.mark.parametrize("name", STREAMS)
def test_no_field_of_a_captured_frame_is_lost_unexplained(name: str) -> None:
    lines = [line for line in frames(name) if "topic" in line]
    server = following(names_in(lines))
    seen = 0
    for line in lines:
        server.say(line.encode())
        message = json.loads(line)
        used = CHECKS[message["topic"].split(".")[0]](server, message)
        unexplained = paths(message) - used - IGNORED.keys()
        assert not unexplained, f"{message['topic']}: {sorted(unexplained)}"
        seen += 1
    counters = server.venue.counters
    assert not [
        key for key, count in counters.items() if count and key.startswith(("malformed", "ticker_unknown", "book_"))
    ]
    assert (
        seen == {"gct_wsTicker.jsonl": 1, "live_notes_2026.jsonl": 2, "tardis_mappers_option_messages.jsonl": 6}[name]
    )


def test_frames_of_other_sockets_harm_nothing() -> None:
    server = following({"BTC-28JUN24-60000-P"})
    lines = shared_path(*FOLDER, "gct_wsTicker.jsonl").read_text("utf-8").splitlines()
    for line in lines:
        server.say(line.encode())
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    assert {server.venue.universe[int(row)].underlying for row in batch.instrument_id} == {"BTC"}
    assert len(batch) == 2
    assert server.venue.counters["ticker_unknown"] + server.venue.counters.get("malformed.schema", 0) == len(lines) - 1


def test_the_captured_acknowledgement_of_silent_topics() -> None:
    """It grants the ticker; the two topics with it were never asked for, and are not taken for granted."""
    name = "BTC-25JUN27-106000-P-USDT"
    (line,) = (line for line in frames("live_notes_2026.jsonl") if "COMMAND_RESP" in line)
    server = Server(Bybit(["BTC_USDT"]), {"BTC": [option_row(name)]})
    server.now = EARLY
    server.venue.connected(EARLY)
    server.collect()
    server.answer_page(server.requests.pop())
    server.now += SECOND
    server.venue.timer(server.now)
    server.collect()
    server.say(line.encode())
    assert set(server.venue._link.topics.granted) == {f"tickers.{name}"}


def test_the_captured_listing_is_what_it_says() -> None:
    page = json.loads(shared_path(*FOLDER, "live_instruments_option_2026-09-26.json").read_text("utf-8"))
    rows = page["list"]
    assert page["nextPageCursor"] == ""
    server = Server(
        Bybit(["BTC", "XRP"]), {coin: [r for r in rows if r["baseCoin"] == coin] for coin in ("BTC", "XRP")}
    )
    server.now = EARLY
    server.connect()
    universe = server.venue.universe
    assert len(universe) == 5, "three contracts and two indexes"
    used = {"symbol", "status", "baseCoin", "quoteCoin", "settleCoin", "optionsType", "deliveryTime", "priceFilter"}
    ignored = {
        "symbolId": "the name is the key",
        "launchTime": "what is listed is quoted",
        "deliveryFeeRate": "a cost of holding to expiry, not a price",
        "displayName": "the name again",
        "lotSizeFilter": "nothing is traded here",
    }
    for row in rows:
        assert set(row) == used | ignored.keys()
        instrument = universe["bybit", row["symbol"]]
        said = parse_symbol(row["symbol"])
        assert said is not None
        assert (instrument.underlying, instrument.quote_currency) == (row["baseCoin"], row["settleCoin"])
        assert instrument.settlement is Settlement.LINEAR
        assert instrument.expiry_ns == int(row["deliveryTime"]) * 1_000_000
        assert instrument.is_call == (row["optionsType"] == "Call")
        assert instrument.tick_size == float(row["priceFilter"]["tickSize"])
        assert instrument.contract_size == 1.0
        assert instrument.strike == said.strike
    assert universe["bybit", "XRP-30OCT26-0.4-P-USDT"].strike == 0.4


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("BTC-28JUN24-60000-P", "gct_wsTicker.jsonl"),
        ("BTC-21MAR26-70000-C-USDT", "live_notes_2026.jsonl"),
        ("SOL-28APR23-24-C", "tardis_mappers_option_messages.jsonl"),
    ],
)
def test_the_venues_own_vol_gives_its_own_mark(name: str, stream: str) -> None:
    """Undiscounted Black-76 of the forward, ACT/365 to 08:00 UTC: units, forward and expiry are what we take them for."""
    from volsurf.iv.black import black_price

    (line,) = (line for line in frames(stream) if f'"tickers.{name}"' in line)
    server = following({name})
    server.say(line.encode())
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    instrument = server.venue.universe[int(batch.instrument_id[0])]
    years = (instrument.expiry_ns - int(batch.venue_time_ns[0])) / (365 * 86_400e9)
    forward, vol = float(batch.forward[0]), float(batch.mark_vol[0])
    price = float(black_price(forward, instrument.strike, years, vol, instrument.is_call))
    # The vol is told to four digits.
    assert price == pytest.approx(float(batch.mark[0]), rel=2e-4)


def test_every_reason_is_still_needed() -> None:
    """A field that is no longer captured, or is used now, needs no excuse."""
    there: set[str] = set()
    for name in STREAMS:
        for line in frames(name):
            if "topic" in line:
                there |= paths(json.loads(line))
    assert IGNORED.keys() <= there
