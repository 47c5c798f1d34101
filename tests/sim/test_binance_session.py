"""What a client of the simulated Binance may ask, and the limits it lives under."""

from __future__ import annotations

import json

import pytest

from tests.sim.binance_client import Client, exchange, of, page
from tests.sim.venue import JUST_BEFORE_EIGHT, SECOND, START, TICK
from volsurf.sim.binance import LIFETIME_SECONDS, MOST_STREAMS, PING_SECONDS, PONG_SECONDS

MARKS = "btcusdt@optionMarkPrice"


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/market/ws", True),
        ("/public/stream", True),
        ("/market/ws/btcusdt@optionMarkPrice", True),
        ("/stream", True),  # without a route: a connection, and nothing on it
        ("/ws", True),
        ("/eoptions/ws", False),
        ("/market", False),
        ("/private/ws", False),
        ("/", False),
    ],
)
def test_the_endpoints(path: str, known: bool) -> None:
    assert exchange().accepts(path) is known


def test_subscribing_is_acknowledged_and_then_the_stream_speaks() -> None:
    client = Client(exchange())
    assert client.ask("SUBSCRIBE", MARKS, "!index@arr") == {"result": None, "id": 1}
    assert client.ask("LIST_SUBSCRIPTIONS")["result"] == [MARKS, "!index@arr"]
    said = client.run(10)
    assert len(of(said, MARKS)) == len(of(said, "!index@arr")) == 1
    assert client.ask("UNSUBSCRIBE", MARKS)["result"] is None
    assert {message["stream"] for message in client.run(20)} == {"!index@arr"}


def test_streams_in_the_address_and_the_raw_mode() -> None:
    venue = exchange()
    combined = Client(venue, f"/market/stream?streams={MARKS}/!index@arr")
    raw = Client(venue, f"/market/ws/{MARKS}")
    assert combined.session.streams == [MARKS, "!index@arr"]
    said = combined.run(10)
    assert {message["stream"] for message in said} == {MARKS, "!index@arr"}
    (chain,) = raw.read()
    assert chain == of(said, MARKS)[0]
    assert raw.ask("GET_PROPERTY", "combined")["result"] is False
    assert raw.ask("SET_PROPERTY", "combined", True)["result"] is None
    raw.now = combined.now
    assert raw.run(10)[0]["stream"] == MARKS


@pytest.mark.parametrize(
    ("path", "streams"),
    [
        ("/public/stream", [MARKS, "!index@arr", "!optionSymbol"]),
        ("/stream", [MARKS]),
        ("/market/stream", ["BTCUSDT@optionMarkPrice", "btcusdt@ticker", "nothing", "dogeusdt@optionMarkPrice"]),
    ],
)
def test_the_wrong_route_the_wrong_case_and_the_unknown_are_acknowledged_and_silent(
    path: str, streams: list[str]
) -> None:
    venue = exchange()
    client = Client(venue, path)
    assert client.ask("SUBSCRIBE", *streams)["result"] is None
    assert client.ask("LIST_SUBSCRIPTIONS")["result"] == streams
    assert client.run(30) == []
    assert venue.counters["streams_silent"] == len(streams)


def test_a_public_stream_on_the_market_route_is_silent_too() -> None:
    venue = exchange()
    name = venue.listing.names[0].lower()
    client = Client(venue, "/market/stream")
    client.ask("SUBSCRIBE", f"{name}@bookTicker", f"{name}@depth@100ms", "btcusdt@optionTrade")
    assert client.run(30) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("hello", 3),
        ("5", 2),
        ('{"method":"DANCE","id":1}', 2),
        ('{"method":"SUBSCRIBE","params":{},"id":1}', 2),
        ('{"method":"SUBSCRIBE","params":[5],"id":1}', 2),
        ('{"method":"SUBSCRIBE","params":[],"id":1.5}', 2),
        ('{"method":"SET_PROPERTY","params":["x"],"id":1}', 0),
    ],
)
def test_errors_have_codes(text: str, code: int) -> None:
    (reply,) = Client(exchange()).say(text)
    assert reply["code"] == code
    assert isinstance(reply["msg"], str)


