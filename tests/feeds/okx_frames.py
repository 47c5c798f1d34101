"""OKX messages of the project's own making, and a hand-driven server's side of one connection."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from volsurf.feeds._okx_names import parse_future, parse_symbol
from volsurf.feeds.okx import Okx
from volsurf.feeds.protocol import Event, Health, HealthEvent, HttpRequest

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
"""2027-01-15 08:00:00 UTC"""
START_MS = START // 1_000_000

COIN_OPTIONS = (
    "BTC-USD-270326-80000-C",
    "BTC-USD-270326-80000-P",
    "BTC-USD-270625-100000-C",
    "BTC-USD-270116-75000-P",
)
DOLLAR_OPTIONS = ("BTC-USD_UM-270326-80000-C", "BTC-USD_UM-270326-80000-P")
FUTURES = ("BTC-USD-270326", "BTC-USD-SWAP", "BTC-USD_UM-SWAP")
OTHERS = ("ETH-USD-270326-4000-C",)

Row = dict[str, Any]


def instrument_row(name: str, **changes: Any) -> Row:
    """A row of the `instruments` page, as listings of 2026 have it."""
    option, future = parse_symbol(name), parse_future(name)
    said = option or future
    assert said is not None, name
    family, inverse = said.family, said.family.quote == "USD"
    in_dollars = inverse and option is None
    kind = "OPTION" if option else "FUTURES" if said.expiry_ns else "SWAP"
    row: Row = {
        "alias": "",
        "ctMult": "0.01" if option else "1",
        "ctType": "inverse" if inverse else "linear",
        "ctVal": "100" if in_dollars else "1",
        "ctValCcy": "USD" if in_dollars else family.base,
        "expTime": str(said.expiry_ns // 1_000_000) if said.expiry_ns else "",
        "instFamily": family.name,
        "instId": name,
        "instIdCode": 7,
        "instType": kind,
        "listTime": str(START_MS - 10**9),
        "lotSz": "1",
        "minSz": "1",
        "optType": ("C" if option.is_call else "P") if option else "",
        "settleCcy": family.base if inverse else family.currency,
        "state": "live",
        "stk": f"{option.strike:g}" if option else "",
        "tickSz": ("0.0001" if inverse else "1") if option else "0.1",
        "uly": family.uly,
        "a_key_of_tomorrow": [{"any": "thing"}],
    }
    if option:
        row["stk"] = name.split("-")[-2]
    return row | changes


BANDS: list[Row] = [
    {
        "instFamily": "BTC-USD_UM",
        "instType": "OPTION",
        "tickBand": [
            {"maxPx": "5", "minPx": "0", "tickSz": "1"},
            {"maxPx": "150000", "minPx": "0.005", "tickSz": "5"},
        ],
    },
    {
        "instFamily": "BTC-USD",
        "instType": "OPTION",
        "tickBand": [
            {"maxPx": "0.005", "minPx": "0", "tickSz": "0.0001"},
            {"maxPx": "10000000", "minPx": "0.005", "tickSz": "0.0005"},
        ],
    },
    {"instFamily": "ETH-USD", "instType": "OPTION", "tickBand": [{"maxPx": "1", "minPx": "0", "tickSz": "0.0002"}]},
]


def push(arg: Row, data: Any, **rest: Any) -> bytes:
    """A push, with keys in the order of the captures."""
    return json.dumps({"arg": arg, **rest, "data": data}, separators=(",", ":")).encode()


def bbo(name: str, bid: Any = ("0.0065", "200"), ask: Any = ("0.0075", "100"), **changes: Any) -> bytes:
    """A best bid and ask in contracts; None for an empty side."""
    sides = {"asks": [[*ask, "0", "3"]] if ask else [], "bids": [[*bid, "0", "1"]] if bid else []}
    data = {**sides, "ts": str(START_MS), "seqId": 4153112115} | changes
    return push({"channel": "bbo-tbt", "instId": name}, [data])


def ticker(name: str, **changes: Any) -> bytes:
    """A `tickers` push."""
    data: Row = {
        "instType": "OPTION",
        "instId": name,
        "last": "0.006",
        "lastSz": "2",
        "askPx": "0.0075",
        "askSz": "100",
        "bidPx": "0.0065",
        "bidSz": "200",
        "open24h": "0.006",
        "high24h": "0.006",
        "low24h": "0.006",
        "sodUtc0": "0.006",
        "sodUtc8": "0.006",
        "volCcy24h": "0",
        "vol24h": "0",
        "ts": str(START_MS),
    }
    return push({"channel": "tickers", "instId": name}, [data | changes])


def summary_row(name: str, **changes: Any) -> Row:
    """A row of `opt-summary`."""
    said = parse_symbol(name)
    assert said is not None, name
    row: Row = {
        "instType": "OPTION",
        "instId": name,
        "uly": said.family.uly,
        "delta": "0.3421194963",
        "gamma": "2.2156101959",
        "vega": "0.0010549466",
        "theta": "-0.0008721388",
        "lever": "32",
        "markVol": "0.4686517873",
        "bidVol": "0.4647917852",
        "askVol": "0.469674588",
        "realVol": "",
        "deltaBS": "0.373516991",
        "gammaBS": "0.0000768666",
        "thetaBS": "-36.5170251108",
        "vegaBS": "39.7986007518",
        "ts": str(START_MS),
        "fwdPx": "76904.372899316",
        "volLv": "0.4535749446",
    }
    return row | changes


def summary(*rows: Row, family: str = "BTC-USD") -> bytes:
    """An `opt-summary` push."""
    return push({"channel": "opt-summary", "instFamily": family}, list(rows))


def index(name: str, price: float | str, time_ms: int = START_MS) -> bytes:
    """An index price."""
    data = {"instId": name, "idxPx": str(price), "high24h": "1", "low24h": "1", "open24h": "1", "ts": str(time_ms)}
    return push({"channel": "index-tickers", "instId": name}, [data])


def book(name: str, seq: int, prev: int | None, bids: Any = (), asks: Any = (), action: str = "") -> bytes:
    """A message of `books`; of `books5` where there is no number before."""
    levels = {"asks": [[*a, "0", "1"] for a in asks], "bids": [[*b, "0", "1"] for b in bids]}
    if prev is None:
        return push({"channel": "books5", "instId": name}, [{**levels, "ts": str(START_MS), "seqId": seq}])
    data = {**levels, "ts": str(START_MS), "checksum": 0, "prevSeqId": prev, "seqId": seq}
    action = action or ("snapshot" if prev == -1 else "update")
    return push({"channel": "books", "instId": name}, [data], action=action)


def instruments(*rows: Row) -> bytes:
    """A push of the `instruments` channel."""
    return push({"channel": "instruments", "instType": rows[0]["instType"]}, list(rows))


NOTICE = (
    b'{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. '
    b'Please reconnect.","connId":"a4d3ae55"}'
)


class Server:
    """OKX's side of one connection, answering when told to, under a clock moved by hand.

    Attributes:
        rows: what is listed. bands: ticks. unknown: names the venue has no channels of.
        asked: every websocket request so far. held: those not answered yet. pages: every HTTP request so far.
    """

    def __init__(self, venue: Okx, rows: list[Row] | None = None, bands: list[Row] | None = None) -> None:
        self.venue = venue
        self.now = START
        self.rows = standard_rows() if rows is None else rows
        self.bands = BANDS if bands is None else bands
        self.unknown: set[str] = set()
        self.asked: list[Row] = []
        self.held: list[Row] = []
        self.pages: list[HttpRequest] = []
        self.unread: list[HttpRequest] = []

    def connect(self) -> Server:
        """Open the socket and answer until nothing more is asked."""
        self.venue.connected(self.now)
        self.serve()
        return self

    def collect(self) -> list[Row]:
        """Requests the venue has sent since the last call; `ping` becomes `{"op": "ping"}`."""
        sent = [m if m != b"ping" else b'{"op":"ping"}' for m in self.venue.data_to_send()]
        new = [json.loads(message) for message in sent]
        self.asked += new
        self.held += new
        pages = self.venue.http_requests()
        self.pages += pages
        self.unread += pages
        return new

    def serve(self) -> None:
        """Answer everything, and what follows from the answers without waiting."""
        self.collect()
        while self.held or self.unread:
            while self.unread:
                self.answer_page(self.unread.pop(0))
            while self.held:
                self.answer(self.held.pop(0))
            self.collect()

    def answer(self, request: Row) -> None:
        """The answers OKX gives."""
        if request["op"] == "ping":
            self.say(b"pong")
            return
        for arg in request["args"]:
            name = arg.get("instId") or arg.get("instFamily") or arg.get("instType")
            if name in self.unknown and request["op"] == "subscribe":
                said = ",".join(f"{key}:{value}" for key, value in arg.items())
                self.error(request["id"], "60018", f"Wrong URL or {said} doesn't exist. Please use the correct URL")
            else:
                self.event({"id": request["id"], "event": request["op"], "arg": arg, "connId": "a4d3ae55"})

    def page(self, request: HttpRequest) -> Row:
        """The body of a page."""
        target = urlsplit(request.url)
        query = dict(parse_qsl(target.query))
        if target.path.endswith("tick-bands"):
            return {"code": "0", "msg": "", "data": self.bands}
        assert target.path == "/api/v5/public/instruments"
        rows = [r for r in self.rows if (r["instType"], r["uly"]) == (query["instType"], query["uly"])]
        return {"code": "0", "msg": "", "data": rows}

    def answer_page(self, request: HttpRequest) -> None:
        """Answer one page."""
        self.venue.receive_http(request.key, 200, json.dumps(self.page(request)).encode(), self.now)

    def event(self, body: Row) -> None:
        """Send an event."""
        self.say(json.dumps(body, separators=(",", ":")).encode())

    def error(self, number: Any, code: str, message: str) -> None:
        """Send an error."""
        self.event({"id": number, "event": "error", "code": code, "msg": message, "connId": "a4d3ae55"})

    def say(self, *messages: bytes) -> None:
        """Send messages."""
        for message in messages:
            self.venue.receive(message, self.now)

    def wait(
        self, seconds: float, *, serve: bool = True, tell: Iterable[str] = ("BTC-USD",), step: float = 0.5
    ) -> None:
        """Let time pass, an index price twice a second, the timer called when it asks to be."""
        end = self.now + round(seconds * SECOND)
        while self.now < end:
            deadline = self.venue.next_deadline or end
            self.now = min(end, max(self.now + 1, min(deadline, self.now + round(step * SECOND))))
            for name in tell:
                self.say(index(name, 76900.0, self.now // 1_000_000))
            self.venue.timer(self.now)
            if serve:
                self.serve()

    def health(self, *kinds: Health) -> list[HealthEvent]:
        """Health events since the last call, of some kinds."""
        return [e for e in self.venue.events() if isinstance(e, HealthEvent) and (not kinds or e.kind in kinds)]

    def events(self) -> list[Event]:
        """Events since the last call."""
        return self.venue.events()

    def values(self, *names: str) -> dict[str, dict[str, float]]:
        """Columns of the next batch by symbol."""
        batch = self.venue.take_quotes(self.now)
        found: dict[str, dict[str, float]] = {}
        for i in range(0 if batch is None else len(batch)):
            assert batch is not None
            columns = {name: getattr(batch, name)[i].item() for name in batch.__slots__[3:]}
            found[self.venue.universe[columns.pop("instrument_id")].symbol] = columns
        return {name: found[name] for name in names} if names else found


def standard_rows() -> list[Row]:
    """A small market: four coin options, two dollar ones, futures and swaps, and an Ether option that was not asked for."""
    return [instrument_row(name) for name in (*COIN_OPTIONS, *DOLLAR_OPTIONS, *FUTURES, *OTHERS)]


def ready(*underlyings: str, rows: list[Row] | None = None, **options: Any) -> Server:
    """A connection that has everything, with nothing left to read."""
    server = Server(Okx(underlyings or ("BTC",), url="ws://okx.test/ws/v5/public", **options), rows).connect()
    assert server.venue.is_ready, (server.venue.failure, server.health())
    server.events()
    server.venue.take_quotes(server.now)
    server.collect()
    return server


def let_pass(server: Server, seconds: float, step: float = 0.25) -> None:
    """Time without a word from the server."""
    server.wait(seconds, serve=False, tell=(), step=step)
    server.collect()
