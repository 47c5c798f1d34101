"""Deribit messages of the project's own making, and a hand-driven server's side of one connection."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from volsurf.feeds._deribit_names import parse_symbol
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.protocol import Event, Health, HealthEvent

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
"""2027-01-15 08:00:00 UTC"""
START_MS = START // 1_000_000

BTC_OPTIONS = ("BTC-26MAR27-80000-C", "BTC-26MAR27-80000-P", "BTC-25JUN27-100000-C", "BTC-16JAN27-75000-P")
SOL_OPTIONS = ("SOL_USDC-29JAN27-120-C", "SOL_USDC-29JAN27-0d625-P")
BTC_FUTURES = ("BTC-26MAR27", "BTC-PERPETUAL")

Row = dict[str, Any]


def option_row(name: str, **changes: Any) -> Row:
    """A row of `get_instruments`, as listings of 2026 have it."""
    said = parse_symbol(name)
    assert said is not None, name
    base, _, quote = said.market.partition("_")
    row: Row = {
        "state": "open",
        "price_index": f"{base}_{quote or 'usd'}".lower(),
        "kind": "option",
        "instrument_name": name,
        "instrument_type": "linear" if quote else "reversed",
        "expiration_timestamp": said.expiry_ns // 1_000_000,
        "creation_timestamp": START_MS - 10**9,
        "is_active": True,
        "contract_size": 10 if quote else 1.0,
        "tick_size": 0.01 if quote else 0.0001,
        "tick_size_steps": [] if quote else [{"tick_size": 0.0005, "above_price": 0.005}],
        "strike": said.strike,
        "option_type": "call" if said.is_call else "put",
        "base_currency": base,
        "quote_currency": quote or base,
        "settlement_currency": quote or base,
        "counter_currency": quote or "USD",
        "settlement_period": "month",
        "a_key_of_tomorrow": {"any": ["thing"]},
    }
    return row | changes


def future_row(name: str, expiry_ms: int = START_MS + 70 * 86_400_000, **changes: Any) -> Row:
    """A dated future or perpetual."""
    base, _, quote = name.partition("-")[0].partition("_")
    perpetual = name.endswith("PERPETUAL")
    row: Row = {
        "state": "open",
        "price_index": f"{base}_{quote or 'usd'}".lower(),
        "kind": "future",
        "instrument_name": name,
        "instrument_type": "linear" if quote else "reversed",
        "expiration_timestamp": 32503708800000 if perpetual else expiry_ms,
        "is_active": True,
        "contract_size": 0.1 if quote else 10.0,
        "tick_size": 0.5,
        "tick_size_steps": [],
        "base_currency": base,
        "quote_currency": quote or "USD",
        "settlement_currency": quote or base,
        "settlement_period": "perpetual" if perpetual else "month",
    }
    return row | changes


def notification(channel: str, data: Any) -> bytes:
    """A push, with keys in the order of the captures."""
    params = {"channel": channel, "data": data}
    return json.dumps({"jsonrpc": "2.0", "method": "subscription", "params": params}, separators=(",", ":")).encode()


def ticker_data(name: str, **changes: Any) -> Row:
    """The object of a ticker."""
    data: Row = {
        "timestamp": START_MS,
        "state": "open",
        "stats": {"high": None, "low": 0.0065, "price_change": -38.6792, "volume": 1555.0, "volume_usd": 1268694.68},
        "greeks": {"delta": 0.47736, "gamma": 2.8e-4, "vega": 18.43602, "theta": -217.49347, "rho": 1.31068},
        "index_price": 76900.24,
        "instrument_name": name,
        "last_price": 0.0065,
        "settlement_price": 0.00897474,
        "min_price": 0.0001,
        "max_price": 0.0365,
        "open_interest": 534.4,
        "mark_price": 0.0069,
        "interest_rate": 0.0,
        "estimated_delivery_price": 76900.24,
        "best_ask_price": 0.0075,
        "best_bid_price": 0.0065,
        "mark_iv": 31.2,
        "bid_iv": 29.57,
        "ask_iv": 33.74,
        "underlying_price": 76904.4,
        "underlying_index": "BTC-26MAR27",
        "best_ask_amount": 10.0,
        "best_bid_amount": 20.0,
    }
    return data | changes


def ticker(name: str, interval: str = "100ms", **changes: Any) -> bytes:
    """A ticker's message."""
    return notification(f"ticker.{name}.{interval}", ticker_data(name, **changes))


def index_price(name: str, price: float, timestamp: int = START_MS) -> bytes:
    """An index price's message."""
    data = {"timestamp": timestamp, "price": price, "index_name": name}
    return notification(f"deribit_price_index.{name}", data)


