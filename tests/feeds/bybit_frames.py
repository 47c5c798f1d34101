"""Bybit messages of the project's own making, and a hand-driven venue's side of one connection, its REST pages included."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from volsurf.feeds._bybit_names import parse_symbol
from volsurf.feeds.bybit import Bybit
from volsurf.feeds.protocol import Event, Health, HealthEvent, HttpRequest

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
"""2027-01-15 08:00:00 UTC"""
START_MS = START // 1_000_000

BTC_USDT = (
    "BTC-26MAR27-80000-C-USDT",
    "BTC-26MAR27-80000-P-USDT",
    "BTC-25JUN27-100000-C-USDT",
    "BTC-16JAN27-75000-P-USDT",
)
BTC_USDC = ("BTC-26MAR27-80000-C", "BTC-26MAR27-80000-P")
XRP_USDT = ("XRP-29JAN27-0.4-P-USDT", "XRP-29JAN27-1.25-C-USDT")

Row = dict[str, Any]


def option_row(name: str, **changes: Any) -> Row:
    """A row of `instruments-info`, as listings of 2026 have it."""
    said = parse_symbol(name)
    assert said is not None, name
    base, settle = said.family
    row: Row = {
        "symbolId": 394_577,
        "symbol": name,
        "status": "Trading",
        "baseCoin": base,
        "quoteCoin": settle,
        "settleCoin": settle,
        "optionsType": "Call" if said.is_call else "Put",
        "launchTime": str(START_MS - 10**9),
        "deliveryTime": str(said.expiry_ns // 1_000_000),
        "deliveryFeeRate": "0.00015",
        "priceFilter": {"minPrice": "5", "maxPrice": "1110000", "tickSize": "5" if base == "BTC" else "0.0001"},
        "lotSizeFilter": {"maxOrderQty": "500", "minOrderQty": "0.01", "qtyStep": "0.01"},
        "displayName": name,
        "a_key_of_tomorrow": {"any": ["thing"]},
    }
    return row | changes


def ticker_data(name: str, **changes: Any) -> Row:
    """The object of a ticker."""
    data: Row = {
        "symbol": name,
        "bidPrice": "2740",
        "bidSize": "1.5",
        "bidIv": "0.4812",
        "askPrice": "2785",
        "askSize": "3.25",
        "askIv": "0.4877",
        "lastPrice": "2750",
        "highPrice24h": "2900",
        "lowPrice24h": "2500",
        "markPrice": "2761.5083",
        "indexPrice": "81250.5",
        "markPriceIv": "0.4844",
        "underlyingPrice": "81410.25",
        "openInterest": "18.93",
        "turnover24h": "3511046.46",
        "volume24h": "50.26",
        "totalVolume": "60",
        "totalTurnover": "4132627",
        "delta": "0.51782561",
        "gamma": "0.0001756",
        "vega": "16.76259941",
        "theta": "-343.85909514",
        "predictedDeliveryPrice": "0",
        "change24h": "-0.518",
    }
    return data | changes


def pushed(topic: str, data: Any, kind: str = "snapshot", ts: int = START_MS, **more: Any) -> bytes:
    """A push, with keys in the order of 2026."""
    message = {"topic": topic, "ts": ts, "type": kind, "id": f"{topic}-62191583841-{ts}", "data": data} | more
    return json.dumps(message, separators=(",", ":")).encode()


def ticker(name: str, ts: int = START_MS, **changes: Any) -> bytes:
    """A ticker's message."""
    return pushed(f"tickers.{name}", ticker_data(name, **changes), ts=ts)


def ticker_of_2023(name: str, ts: int = START_MS, kind: str = "snapshot", **changes: Any) -> bytes:
    """The same in the order of keys it had in 2023."""
    topic = f"tickers.{name}"
    message = {"id": f"{topic}-1-{ts}", "topic": topic, "ts": ts, "data": ticker_data(name, **changes), "type": kind}
    return json.dumps(message, separators=(",", ":")).encode()


