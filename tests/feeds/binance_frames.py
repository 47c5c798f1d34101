"""Binance messages of the project's own making, and a hand-driven venue's side of a group of connections."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from volsurf.feeds._binance_names import parse_symbol
from volsurf.feeds.binance import Binance, make
from volsurf.feeds.protocol import Event, Health, HealthEvent, HttpRequest
from volsurf.quotes import QuoteBatch

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
"""2027-01-15 08:00:00 UTC"""
START_MS = START // 1_000_000

BTC_OPTIONS = ("BTC-270326-80000-C", "BTC-270326-80000-P", "BTC-270625-100000-C", "BTC-270116-75000-P")
XRP_OPTIONS = ("XRP-270326-1.25-C", "XRP-270326-1.25-P")
UNITS = {"BTC": 1, "ETH": 1, "XRP": 100, "DOGE": 1000}
SPOT = {"BTCUSDT": 81_000.0, "ETHUSDT": 2_500.0, "XRPUSDT": 1.25, "DOGEUSDT": 0.2}

Row = dict[str, Any]


def listing(name: str, **changes: Any) -> Row:
    """A row of `optionSymbols`."""
    said = parse_symbol(name)
    assert said is not None, name
    unit = UNITS[said.base]
    row: Row = {
        "symbol": name,
        "side": "CALL" if said.is_call else "PUT",
        "strikePrice": f"{said.strike:.8f}",
        "underlying": said.base + "USDT",
        "unit": unit,
        "expiryDate": said.expiry_ns // 1_000_000,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": "5",
                "maxPrice": "90000",
                "tickSize": "5.000" if unit == 1 else "0.01",
            },
            {"filterType": "LOT_SIZE", "minQty": "0.01", "maxQty": "1000", "stepSize": "0.01"},
        ],
        "minQty": "0.01",
        "priceScale": 3,
        "quantityScale": 2,
        "quoteAsset": "USDT",
        "status": "TRADING",
        "aKeyOfTomorrow": {"any": ["thing"]},
    }
    return row | changes


def exchange_info(rows: Iterable[Row], server_ms: int = START_MS) -> bytes:
    """The body of `exchangeInfo`."""
    rows = list(rows)
    pairs = dict.fromkeys(row["underlying"] for row in rows)
    contracts = [
        {"baseAsset": pair[:-4], "quoteAsset": "USDT", "underlying": pair, "settleAsset": "USDT"} for pair in pairs
    ]
    limits = [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400},
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
    ]
    body = {"timezone": "UTC", "serverTime": server_ms, "optionContracts": contracts, "optionSymbols": rows}
    return json.dumps(body | {"rateLimits": limits, "optionAssets": []}).encode()


def combined(stream: str, data: Any) -> bytes:
    """A message of a combined stream, with keys in the order of the captures."""
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()


def mark_row(name: str, time_ms: int = START_MS, **changes: Any) -> Row:
    """A row of `optionMarkPrice`."""
    row: Row = {
        "s": name,
        "mp": "6150.000",
        "E": time_ms,
        "e": "markPrice",
        "i": "81000.00000000",
        "P": "0.000",
        "bo": "6100.000",
        "ao": "6200.000",
        "bq": "2.25",
        "aq": "5.44",
        "b": "0.44120000",
        "a": "0.44910000",
        "hl": "11000.000",
        "ll": "1200.000",
        "vo": "0.445",
        "rf": "0.05",
        "d": "0.56100000",
        "t": "-42.1",
        "g": "0.00002",
        "v": "140.2",
    }
    return row | changes


def marks(*rows: Row, pair: str = "BTCUSDT") -> bytes:
    """A chain's message."""
    return combined(f"{pair.lower()}@optionMarkPrice", list(rows))


def book_ticker(name: str, time_ms: int = START_MS, update: int = 39_000_000_001, **changes: Any) -> bytes:
    """A best bid and ask."""
    data = {"e": "bookTicker", "u": update, "s": name, "b": "6105.000", "B": "1.10", "a": "6195.000", "A": "0.50"}
    return combined(f"{name.lower()}@bookTicker", data | {"T": time_ms, "E": time_ms} | changes)