def test_two_hundred_streams_a_connection() -> None:
    client = Client(exchange(), "/public/stream")
    names = [f"x{i}@bookTicker" for i in range(MOST_STREAMS)]
    assert client.ask("SUBSCRIBE", *names[:150])["result"] is None
    assert client.ask("SUBSCRIBE", *names)["result"] is None
    assert client.ask("SUBSCRIBE", "one@bookTicker")["code"] == 2
    assert len(client.session.streams) == MOST_STREAMS


def test_more_than_ten_messages_a_second_end_the_connection() -> None:
    client = Client(exchange())
    for _ in range(10):
        client.ask("LIST_SUBSCRIPTIONS")
    client.now += SECOND - 1
    client.say('{"method":"LIST_SUBSCRIPTIONS","id":99}')
    assert client.session.closing == (1008, "Too many requests")
    client = Client(exchange())
    for _ in range(50):
        client.ask("LIST_SUBSCRIPTIONS")
        client.now += SECOND // 10
    assert client.session.closing is None


def test_a_ping_frame_every_five_minutes_and_an_end_without_pongs() -> None:
    client = Client(exchange())
    assert client.session.control_pings(int(PING_SECONDS * SECOND) - 1) == []
    now = int(PING_SECONDS * SECOND)
    (payload,) = client.session.control_pings(now)
    assert int(payload) == (START + now) // 1_000_000
    assert client.session.control_pings(now + SECOND) == []
    client.session.receive_pong(payload, now + SECOND)
    answered = now + SECOND
    for _ in range(3):
        now += int(PING_SECONDS * SECOND)
        assert client.session.control_pings(now)
        client.session.timer(now)
        assert client.session.closing is None
    client.session.timer(answered + int(PONG_SECONDS * SECOND))
    assert client.session.closing == (1008, "Pong timeout")
    assert client.exchange.counters["heartbeats_missed"] == 1


def test_a_day_is_the_end() -> None:
    client = Client(exchange())
    client.session.timer(int(LIFETIME_SECONDS * SECOND) - 1)
    assert client.session.closing is None
    client.session.timer(int(LIFETIME_SECONDS * SECOND))
    assert client.session.closing == (1001, "24h")


def test_refusals_on_order() -> None:
    client = Client(exchange())
    client.session.refuse_next("subscribe")
    assert client.ask("SUBSCRIBE", MARKS)["code"] == 2
    assert client.ask("SUBSCRIBE", MARKS)["result"] is None
    client.session.refuse_next("rate_limit")
    client.say('{"method":"LIST_SUBSCRIPTIONS","id":9}')
    assert client.session.closing == (1008, "Too many requests")


def test_pages_and_their_weights() -> None:
    venue = exchange(("BTC", "XRP"))
    status, info, headers = page(venue, "/eapi/v1/exchangeInfo")
    assert (status, headers) == (200, {"X-MBX-USED-WEIGHT-1m": "1"})
    assert len(info["optionSymbols"]) == int(venue.listing.universe.active.sum())
    assert {row["underlying"]: row["unit"] for row in info["optionSymbols"]} == {"BTCUSDT": 1, "XRPUSDT": 100}
    assert info["serverTime"] == START // 1_000_000
    status, index, _ = page(venue, "/eapi/v1/index?underlying=BTCUSDT")
    assert float(index["indexPrice"]) == pytest.approx(venue.market.spot("BTC", "USDT"))
    symbol = info["optionSymbols"][0]["symbol"]
    for limit, used in ((50, 3), (100, 8), (500, 18), (1000, 38)):
        status, book, headers = page(venue, f"/eapi/v1/depth?symbol={symbol}&limit={limit}")
        assert status == 200
        assert set(book) == {"bids", "asks", "T", "lastUpdateId"}
        assert headers["X-MBX-USED-WEIGHT-1m"] == str(used)
    for target, code in (
        ("/eapi/v1/index?underlying=X", -1121),
        ("/eapi/v1/depth?symbol=X", -1121),
        (f"/eapi/v1/depth?symbol={symbol}&limit=7", -4021),
        ("/eapi/v1/nonsense", -5000),
    ):
        status, error, _ = page(venue, target)
        assert (status, error["code"]) == (400, code)
    assert venue.http("/api/v3/time", {}, 0) is None