def state_change(name: str, state: str, kind: str = "option", currency: str = "BTC") -> bytes:
    """A change of an instrument's state."""
    data = {"timestamp": START_MS, "state": state, "instrument_name": name}
    return notification(f"instrument.state.{kind}.{currency}", data)


TEST_REQUEST = b'{"params":{"type":"test_request"},"method":"heartbeat","jsonrpc":"2.0"}'
HEARTBEAT = b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"heartbeat"}}'


class Server:
    """Deribit's side of one connection, answering when told to, under a clock moved by hand.

    Attributes:
        listings: `(currency, kind)` → rows. unknown: channels left out of acknowledgements.
        asked: every request received so far. held: requests received and not answered yet.
    """

    def __init__(self, venue: Deribit, listings: dict[tuple[str, str], list[Row]] | None = None) -> None:
        self.venue = venue
        self.now = START
        self.listings = standard_listings() if listings is None else listings
        self.unknown: set[str] = set()
        self.asked: list[Row] = []
        self.held: list[Row] = []
        self.seen: list[Event] = []

    def connect(self) -> Server:
        """Open the socket and answer until nothing more is asked."""
        self.venue.connected(self.now)
        self.serve()
        return self

    def collect(self) -> list[Row]:
        """Requests the venue has sent since the last call."""
        new = [json.loads(message) for message in self.venue.data_to_send()]
        self.asked += new
        self.held += new
        return new

    def serve(self) -> None:
        """Answer everything, and what follows from the answers without waiting."""
        self.collect()
        while self.held:
            self.answer(self.held.pop(0))
            self.collect()

    def answer(self, request: Row) -> None:
        """The answer Deribit gives."""
        result: Any = "ok"
        if request["method"] == "public/get_instruments":
            key = (request["params"]["currency"], request["params"]["kind"])
            result = self.listings.get(key, [])
        elif "channels" in request["params"]:
            result = [channel for channel in request["params"]["channels"] if channel not in self.unknown]
        self.reply(request["id"], result)

    def reply(self, number: Any, result: Any) -> None:
        """Send a result."""
        us = self.now // 1000
        body = {"jsonrpc": "2.0", "id": number, "result": result, "usIn": us, "usOut": us, "usDiff": 0, "testnet": True}
        self.say(json.dumps(body).encode())

    def error(self, number: Any, code: int, message: str, data: Any = None) -> None:
        """Send an error."""
        error = {"code": code, "message": message} | ({} if data is None else {"data": data})
        self.say(json.dumps({"jsonrpc": "2.0", "id": number, "error": error, "usOut": self.now // 1000}).encode())

    def say(self, *messages: bytes) -> None:
        """Send messages."""
        for message in messages:
            self.venue.receive(message, self.now)

    def wait(
        self, seconds: float, *, serve: bool = True, tell: Iterable[str] = ("btc_usd",), step: float = 0.5
    ) -> None:
        """Let time pass, an index price and a heartbeat twice a second, the timer called when it asks to be."""
        end = self.now + round(seconds * SECOND)
        while self.now < end:
            deadline = self.venue.next_deadline or end
            self.now = min(end, max(self.now + 1, min(deadline, self.now + round(step * SECOND))))
            for name in tell:
                self.say(index_price(name, 76900.0, self.now // 1_000_000), HEARTBEAT)
            self.venue.timer(self.now)
            if serve:
                self.serve()

    def events(self) -> list[Event]:
        """Events since the last call."""
        return self.venue.events()

    def health(self, *kinds: Health) -> list[HealthEvent]:
        """Health events since the last call, of some kinds."""
        return [e for e in self.venue.events() if isinstance(e, HealthEvent) and (not kinds or e.kind in kinds)]


def standard_listings() -> dict[tuple[str, str], list[Row]]:
    """A small market: four BTC options, their future and perpetual, two SOL_USDC options and some that were not asked for."""
    return {
        ("BTC", "option"): [option_row(name) for name in BTC_OPTIONS],
        ("BTC", "future"): [future_row("BTC-26MAR27", expiry_ms=1_806_048_000_000), future_row("BTC-PERPETUAL")],
        ("USDC", "option"): [option_row(n) for n in (*SOL_OPTIONS, "XRP_USDC-29JAN27-1d25-C")],
        ("USDC", "future"): [future_row("SOL_USDC-PERPETUAL"), future_row("XRP_USDC-PERPETUAL")],
    }


def ready(*underlyings: str, **options: bool) -> Server:
    """A connection that has everything, with nothing left to read."""
    server = Server(Deribit(underlyings or ("BTC",), **options)).connect()
    assert server.venue.is_ready
    server.events()
    server.venue.take_quotes(server.now)
    return server


def let_pass(server: Server, seconds: float, step: float = 0.25) -> None:
    """Time without a word from the server."""
    server.wait(seconds, serve=False, tell=(), step=step)
    server.collect()