def change(name: str, ts: int = START_MS, **values: Any) -> bytes:
    """A `delta` of a ticker: nothing but the values given."""
    return pushed(f"tickers.{name}", {"symbol": name} | values, "delta", ts)


def book(name: str, u: int, bids: Any = (), asks: Any = (), kind: str = "delta", ts: int = START_MS) -> bytes:
    """An order book's message of 25 levels."""
    data = {"s": name, "b": list(bids), "a": list(asks), "u": u, "seq": 76_571_748_900 + u}
    return pushed(f"orderbook.25.{name}", data, kind, ts, cts=ts - 5)


def trades(coin: str, *rows: Row) -> bytes:
    """Trades of a coin's options."""
    whole = [
        {"p": "985", "v": "0.01", "i": "0404c393", "T": START_MS, "BT": False, "S": "Sell", "mP": "980", "iv": "0.5"}
        | row
        for row in rows
    ]
    return pushed(f"publicTrade.{coin}", whole)


def acknowledgement(success: Sequence[str], failed: Sequence[str] = ()) -> bytes:
    """The option socket's answer to a subscription."""
    data = {"failTopics": list(failed), "successTopics": list(success)}
    return json.dumps(
        {"success": not failed, "conn_id": "da7u80nak99fk", "data": data, "type": "COMMAND_RESP"}
    ).encode()


PONG = b'{"args":["1800000000000"],"op":"pong"}'
PONG_ELSEWHERE = b'{"success":true,"ret_msg":"pong","conn_id":"9c5a","req_id":"1","op":"ping"}'
"""As the sockets of other product types answer."""


def page(rows: list[Row], cursor: str = "", time_ms: int = START_MS, code: int = 0, said: str = "OK") -> bytes:
    """A REST answer."""
    result = {"category": "option", "nextPageCursor": cursor, "list": rows}
    return json.dumps({"retCode": code, "retMsg": said, "result": result, "retExtInfo": {}, "time": time_ms}).encode()


def standard_listings() -> dict[str, list[Row]]:
    """A small market: four BTC options in USDT, two in USDC (the same contracts as two of those), and two of XRP."""
    return {
        "BTC": [option_row(name) for name in (*BTC_USDT, *BTC_USDC)],
        "XRP": [option_row(name) for name in XRP_USDT],
    }


