"""What the simulated Bybit lists, answers, refuses and tells."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.conftest import shared_path
from tests.feeds.bybit_memory import JUST_BEFORE_EIGHT, SECOND, START, TICK
from volsurf.feeds._bybit_names import parse_symbol
from volsurf.sim.bybit import MAX_CHARACTERS, BybitExchange, BybitSession
from volsurf.sim.market import Market
from volsurf.sim.quoting import QuoteRules

Row = dict[str, Any]


class Client:
    """One session of an exchange, and a real clock that only the test moves."""

    def __init__(self, *coins: str, start: int = START, seed: int = 1, **options: Any) -> None:
        self.now = start
        market = Market(seed, coins or ("XRP",), start_ns=start)
        self.exchange = BybitExchange(market, origin_ns=start, **options)
        self.session: BybitSession = self.exchange.open_session(start)
        self.names = self.exchange.listing.names

    def say(self, command: object) -> list[Row]:
        """Send a command; what comes back at once."""
        self.session.receive(command if isinstance(command, (str, bytes)) else json.dumps(command), self.now)
        return self.read()

    def subscribe(self, *topics: str) -> tuple[Row, list[Row]]:
        """The acknowledgement, and what the topics say at once."""
        answer, *rest = self.say({"req_id": "1", "op": "subscribe", "args": list(topics)})
        return answer, rest

    def read(self) -> list[Row]:
        """What was queued for this client."""
        return [json.loads(payload) for payload in self.session.data_to_send()]

    def run(self, ticks: int) -> list[Row]:
        """Let the exchange run, and everything it said meanwhile."""
        said = []
        for _ in range(ticks):
            self.now += TICK
            self.exchange.advance(self.now)
            self.session.timer(self.now)
            said += self.read()
        return said

    def page(self, path: str, **query: str) -> Row:
        """The result of a REST page that answers with one."""
        answer = self.exchange.http(f"/v5/market/{path}", query, self.now)
        assert answer is not None
        assert answer[0] == 200
        body: Row = json.loads(answer[1])
        assert body.keys() == {"retCode", "retMsg", "result", "retExtInfo", "time"}
        return body

    def rows(self, **query: str) -> list[Row]:
        """Rows of one page of instruments."""
        listed: list[Row] = self.page("instruments-info", category="option", **query)["result"]["list"]
        return listed


@pytest.fixture
def client() -> Client:
    return Client()


# Listing


def test_names_say_what_the_rows_say() -> None:
    client = Client("BTC", "XRP")
    rows = client.rows(baseCoin="BTC", limit="1000") + client.rows(baseCoin="XRP", limit="1000")
    assert {row["symbol"] for row in rows} == set(client.names)
    for row in rows:
        said = parse_symbol(row["symbol"])
        assert said is not None
        assert said.family == (row["baseCoin"], row["settleCoin"])
        assert said.expiry_ns == int(row["deliveryTime"]) * 1_000_000
        assert said.is_call == (row["optionsType"] == "Call")
        assert row["status"] == "Trading"
        assert int(row["launchTime"]) * 1_000_000 < START
    settles = {row["settleCoin"] for row in rows}
    assert settles == {"USDC", "USDT"}
    assert any("." in row["symbol"] for row in rows)
    both = {row["symbol"] for row in rows if row["settleCoin"] == "USDC"}
    assert any(f"{name}-USDT" in client.names for name in both), "one contract in two forms"


def test_a_row_has_the_keys_of_a_captured_one(client: Client) -> None:
    path = shared_path("venues", "fixtures", "bybit", "live_instruments_option_2026-09-26.json")
    captured = json.loads(path.read_text("utf-8"))["list"][-1]
    row = client.rows(baseCoin="XRP", limit="1")[0]
    assert list(row) == list(captured)
    for key, value in captured.items():
        assert type(row[key]) is type(value), key
    assert row["priceFilter"].keys() == captured["priceFilter"].keys()
    assert row["lotSizeFilter"]["minOrderQty"] == captured["lotSizeFilter"]["minOrderQty"]
    assert row["priceFilter"]["tickSize"] == captured["priceFilter"]["tickSize"]


def test_a_ticker_has_the_keys_and_types_of_a_captured_one(client: Client) -> None:
    path = shared_path("venues", "fixtures", "bybit", "live_notes_2026.jsonl")
    captured, book, _ = map(json.loads, path.read_text("utf-8").splitlines())
    name = client.names[len(client.names) // 2]
    _, (ticker, books) = client.subscribe(f"tickers.{name}", f"orderbook.25.{name}")
    assert list(ticker) == list(captured)
    assert list(ticker["data"]) == list(captured["data"])
    for key, value in captured["data"].items():
        assert type(ticker["data"][key]) is type(value), key
    assert list(books) == list(book)
    assert list(books["data"]) == list(book["data"])
    assert type(books["data"]["b"][0][0]) is str


def test_pages_have_cursors_and_no_row_twice(client: Client) -> None:
    seen: list[str] = []
    cursor, pages = "", 0
    while True:
        query = {"cursor": cursor} if cursor else {}
        result = client.page("instruments-info", category="option", baseCoin="XRP", limit="100", **query)["result"]
        seen += [row["symbol"] for row in result["list"]]
        pages += 1
        if not result["nextPageCursor"]:
            break
        assert "%26" in result["nextPageCursor"], "escaped already"
        # What the client sends back as it came, the server reads unescaped.
        cursor = result["nextPageCursor"].replace("%3D", "=").replace("%26", "&")
    assert seen == client.names
    assert pages == -(-len(seen) // 100)


def test_without_a_coin_it_is_bitcoins_list() -> None:
    client = Client("BTC", "XRP")
    assert {row["baseCoin"] for row in client.rows()} == {"BTC"}
    assert len(client.rows()) == 500, "the default of a page"
    assert client.rows(baseCoin="DOGE") == []


@pytest.mark.parametrize(
    "query",
    [
        {"category": "spot"},
        {"category": "option", "limit": "1001"},
        {"category": "option", "limit": "x"},
        {"category": "option", "cursor": "nonsense"},
        {"category": "option", "baseCoin": "B&C"},
        {},
    ],
)
def test_parameters_the_venue_does_not_take(client: Client, query: dict[str, str]) -> None:
    assert client.page("instruments-info", **query)["retCode"] == 10001


def test_the_pages_of_tickers_use_other_names(client: Client) -> None:
    name = client.names[0]
    (row,) = client.page("tickers", category="option", symbol=name)["result"]["list"]
    assert {"bid1Price", "bid1Size", "bid1Iv", "ask1Price", "markIv", "underlyingPrice"} <= row.keys()
    assert not {"bidPrice", "bidIv", "markPriceIv"} & row.keys()
    everything = client.page("tickers", category="option", baseCoin="XRP")["result"]["list"]
    assert [row["symbol"] for row in everything] == client.names
    book = client.page("orderbook", category="option", symbol=name, limit="25")["result"]
    assert book["s"] == name
    assert 0 < len(book["a"]) <= 25
    assert int(client.page("time")["result"]["timeSecond"]) == START // SECOND
    assert client.exchange.http("/v5/market/kline", {}, client.now) is None
    truth = client.exchange.http("/truth", {}, client.now)
    assert truth is not None
    assert truth[0] == 200


def test_six_hundred_requests_in_five_seconds_and_then_ten_minutes_of_nothing(client: Client) -> None:
    ask = {"category": "option", "baseCoin": "DOGE"}
    for _ in range(600):
        client.page("instruments-info", **ask)
    answer = client.exchange.http("/v5/market/time", {}, client.now)
    assert answer is not None
    assert answer[0] == 403
    assert b"access too frequent" in answer[1]
    client.now += 599 * SECOND
    assert client.exchange.http("/v5/market/time", {}, client.now)[0] == 403  # type: ignore[index]
    client.now += 2 * SECOND
    for _ in range(3):
        for _ in range(590):
            client.page("time")
        client.now += 5 * SECOND


# Commands


def test_the_acknowledgement_has_its_own_shape(client: Client) -> None:
    name = client.names[0]
    answer, pushed = client.subscribe(f"tickers.{name}", "tickers.NONSENSE", "publicTrade.XRP", "publicTrade.DOGE")
    assert answer == {
        "success": False,
        "conn_id": answer["conn_id"],
        "data": {
            "failTopics": ["tickers.NONSENSE", "publicTrade.DOGE"],
            "successTopics": [f"tickers.{name}", "publicTrade.XRP"],
        },
        "type": "COMMAND_RESP",
    }
    assert [message["topic"] for message in pushed] == [f"tickers.{name}"]
    answer, pushed = client.subscribe(f"tickers.{name}")
    assert answer["data"]["failTopics"] == [f"tickers.{name}"], "twice is once too many"


def test_topics_that_are_acknowledged_and_silent(client: Client) -> None:
    name = client.names[0]
    silent = [f"orderbook.1.{name}", f"orderbook.50.{name}", f"kline.1.{name}", "tickers.XRP"]
    answer, pushed = client.subscribe(*silent)
    assert answer["data"]["successTopics"] == silent
    assert pushed == []
    assert client.run(30) == []


def test_unsubscribing_ends_a_topic(client: Client) -> None:
    topics = [f"tickers.{name}" for name in client.names[:50]]
    client.subscribe(*topics)
    (answer,) = client.say({"op": "unsubscribe", "args": [topics[0], "tickers.NEVER"]})
    assert answer["data"] == {"failTopics": ["tickers.NEVER"], "successTopics": [topics[0]]}
    told = {message["topic"] for message in client.run(20)}
    assert told == set(topics[1:])
    client.session.closed()
    assert client.exchange.table.feeds == {}


def test_a_connection_has_room_for_so_many_characters() -> None:
    client = Client("BTC")
    topics, taken = [f"tickers.{name}" for name in client.names], []
    for topic in topics:
        if len(json.dumps([*taken, topic], separators=(",", ":"))) > MAX_CHARACTERS:
            break
        taken.append(topic)
    assert 550 < len(taken) < len(topics)
    assert len(client.subscribe(*taken[:500])[0]["data"]["successTopics"]) == 500
    assert client.subscribe(*taken[500:])[0]["success"]
    answer, _ = client.subscribe(topics[len(taken)])
    assert answer["data"] == {"failTopics": [topics[len(taken)]], "successTopics": []}
    assert client.exchange.counters["refused_too_long"] == 1
    client.say({"op": "unsubscribe", "args": [taken[0]]})
    assert client.subscribe(topics[len(taken)])[0]["success"], "what ends makes room"


def test_more_topics_in_a_message_than_may_be(client: Client) -> None:
    answer, _ = client.subscribe(*(f"x{i}" for i in range(2001)))
    assert len(answer["data"]["failTopics"]) == 2001


@pytest.mark.parametrize(
    "command", ["", "{", "[]", "7", '{"op":"login"}', '{"op":"subscribe","args":"x"}', '{"op":"subscribe"}']
)
def test_commands_that_are_none(client: Client, command: str) -> None:
    (answer,) = client.say(command)
    assert answer["success"] is False
    assert answer["ret_msg"]


@pytest.mark.parametrize("what", ["subscribe", "rate_limit"])
def test_refusals_on_purpose(client: Client, what: str) -> None:
    client.session.refuse_next(what)
    topic = f"tickers.{client.names[0]}"
    (answer,) = client.say({"op": "subscribe", "args": [topic]})
    assert answer["success"] is False
    if what == "subscribe":
        assert answer["data"]["failTopics"] == [topic]
    else:
        assert "Too many visits" in answer["ret_msg"]
    assert client.subscribe(topic)[0]["success"]


def test_pages_refused_on_purpose(client: Client) -> None:
    client.exchange.pages.refuse_next(1)
    assert client.page("time")["retCode"] == 10006
    client.exchange.pages.refuse_next(1, status=503)
    assert client.exchange.http("/v5/market/time", {}, client.now) == (503, b"refused")
    assert client.page("time")["retCode"] == 0


def test_a_ping_is_answered_with_the_venues_time(client: Client) -> None:
    client.now += 5 * SECOND
    assert client.say({"req_id": "7", "op": "ping"}) == [
        {"args": [str((START + 5 * SECOND) // 1_000_000)], "op": "pong"}
    ]


def test_a_client_that_says_nothing_is_cut() -> None:
    client = Client(idle_seconds=5.0)
    client.run(45)
    client.say({"op": "ping"})
    client.run(45)
    assert client.session.closing is None
    client.run(20)
    assert client.session.closing == (1000, "no traffic")
    assert client.say({"op": "ping"}) == []


# What is pushed


def test_tickers_say_what_is_quoted(client: Client) -> None:
    client.subscribe(*(f"tickers.{name}" for name in client.names[:400]))
    told = {message["data"]["symbol"]: message["data"] for message in client.run(15)}
    assert len(told) == min(400, len(client.names))
    quotes, listing = client.exchange.quotes, client.exchange.listing
    client.run(1)
    sentinels = 0
    for name, data in told.items():
        row = listing.row_of[name]
        assert all(isinstance(value, str) and "e" not in value for key, value in data.items() if key != "symbol")
        for side in ("bid", "ask"):
            if data[f"{side}Price"] == "0":
                assert (data[f"{side}Size"], data[f"{side}Iv"]) == ("0", "0")
                sentinels += 1
            else:
                assert float(data[f"{side}Size"]) > 0
        assert float(data["underlyingPrice"]) == pytest.approx(quotes.forward[row], rel=1e-3)
        assert float(data["markPriceIv"]) == pytest.approx(quotes.vol[row], abs=2e-3)
        assert (float(data["delta"]) > 0) == name.split("-")[3].startswith("C")
    assert sentinels > 5


def test_the_truth_lies_between_bid_and_ask() -> None:
    client = Client("BTC", rules=QuoteRules(stale_share=0.0))
    client.run(30)
    quotes, market = client.exchange.quotes, client.exchange.market
    universe = client.exchange.listing.universe
    both = np.isfinite(quotes.bid) & np.isfinite(quotes.ask)
    assert both.sum() > 600
    assert ((quotes.bid < quotes.mark) & (quotes.mark < quotes.ask))[both].all()
    for currency in ("USDC", "USDT"):
        rows = [row for row, i in enumerate(universe) if i.quote_currency == currency]
        true = market.truth_vol("BTC", universe.expiry_ns[rows], universe.strike[rows], currency)
        assert np.abs(quotes.vol[rows] - true).max() < 0.02


def test_books_continue_by_one() -> None:
    client = Client("XRP")
    names = client.names[:120]
    _, snapshots = client.subscribe(*(f"orderbook.{depth}.{name}" for name in names for depth in (25, 100)))
    last = {message["topic"]: message["data"]["u"] for message in snapshots}
    assert len(last) == 240
    deltas = client.run(30)
    assert len(deltas) > 100
    for message in deltas:
        assert message["type"] == "delta"
        assert message["data"]["u"] == last[message["topic"]] + 1
        assert message["cts"] <= message["ts"]
        last[message["topic"]] += 1
    # Subscribing again brings a snapshot whose number goes on.
    topic = max(last, key=lambda one: last[one])
    client.say({"op": "unsubscribe", "args": [topic]})
    _, (snapshot,) = client.subscribe(topic)
    assert snapshot["type"] == "snapshot"
    assert snapshot["data"]["u"] > last[topic]
    client.exchange.restart_books(client.now)
    assert {message["data"]["u"] for message in client.read()} == {1}


def test_a_second_listener_of_a_book_joins_the_first() -> None:
    client = Client("XRP")
    topics = [f"orderbook.25.{name}" for name in client.names[:100]]
    client.subscribe(*topics)
    client.run(10)
    other = client.exchange.open_session(client.now)
    other.receive(json.dumps({"op": "subscribe", "args": topics}), client.now)
    _, *snapshots = (json.loads(payload) for payload in other.data_to_send())
    at = {message["topic"]: message["data"]["u"] for message in snapshots}
    for message in client.run(20):
        at[message["topic"]] += 1
        assert message["data"]["u"] == at[message["topic"]]


def test_trades_of_a_coin() -> None:
    client = Client("BTC", "XRP", rules=QuoteRules(trades_per_step=3.0))
    client.subscribe("publicTrade.BTC")
    rows = [row for message in client.run(20) for row in message["data"]]
    assert len(rows) > 10
    for row in rows:
        assert row["s"].startswith("BTC-")
        assert row["S"] in ("Buy", "Sell")
        assert float(row["p"]) > 0
        assert float(row["v"]) > 0
        assert row.keys() == {"p", "v", "i", "T", "BT", "s", "S", "mP", "iP", "mIv", "iv"}
    assert len({row["i"] for row in rows}) == len(rows)


def test_rolling_at_eight_says_nothing_on_the_socket() -> None:
    client = Client(start=JUST_BEFORE_EIGHT)
    first = min(client.exchange.listing.universe.expiry_ns)
    dying = [i.symbol for i in client.exchange.listing.universe if i.expiry_ns == first]
    client.subscribe(*(f"tickers.{name}" for name in dying))
    near = client.run(20)
    assert {message["data"]["predictedDeliveryPrice"] for message in near} != {"0"}, "told in the last half hour"
    client.run(35)
    assert client.session.topics == []
    assert client.run(10) == []
    listed = {row["symbol"] for row in client.rows(baseCoin="XRP", limit="1000")}
    assert not listed & set(dying)
    answer, _ = client.subscribe(f"tickers.{dying[0]}")
    assert answer["data"]["failTopics"] == [f"tickers.{dying[0]}"]
    prices = client.page("new-delivery-price", category="option", baseCoin="XRP", settleCoin="USDT")["result"]["list"]
    assert int(prices[0]["deliveryTime"]) * 1_000_000 == first
    assert float(prices[0]["deliveryPrice"]) == pytest.approx(client.exchange.market.spot("XRP"), rel=0.02)


def test_same_seed_same_bytes() -> None:
    """Two runs with the same requests at the same times say the same, byte for byte, over a roll and on every topic."""

    def words(seed: int) -> bytes:
        client = Client("XRP", seed=seed, start=JUST_BEFORE_EIGHT)
        names = client.names[:30]
        kinds = ("tickers", "orderbook.25")
        topics = [*(f"{kind}.{name}" for name in names for kind in kinds), "publicTrade.XRP"]
        client.session.receive(json.dumps({"op": "subscribe", "args": topics}), client.now)
        out = client.session.data_to_send()
        for _ in range(60):
            client.now += TICK
            client.exchange.advance(client.now)
            out += client.session.data_to_send()
        return b"\n".join(out)

    first = words(1)
    assert first == words(1)
    assert first != words(2)


def test_bursts_are_whole_frames_with_live_stamps_and_changing_sizes() -> None:
    client = Client("XRP", bursting=True)
    names = [name for name in client.names if "-C-" in name][:100]
    client.subscribe(*(f"tickers.{name}" for name in names))
    client.now += SECOND
    client.exchange.advance(client.now)
    payloads: list[Row] = []
    for _ in range(3):
        client.now += 7_000_000
        data, count = client.session.burst(200, client.now)
        payloads += unframed(data)
        assert len(payloads) >= count > 0
    stamps = {payload["ts"] for payload in payloads}
    assert len(stamps) == 3
    assert max(stamps) == client.exchange.market_ns(client.now) // 1_000_000
    assert {payload["data"]["symbol"] for payload in payloads} == set(names)
    sizes: dict[str, set[str]] = {}
    for payload in payloads:
        sizes.setdefault(payload["data"]["symbol"], set()).add(payload["data"]["askSize"])
    assert any(len(seen) > 1 for seen in sizes.values())
    assert client.session.burst_bytes > 500


def unframed(data: bytes) -> list[Row]:
    """Payloads of server text frames that lie end to end."""
    out, at = [], 0
    while at < len(data):
        size = data[at + 1]
        head = 2
        if size == 126:
            size, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        out.append(json.loads(data[at + head : at + head + size]))
        at += head + size
    return out
