"""A local Deribit: what one client may ask of it and is told, and the server that puts it on a socket.

`DeribitSession` is free of I/O. The rules are those of Deribit's public API v2: JSON-RPC errors, 500 channels a message,
credits, heartbeats that end the connection when they are not answered, unknown channels left out of the acknowledgement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from volsurf.instruments import Kind
from volsurf.sim._deribit_channels import RAW, Channel, Feed, parse_channel, underlying_of_index
from volsurf.sim._deribit_listing import TERMS, expiry_code
from volsurf.sim._deribit_state import DeribitState
from volsurf.sim.burst import BurstBuffer
from volsurf.sim.exchange import Clock, Session, real_clock
from volsurf.sim.market import Market
from volsurf.sim.profiles import VenueProfile
from volsurf.sim.quoting import QuoteRules
from volsurf.sim.server import ExchangeServer

MAX_CHANNELS = 500
"""Of one subscribe message."""
SHORTEST_HEARTBEAT = 10
_SECOND = 1_000_000_000
_KINDS = {"option": (Kind.OPTION,), "future": (Kind.FUTURE, Kind.PERPETUAL)}
_NO_INSTRUMENTS = ("spot", "option_combo", "future_combo")


class RpcError(Exception):
    """A JSON-RPC error the client is answered with."""

    def __init__(self, code: int, message: str, **data: str) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


def _invalid(param: str, reason: str) -> RpcError:
    return RpcError(-32602, "Invalid params", reason=reason, param=param)


@dataclass(slots=True)
class Credits:
    """A pool of request credits that refills with time."""

    cost: float
    pool: float
    refill: float
    """Per second."""
    left: float
    at: int

    def spend(self, now: int) -> bool:
        """Pay for one request, if there is enough."""
        self.left = min(self.pool, self.left + self.refill * max(0, now - self.at) * 1e-9)
        self.at = now
        if self.left < self.cost:
            return False
        self.left -= self.cost
        return True


class DeribitSession(Session):
    """One client.

    Args:
        exchange: the venue.
        now: real time of the connection, ns.
        probe_seconds: if set, the period of test requests in place of the interval the client asks for; the venue itself
            takes no interval below 10 s.
    """

    def __init__(self, exchange: DeribitState, now: int, probe_seconds: float | None = None) -> None:
        super().__init__()
        self._exchange = exchange
        self._feeds: dict[str, Feed] = {}
        self._outbox: list[bytes] = []
        self._closing: tuple[int, str] | None = None
        self._probe_seconds = probe_seconds
        self._period = 0
        self._next_probe = 0
        self._unanswered = False
        self._overdue = False
        self._burst = BurstBuffer(exchange.market.seed)
        self._burst_version = -1
        self._subscriptions = Credits(3000, 30_000, 10_000, 30_000, now)
        self._discovery = Credits(1, 50, 1, 50, now)
        self._requests = Credits(500, 50_000, 10_000, 50_000, now)
        self._methods: dict[str, tuple[Callable[[dict[str, Any], int], object], Credits | None]] = {
            "public/test": (self._test, None),
            "public/hello": (self._test, None),
            "public/get_time": (self._get_time, self._requests),
            "public/status": (self._status, self._requests),
            "public/set_heartbeat": (self._set_heartbeat, self._requests),
            "public/disable_heartbeat": (self._disable_heartbeat, self._requests),
            "public/subscribe": (self._subscribe, self._subscriptions),
            "public/unsubscribe": (self._unsubscribe, self._subscriptions),
            "public/unsubscribe_all": (self._unsubscribe_all, self._subscriptions),
            "public/get_instruments": (self._get_instruments, self._discovery),
            "public/get_instrument": (self._get_instrument, self._requests),
            "public/get_expirations": (self._get_expirations, self._requests),
            "public/get_index_price": (self._get_index_price, self._requests),
            "public/ticker": (self._ticker, self._requests),
            "public/get_order_book": (self._get_order_book, self._requests),
        }

    def receive(self, data: str | bytes, now: int) -> None:
        """Answer one request."""
        if self._closing:
            return
        received_us = self._exchange.market_ns(now) // 1000
        reply: dict[str, Any] = {"jsonrpc": "2.0"}
        # What was subscribed speaks after the acknowledgement.
        joined: list[Feed] = []
        try:
            identifier, method, params = _parse_request(data, reply)
            if identifier is not None:
                reply["id"] = identifier
            reply["result"] = self._call(method, params, now, joined)
        except RpcError as error:
            reply["error"] = {"code": error.code, "message": error.message}
            if error.data:
                reply["error"]["data"] = error.data
            self._exchange.counters[f"error_{error.code}"] += 1
        took = 40 + len(data) // 16
        reply |= {"usIn": received_us, "usOut": received_us + took, "usDiff": took, "testnet": False}
        self._outbox.append(msgspec.json.encode(reply))
        self._outbox.extend(self._exchange.snapshots(joined, now))

    def timer(self, now: int) -> None:
        """Probe the client when it is time, and let go of one that did not answer the last probe."""
        if not self._period or now < self._next_probe or self._closing:
            return
        if self._unanswered and not self._overdue:
            # If this process was held up, the answer may be waiting in the socket: it has one more tick to be read.
            self._overdue = True
            self._next_probe = now + self._exchange.tick_ns
            return
        if self._unanswered:
            self._exchange.counters["heartbeats_missed"] += 1
            self._closing = (1008, "test_request was not answered")
            return
        self._next_probe = now + self._period
        self._unanswered = True
        self._exchange.counters["heartbeats_probed"] += 1
        for kind in ("heartbeat", "test_request"):
            self._outbox.append(
                msgspec.json.encode({"params": {"type": kind}, "method": "heartbeat", "jsonrpc": "2.0"})
            )

    def push(self, payload: bytes) -> None:
        """Queue a notification."""
        self._outbox.append(payload)

    def drop(self, channel: str) -> None:
        """End a subscription whose instrument is gone."""
        feed = self._feeds.pop(channel, None)
        if feed is not None:
            self._exchange.table.leave(feed, self)
            self._burst_version = -1

    def data_to_send(self) -> list[bytes]:
        """Everything queued since the last call."""
        payloads, self._outbox = self._outbox, []
        return payloads

    @property
    def closing(self) -> tuple[int, str] | None:
        """Why the venue ends this connection."""
        return self._closing

    @property
    def channels(self) -> list[str]:
        """What it is subscribed to, in order."""
        return list(self._feeds)

    def closed(self) -> None:
        """Leave every feed."""
        for channel in list(self._feeds):
            self.drop(channel)
        self._outbox.clear()

    def burst(self, messages: int, now: int) -> tuple[bytes, int]:
        """The client's `ticker.….100ms` messages, round and round."""
        self._load_burst()
        return self._burst.take(messages, self._exchange.market_ns(now) // 1_000_000)

    @property
    def burst_bytes(self) -> int:
        """Mean size of a ticker frame of this client."""
        self._load_burst()
        return self._burst.mean_bytes

    def _load_burst(self) -> None:
        if self._burst_version != self._exchange.stamped_version:
            self._burst_version = self._exchange.stamped_version
            stamped = self._exchange.stamped
            self._burst.load(
                [
                    stamped[feed.channel.row]
                    for feed in self._feeds.values()
                    if feed.channel.kind == "ticker"
                    and feed.channel.interval == "100ms"
                    and feed.channel.row in stamped
                ]
            )

    def _call(self, method: str, params: dict[str, Any], now: int, joined: list[Feed]) -> object:
        if method not in self._methods:
            if method.startswith("private/"):
                raise RpcError(13009, "unauthorized", reason="missing or invalid credentials")
            raise RpcError(-32601, "Method not found")
        handler, credits = self._methods[method]
        if method == "public/subscribe" and self.is_refused("subscribe"):
            raise RpcError(13028, "temporarily_unavailable")
        if credits is not None and (not credits.spend(now) or self.is_refused("rate_limit")):
            self._closing = (1008, "too_many_requests")
            raise RpcError(10028, "too_many_requests")
        result = handler(params, now)
        if method == "public/subscribe":
            joined.extend(self._feeds[name] for name in dict.fromkeys(params["channels"]) if name in self._feeds)
        return result

    def _test(self, params: dict[str, Any], now: int) -> object:
        if self._unanswered:
            self._exchange.counters["heartbeats_answered"] += 1
        if self._overdue:
            self._next_probe = now + self._period
        self._unanswered = self._overdue = False
        return {"version": "1.2.26"}

    def _get_time(self, params: dict[str, Any], now: int) -> object:
        return self._exchange.market_ns(now) // 1_000_000

    def _status(self, params: dict[str, Any], now: int) -> object:
        return {"locked": "true" if self._exchange.locked else "false"}

    def _set_heartbeat(self, params: dict[str, Any], now: int) -> object:
        interval = params.get("interval")
        if not isinstance(interval, int | float) or isinstance(interval, bool):
            raise _invalid("interval", "value required")
        if interval < SHORTEST_HEARTBEAT:
            raise _invalid("interval", f"value must be >= {SHORTEST_HEARTBEAT}")
        self._period = int((self._probe_seconds or interval) * _SECOND)
        self._next_probe = now + self._period
        self._unanswered = self._overdue = False
        return "ok"

    def _disable_heartbeat(self, params: dict[str, Any], now: int) -> object:
        self._period = 0
        return "ok"

    def _channels(self, params: dict[str, Any]) -> list[str]:
        names = params.get("channels")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _invalid("channels", "must be a list of strings")
        if len(names) > MAX_CHANNELS:
            raise _invalid("channels", f"number of channels must be <= {MAX_CHANNELS}")
        return list(dict.fromkeys(names))

    def _subscribe(self, params: dict[str, Any], now: int) -> object:
        found: list[Channel] = []
        for name in self._channels(params):
            channel = parse_channel(name, self._exchange.listing)
            if channel is not None and channel.interval == RAW:
                raise RpcError(13778, "raw_subscriptions_not_available_for_unauthorized")
            if channel is not None:
                found.append(channel)
        for channel in found:
            self._feeds[channel.name] = self._exchange.table.join(channel, self)
        self._burst_version = -1
        return [channel.name for channel in found]

    def _unsubscribe(self, params: dict[str, Any], now: int) -> object:
        left = [name for name in self._channels(params) if name in self._feeds]
        for name in left:
            self.drop(name)
        return left

    def _unsubscribe_all(self, params: dict[str, Any], now: int) -> object:
        for name in list(self._feeds):
            self.drop(name)
        return "ok"

    def _get_instruments(self, params: dict[str, Any], now: int) -> object:
        currency, kinds = self._currency(params), self._kinds(params)
        listing = self._exchange.listing
        rows = listing.of_currency(currency, kinds, active=not params.get("expired", False))
        return [listing.api_row(row) for row in rows]

    def _get_instrument(self, params: dict[str, Any], now: int) -> object:
        return self._exchange.listing.api_row(self._row(params))

    def _get_expirations(self, params: dict[str, Any], now: int) -> object:
        currency, kinds = self._currency(params), self._kinds(params)
        kind = str(params.get("kind", "any"))
        listing = self._exchange.listing
        rows = listing.of_currency(currency, kinds)
        expiries = sorted({int(listing.universe.expiry_ns[row]) for row in rows} - {0})
        codes = [expiry_code(expiry) for expiry in expiries]
        # For one currency the outer key is the currency, for "any" it is the kind.
        return {kind: codes} if currency == "any" else {currency.lower(): {kind: codes}}

    def _get_index_price(self, params: dict[str, Any], now: int) -> object:
        underlying = underlying_of_index(str(params.get("index_name")), self._exchange.listing)
        if underlying is None:
            raise _invalid("index_name", "value is not in the list")
        price = self._exchange.listing.spot(underlying)
        return {"index_price": price, "estimated_delivery_price": price}

    def _ticker(self, params: dict[str, Any], now: int) -> object:
        time_ms = self._exchange.market_ns(now) // 1_000_000
        return self._exchange.renderer.tickers([self._row(params)], time_ms)[0]

    def _get_order_book(self, params: dict[str, Any], now: int) -> object:
        time_ms = self._exchange.market_ns(now) // 1_000_000
        return self._exchange.order_book(self._row(params), int(params.get("depth", 5)), time_ms)

    def _row(self, params: dict[str, Any]) -> int:
        name = params.get("instrument_name")
        row = self._exchange.listing.row_of.get(name) if isinstance(name, str) else None
        if row is None:
            raise RpcError(13020, "not_found", reason="instrument not found", param="instrument_name")
        return row

    def _currency(self, params: dict[str, Any]) -> str:
        currency = params.get("currency")
        if not isinstance(currency, str) or currency not in (
            "any",
            "USDT",
            "EURR",
            *(t.currency for t in TERMS.values()),
        ):
            raise _invalid("currency", "value is not in the list")
        return currency

    def _kinds(self, params: dict[str, Any]) -> tuple[Kind, ...]:
        kind = params.get("kind", "any")
        if kind == "any":
            return (*_KINDS["option"], *_KINDS["future"])
        if kind in _NO_INSTRUMENTS:
            return ()
        if kind not in _KINDS:
            raise _invalid("kind", "value is not in the list")
        return _KINDS[kind]


def _parse_request(data: str | bytes, reply: dict[str, Any]) -> tuple[int | str | None, str, dict[str, Any]]:
    try:
        request = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RpcError(-32700, "Parse error") from None
    if not isinstance(request, dict):
        raise RpcError(-32600, "Invalid Request")
    identifier, method, params = request.get("id"), request.get("method"), request.get("params") or {}
    if isinstance(identifier, int | str) and not isinstance(identifier, bool):
        # Set before anything else can fail: an error carries the id of its request, with its type.
        reply["id"] = identifier
    else:
        identifier = None
    if not isinstance(method, str) or not isinstance(params, dict):
        raise RpcError(-32600, "Invalid Request")
    return identifier, method, params


class DeribitExchange(DeribitState):
    """The venue whose clients are `DeribitSession`s."""

    def __init__(
        self,
        market: Market,
        *,
        origin_ns: int,
        time_scale: float = 1.0,
        rules: QuoteRules | None = None,
        bursting: bool = False,
        probe_seconds: float | None = None,
        profile: VenueProfile | None = None,
    ) -> None:
        super().__init__(
            market, origin_ns=origin_ns, time_scale=time_scale, rules=rules, bursting=bursting, profile=profile
        )
        self._probe_seconds = probe_seconds

    def open_session(self, now: int, path: str = "") -> DeribitSession:
        """A client connected; all endpoints are one."""
        del path
        return DeribitSession(self, now, self._probe_seconds)


class SimulatedDeribit(ExchangeServer):
    """A Deribit on a loopback port: `async with SimulatedDeribit(market, port=0) as server: server.url`.

    Args:
        market: the truth; its clock starts when the server is made.
        port: 0 takes a free one.
        rate: None is the venue's own pace, 0 as many messages as clients read, else so many a second over all clients.
        probe_seconds: period of test requests in place of the interval a client asks for.
        time_scale: market seconds per real second.
        rules: how makers quote.
        profile: how this venue differs from others of the market; None quotes the truth itself, without latency.
        origin_ns: real time at which the market's clock stands at its start; None is now. Venues of one market share it.
        clock: real time, ns UTC.
        buffer_limit: bytes a client may leave unread before it is cut with `connection_too_slow`.
    """

    def __init__(
        self,
        market: Market,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rate: float | None = None,
        probe_seconds: float | None = None,
        time_scale: float = 1.0,
        rules: QuoteRules | None = None,
        profile: VenueProfile | None = None,
        origin_ns: int | None = None,
        clock: Clock = real_clock,
        buffer_limit: int = 16 * 1024 * 1024,
    ) -> None:
        exchange = DeribitExchange(
            market,
            origin_ns=clock() if origin_ns is None else origin_ns,
            time_scale=time_scale,
            rules=rules,
            profile=profile,
            bursting=rate is not None,
            probe_seconds=probe_seconds,
        )
        super().__init__(exchange, host=host, port=port, rate=rate, buffer_limit=buffer_limit, clock=clock)
        self.market = market