def index(time_ms: int = START_MS, **prices: str) -> bytes:
    """Index prices; of BTCUSDT where nothing else is said."""
    rows = [{"e": "indexPrice", "E": time_ms, "s": s, "p": p} for s, p in (prices or {"BTCUSDT": "81000.0"}).items()]
    return combined("!index@arr", rows)


def depth(name: str, first: int, last: int, previous: int, bids: Any = (), asks: Any = (), stream: str = "") -> bytes:
    """Changes of a book."""
    data = {
        "e": "depthUpdate",
        "E": START_MS + 5,
        "T": START_MS,
        "s": name,
        "U": first,
        "u": last,
        "pu": previous,
        "b": [list(level) for level in bids],
        "a": [list(level) for level in asks],
    }
    return combined(f"{name.lower()}@{stream or 'depth@100ms'}", data)


def snapshot(last: int, bids: Any = (("6100", "2"),), asks: Any = (("6200", "1"),)) -> bytes:
    """The body of `depth`."""
    return json.dumps({"bids": list(bids), "asks": list(asks), "T": START_MS, "lastUpdateId": last}).encode()


def trade(name: str, stream: str = "btcusdt@optionTrade", **changes: Any) -> bytes:
    """A trade."""
    data = {"e": "trade", "E": START_MS + 3, "T": START_MS + 2, "s": name, "t": 7, "p": "6150.000", "q": "0.50"}
    return combined(stream, data | {"X": "MARKET", "S": "BUY", "m": False} | changes)