def test_too_much_weight_is_429_then_a_ban() -> None:
    venue = exchange(weight_per_minute=5)
    for _ in range(5):
        assert page(venue, "/eapi/v1/time")[0] == 200
    status, error, headers = page(venue, "/eapi/v1/time")
    assert (status, error["code"], headers["Retry-After"]) == (429, -1003, "60")
    assert page(venue, "/eapi/v1/time", 61 * SECOND)[0] == 200
    for _ in range(4):
        page(venue, "/eapi/v1/time", 61 * SECOND)
    statuses = [page(venue, "/eapi/v1/time", 61 * SECOND)[0] for _ in range(12)]
    assert statuses == [429] * 10 + [418] * 2
    status, error, _ = page(venue, "/eapi/v1/time", 100 * SECOND)
    assert status == 418
    assert f"IP banned until {(61 + 120) * 1000}." in error["msg"]
    assert page(venue, "/eapi/v1/time", 182 * SECOND)[0] == 200


def test_expiry_and_the_listings_that_follow() -> None:
    venue = exchange(start=JUST_BEFORE_EIGHT)
    client = Client(venue, f"/market/stream?streams={MARKS}/!optionSymbol")
    before = {row["symbol"] for row in page(venue, "/eapi/v1/exchangeInfo")[1]["optionSymbols"]}
    said = client.run(30)
    announced = of(said, "!optionSymbol")
    after = {row["symbol"] for row in page(venue, "/eapi/v1/exchangeInfo")[1]["optionSymbols"]}
    gone = before - after
    assert gone
    assert {name.split("-")[1] for name in gone} == {"261127"}
    assert {one["s"] for one in announced} == after - before
    assert {*announced[0]} == {"e", "E", "s", "ps", "qa", "d", "sp", "dt", "u", "ot", "cs"}
    assert {row["s"] for row in of(said, MARKS)[-1]} == after


def test_an_expiry_that_vanishes_is_missing_from_chain_and_listing() -> None:
    venue = exchange()
    client = Client(venue, f"/market/stream?streams={MARKS}")
    expiry = sorted(venue.chain("BTC"))[1]
    gone = {venue.listing.names[row] for row in venue.vanish("BTC", expiry)}
    said = client.run(20)
    assert gone
    assert not gone & {row["s"] for row in of(said, MARKS)[-1]}
    assert not gone & {row["symbol"] for row in page(venue, "/eapi/v1/exchangeInfo")[1]["optionSymbols"]}


def test_bursts_are_book_tickers_with_live_times_and_sizes() -> None:
    venue = exchange(bursting=True)
    client = Client(venue, "/public/stream")
    names = [f"{name.lower()}@bookTicker" for name in venue.listing.names[:20]]
    client.ask("SUBSCRIBE", *names)
    assert client.session.burst_bytes > 150
    client.run(3)
    seen: set[bytes] = set()
    for number in range(30):
        now = client.now + number * TICK
        data, count = client.session.burst(20, now)
        assert count == 20
        for frame in data.split(b'{"stream"')[1:]:
            message = json.loads(b'{"stream"' + frame[: frame.rindex(b"}}") + 2])
            assert message["data"]["T"] == message["data"]["E"] == (START + now) // 1_000_000
            seen.add(frame)
    assert len(seen) == 600