class Server:
    """Bybit's side of one connection, answering when told to, under a clock moved by hand.

    Attributes:
        listings: coin → rows. refused: topics that fail. silent: topics acknowledged and never served.
        asked: every command received so far. held: commands not answered yet. requests: HTTP requests not answered yet.
        page_rows: of a REST page. is_dumb: it answers no ping.
    """

    def __init__(self, venue: Bybit, listings: dict[str, list[Row]] | None = None) -> None:
        self.venue = venue
        self.now = START
        self.listings = standard_listings() if listings is None else listings
        self.refused: set[str] = set()
        self.silent: set[str] = set()
        self.asked: list[Row] = []
        self.held: list[Row] = []
        self.requests: list[HttpRequest] = []
        self.urls: list[str] = []
        self.subscribed: dict[str, None] = {}
        self.page_rows = 1000
        self.is_dumb = False
        self._u = 0

    @property
    def ms(self) -> int:
        """The venue's time."""
        return self.now // 1_000_000

    def connect(self) -> Server:
        """Open the socket and answer until nothing more is asked."""
        self.venue.connected(self.now)
        self.serve()
        return self

    def collect(self) -> list[Row]:
        """Commands the venue has sent since the last call; its HTTP requests are kept in `requests`."""
        new = [json.loads(message) for message in self.venue.data_to_send()]
        self.asked += new
        self.held += new
        requests = self.venue.http_requests()
        self.requests += requests
        self.urls += [request.url for request in requests]
        return new

    def serve(self) -> None:
        """Answer everything, and what follows from the answers; the gathering of topics is waited for."""
        for _ in range(50):
            self.collect()
            if not self.held and not self.requests:
                deadline = self.venue.next_deadline
                if deadline is None or deadline > self.now + SECOND // 20:
                    return
                self.now = max(self.now, deadline)
                self.venue.timer(self.now)
                continue
            while self.requests:
                self.answer_page(self.requests.pop(0))
            while self.held:
                self.answer(self.held.pop(0))
        raise AssertionError("the venue goes on asking")

    def answer_page(self, request: HttpRequest) -> None:
        """The page Bybit gives."""
        query = parse_qs(urlsplit(request.url).query)
        rows = self.listings.get(query["baseCoin"][0], [])
        cursor = query.get("cursor", ["0"])[0].removeprefix("from ")
        start = int(cursor) if cursor.isdecimal() else 0
        end = start + min(self.page_rows, int(query["limit"][0]))
        following = f"from%20{end}" if end < len(rows) else ""
        self.http(request, 200, page(rows[start:end], following, self.ms))

    def http(self, request: HttpRequest, status: int, body: bytes) -> None:
        """An answer to a request."""
        self.venue.receive_http(request.key, status, body, self.now)

    def answer(self, command: Row) -> None:
        """What Bybit answers to a command, and the snapshots that follow."""
        if command["op"] == "ping":
            if not self.is_dumb:
                self.say(json.dumps({"args": [str(self.ms)], "op": "pong"}).encode())
            return
        good = [topic for topic in command["args"] if topic not in self.refused]
        self.say(acknowledgement(good, [topic for topic in command["args"] if topic in self.refused]))
        if command["op"] == "unsubscribe":
            for topic in good:
                self.subscribed.pop(topic, None)
            return
        self.subscribed.update(dict.fromkeys(good))
        for topic in good:
            self.snapshot(topic)

    def snapshot(self, topic: str) -> None:
        """What a topic begins with."""
        kind, _, rest = topic.partition(".")
        if topic in self.silent or kind == "publicTrade":
            return
        if kind == "tickers":
            self.say(ticker(rest, self.ms))
        else:
            self._u += 100
            self.say(book(rest.partition(".")[2], self._u, [["2740", "1.5"]], [["2785", "3.25"]], "snapshot", self.ms))

    def say(self, *messages: bytes) -> None:
        """Send messages."""
        for message in messages:
            self.venue.receive(message, self.now)

    def wait(
        self,
        seconds: float,
        *,
        serve: bool = True,
        quiet: tuple[str, ...] = (),
        step: float = 0.5,
        every: float = 0.0,
    ) -> None:
        """Let time pass, with a ticker on every topic but `quiet` ones at each step, and the timer when it asks to be called."""
        end = self.now + round(seconds * SECOND)
        due = self.now
        while self.now < end:
            deadline = self.venue.next_deadline or end
            self.now = min(end, max(self.now + 1, min(deadline, self.now + round(step * SECOND))))
            speaks = serve and self.now >= due
            due = self.now + round(every * SECOND) if speaks else due
            for topic in self.subscribed if speaks else ():
                if topic.startswith("tickers.") and topic not in quiet and topic not in self.silent:
                    self.say(ticker(topic[8:], self.ms))
            self.venue.timer(self.now)
            if serve:
                self.serve()

    def idle(self, seconds: float) -> None:
        """Let time pass in which only pings are answered; what is asked meanwhile stays in `requests` and `held`."""
        end = self.now + round(seconds * SECOND)
        while self.now < end:
            deadline = self.venue.next_deadline or end
            self.now = min(end, max(self.now + 1, deadline))
            self.venue.timer(self.now)
            self.collect()
            for command in [command for command in self.held if command["op"] == "ping"]:
                self.held.remove(command)
                self.answer(command)

    def events(self) -> list[Event]:
        """Events since the last call."""
        return self.venue.events()

    def health(self, *kinds: Health) -> list[HealthEvent]:
        """Health events since the last call, of some kinds."""
        return [e for e in self.venue.events() if isinstance(e, HealthEvent) and (not kinds or e.kind in kinds)]


def ready(*underlyings: str, **options: Any) -> Server:
    """A connection that has everything, with nothing left to read."""
    server = Server(Bybit(underlyings or ("BTC",), **options)).connect()
    assert server.venue.is_ready
    server.events()
    server.venue.take_quotes(server.now)
    return server