class Desk:
    """Binance's side of the connections of one group, answering when told to, under a clock moved by hand.

    Attributes:
        listed: rows of `exchangeInfo`. spot: index prices over HTTP. books: symbol → body of its snapshot.
        refused: streams whose subscription is answered with an error. status: of every page, where it is not 200.
        sent: requests on the sockets by member. pages: HTTP requests so far.
    """

    def __init__(
        self, underlyings: Sequence[str] = ("BTC",), listed: Iterable[Row] | None = None, **options: Any
    ) -> None:
        made = make(list(underlyings), **options)
        self.venues: list[Binance] = [venue for venue in made if isinstance(venue, Binance)]
        assert len(self.venues) == len(made)
        self.now = START
        self.listed = [listing(name) for name in BTC_OPTIONS] if listed is None else list(listed)
        self.spot = dict(SPOT)
        self.books: dict[str, bytes] = {}
        self.refused: set[str] = set()
        self.status: tuple[int, bytes] | None = None
        self.sent: list[list[Row]] = [[] for _ in self.venues]
        self.pages: list[HttpRequest] = []
        self.held: list[tuple[int, HttpRequest]] = []

    @property
    def market(self) -> Binance:
        """The connection of the route `/market`."""
        return self.venues[0]

    def connect(self, *members: int) -> Desk:
        """Open sockets and answer until nothing more is asked."""
        for member in members or range(len(self.venues)):
            self.venues[member].connected(self.now)
        self.serve()
        return self

    def serve(self) -> None:
        """Answer everything that may be asked now, and what follows from the answers."""
        busy = True
        while busy:
            busy = False
            for member, venue in enumerate(self.venues):
                self.collect(member)
                for request in self.take_held(member):
                    busy = True
                    self.answer_page(member, request)
                for request in self.unanswered(member):
                    busy = True
                    self.answer(member, request)
                if (deadline := venue.next_deadline) is not None and deadline <= self.now:
                    busy = True
                    venue.timer(self.now)

    def collect(self, member: int) -> None:
        """Take what a connection wants to send and to ask for."""
        self.sent[member] += [json.loads(message) for message in self.venues[member].data_to_send()]
        for request in self.venues[member].http_requests():
            self.pages.append(request)
            self.held.append((member, request))

    def take_held(self, member: int) -> list[HttpRequest]:
        """HTTP requests of a connection that have no answer yet."""
        mine = [request for number, request in self.held if number == member]
        self.held = [(number, request) for number, request in self.held if number != member]
        return mine

    def unanswered(self, member: int) -> list[Row]:
        """Requests on a socket that have no answer yet."""
        waiting = [request for request in self.sent[member] if not request.get("answered")]
        for request in waiting:
            request["answered"] = True
        return waiting

    def answer(self, member: int, request: Row) -> None:
        """The answer Binance gives on a socket."""
        bad = [stream for stream in request.get("params", ()) if stream in self.refused]
        if request["method"] == "SUBSCRIBE" and bad:
            reply: Row = {"code": 2, "msg": "Invalid request: no such thing", "id": request["id"]}
        else:
            reply = {"result": None if request["method"] != "LIST_SUBSCRIPTIONS" else [], "id": request["id"]}
        self.say(json.dumps(reply).encode(), member=member)

    def answer_page(self, member: int, request: HttpRequest) -> None:
        """The page Binance serves."""
        path, _, query = request.url.partition("/eapi/v1/")[2].partition("?")
        status, body = self.status or (200, b"{}")
        if self.status is None:
            values = dict(part.split("=") for part in query.split("&")) if query else {}
            if path == "exchangeInfo":
                body = exchange_info(self.listed, self.now // 1_000_000)
            elif path == "index" and values["underlying"] not in self.spot:
                status, body = 400, b'{"code":-1121,"msg":"Invalid symbol."}'
            elif path == "index":
                body = json.dumps({"time": START_MS, "indexPrice": str(self.spot[values["underlying"]])}).encode()
            elif path == "depth":
                body = self.books.get(values["symbol"], snapshot(1000))
        self.venues[member].receive_http(request.key, status, body, self.now)

    def say(self, *messages: bytes, member: int = 0) -> None:
        """Send messages on one connection."""
        for message in messages:
            self.venues[member].receive(message, self.now)

    def wait(self, seconds: float, *, tell: bool = True, serve: bool = True, step: float = 0.5) -> None:
        """Let time pass, chains and index prices told on `/market` if so wished, the timers called when they ask to be."""
        end = self.now + round(seconds * SECOND)
        while self.now < end:
            deadlines = [d for venue in self.venues if (d := venue.next_deadline) is not None]
            self.now = min(end, max(self.now + 1, min([*deadlines, self.now + round(step * SECOND)])))
            if tell and self.market.is_ready:
                self.tell()
            for venue in self.venues:
                venue.timer(self.now)
            if serve:
                self.serve()
            else:
                for member in range(len(self.venues)):
                    self.collect(member)

    def tell(self) -> None:
        """One second's messages on `/market`."""
        time_ms = self.now // 1_000_000
        pairs = dict.fromkeys(row["underlying"] for row in self.listed)
        self.say(index(time_ms, **{pair: str(self.spot[pair]) for pair in pairs}))
        for pair in pairs:
            names = [row["symbol"] for row in self.listed if row["underlying"] == pair]
            self.say(marks(*(mark_row(name, time_ms) for name in names), pair=pair))

    def take(self, member: int = 0) -> dict[str, dict[str, float]]:
        """The next batch of a connection by symbol; of two rows of one the later."""
        batch = self.venues[member].take_quotes(self.now)
        return columns(self.venues[member], batch)

    def events(self, member: int = 0) -> list[Event]:
        """Events of a connection since the last call."""
        return self.venues[member].events()

    def health(self, *kinds: Health, member: int = 0) -> list[HealthEvent]:
        """Its health events, of some kinds."""
        return [e for e in self.events(member) if isinstance(e, HealthEvent) and (not kinds or e.kind in kinds)]


def columns(venue: Binance, batch: QuoteBatch | None) -> dict[str, dict[str, float]]:
    """A batch by symbol."""
    found: dict[str, dict[str, float]] = {}
    for row in range(0 if batch is None else len(batch)):
        assert batch is not None
        values = {name: getattr(batch, name)[row].item() for name in batch.__slots__[3:]}
        found[venue.universe[values.pop("instrument_id")].symbol] = values
    return found


def ready(underlyings: Sequence[str] = ("BTC",), **options: Any) -> Desk:
    """A group that has everything, with nothing left to read."""
    desk = Desk(underlyings, **options).connect()
    desk.wait(0.5, tell=False)
    for member, venue in enumerate(desk.venues):
        assert venue.is_ready, (member, venue)
        venue.events()
        venue.take_quotes(desk.now)
    return desk
