"""A local Binance for European options: what one client may ask on its sockets and is told, and the server that serves it.

`BinanceSession` is free of I/O. The rules are those of the API of December 2025: two routes, raw and combined modes, streams
in the address or subscribed to, 200 a connection, ten messages a second, streams of the wrong route or of nowhere that are
acknowledged and silent, ping frames every five minutes, an end after 24 hours; the REST pages (`_binance_pages`) stand on the
same port.
"""

from __future__ import annotations

from collections import deque
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from volsurf.sim._binance_frames import BookTickerBurst
from volsurf.sim._binance_pages import WEIGHT_PER_MINUTE, BinancePages
from volsurf.sim._binance_state import BinanceState
from volsurf.sim._binance_streams import ROUTES, Feed, parse_stream
from volsurf.sim.exchange import Clock, HttpAnswer, Session, real_clock
from volsurf.sim.market import Market
from volsurf.sim.profiles import VenueProfile
from volsurf.sim.quoting import QuoteRules
from volsurf.sim.server import ExchangeServer

MOST_STREAMS = 200
MESSAGES_PER_SECOND = 10
PING_SECONDS, PONG_SECONDS, LIFETIME_SECONDS = 300.0, 900.0, 86_400.0
_SECOND = 1_000_000_000
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


class _Refusal(Exception):
    """An error the client is answered with."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class BinanceSession(Session):
    """One client.

    Args:
        exchange: the venue.
        now: real time of the connection, ns.
        path: what it connected to, with its query: `/market/stream?streams=btcusdt@optionMarkPrice`.
        ping_seconds, pong_seconds, lifetime_seconds: how often it is pinged, how long an answer may take, how long it may stay.
    """

    def __init__(
        self,
        exchange: BinanceState,
        now: int,
        path: str = "/market/stream",
        *,
        ping_seconds: float = PING_SECONDS,
        pong_seconds: float = PONG_SECONDS,
        lifetime_seconds: float = LIFETIME_SECONDS,
    ) -> None:
        super().__init__()
        self._exchange = exchange
        self._feeds: dict[str, Feed | None] = {}
        self._outbox: list[bytes] = []
        self._closing: tuple[int, str] | None = None
        self._opened = self._ponged = self._pinged = now
        self._ping_ns, self._pong_ns = int(ping_seconds * _SECOND), int(pong_seconds * _SECOND)
        self._lifetime_ns = int(lifetime_seconds * _SECOND)
        self._heard: deque[int] = deque(maxlen=MESSAGES_PER_SECOND)
        self._burst = BookTickerBurst(exchange.market.seed)
        self._burst_version = -1
        target = urlsplit(path)
        parts = target.path.strip("/").split("/", 2)
        self.route = parts.pop(0) if parts and parts[0] in ROUTES else ""
        self._is_combined = bool(parts) and parts[0] == "stream"
        embedded = parse_qs(target.query).get("streams", [""])[0].split("/")
        for name in filter(None, [*parts[1:], *embedded]):
            self._join(name, now)

    def receive(self, data: str | bytes, now: int) -> None:
        """Answer one request."""
        if self._closing:
            return
        too_fast = len(self._heard) == MESSAGES_PER_SECOND and now - self._heard[0] < _SECOND
        self._heard.append(now)
        if too_fast or self.is_refused("rate_limit"):
            self._exchange.counters["cut_too_many_messages"] += 1
            self._closing = (1008, "Too many requests")
            return
        reply: dict[str, Any] = {}
        number = None
        try:
            number, method, params = _parse(data)
            reply["result"] = self._call(method, params, now)
        except _Refusal as refusal:
            self._exchange.counters["requests_refused"] += 1
            reply = {"code": refusal.code, "msg": refusal.text}
        if number is not None or "result" in reply:
            reply["id"] = number
        self._outbox.append(msgspec.json.encode(reply))

    def timer(self, now: int) -> None:
        """Let go of a client that does not pong, and of any after a day."""
        if self._closing:
            return
        if now - self._opened >= self._lifetime_ns:
            self._exchange.counters["cut_after_lifetime"] += 1
            self._closing = (1001, "24h")
        elif self._pinged > self._ponged and now - self._ponged >= self._pong_ns:
            self._exchange.counters["heartbeats_missed"] += 1
            self._closing = (1008, "Pong timeout")

    def control_pings(self, now: int) -> list[bytes]:
        """A ping when it is time for one."""
        if self._closing or now - self._pinged < self._ping_ns:
            return []
        self._pinged = now
        self._exchange.counters["heartbeats_probed"] += 1
        return [b"%d" % (self._exchange.market_ns(now) // 1_000_000)]

    def receive_pong(self, payload: bytes, now: int) -> None:
        """Any pong will do, asked for or not."""
        del payload
        self._ponged = now
        self._exchange.counters["heartbeats_answered"] += 1

    def push(self, raw: bytes, combined: bytes) -> None:
        """Queue a payload, in this client's mode."""
        self._outbox.append(combined if self._is_combined else raw)

    def drop(self, name: str) -> None:
        """End a subscription."""
        feed = self._feeds.pop(name, None)
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
    def streams(self) -> list[str]:
        """What it is subscribed to, in order, what is silent included."""
        return list(self._feeds)

    def closed(self) -> None:
        """Leave every feed."""
        for name in list(self._feeds):
            self.drop(name)
        self._outbox.clear()

    def burst(self, messages: int, now: int) -> tuple[bytes, int]:
        """The client's book tickers, round and round."""
        self._load_burst()
        return self._burst.take(messages, self._exchange.market_ns(now) // 1_000_000)

    @property
    def burst_bytes(self) -> int:
        """Mean size of a book ticker frame of this client."""
        self._load_burst()
        return self._burst.mean_bytes

    def _load_burst(self) -> None:
        if self._burst_version != self._exchange.stamped_version:
            self._burst_version = self._exchange.stamped_version
            stamped = self._exchange.stamped
            feeds = [feed for feed in self._feeds.values() if feed is not None and feed.stream.kind == "bookTicker"]
            self._burst.load([stamped[feed.stream.row] for feed in feeds if feed.stream.row in stamped])

    def _join(self, name: str, now: int) -> None:
        if name in self._feeds:
            return
        stream = parse_stream(name, self._exchange.listing)
        # Of another route, or of nowhere: it counts, and nothing will come.
        found = stream if stream is not None and stream.route == self.route else None
        self._feeds[name] = None if found is None else self._exchange.table.join(found, self)
        if (feed := self._feeds[name]) is not None:
            self._exchange.joined(feed, now)
        else:
            self._exchange.counters["streams_silent"] += 1
        self._burst_version = -1

    def _call(self, method: str, params: list[Any], now: int) -> object:
        if method == "LIST_SUBSCRIPTIONS":
            return list(self._feeds)
        if method == "GET_PROPERTY":
            return self._is_combined
        if method == "SET_PROPERTY":
            if len(params) != 2 or params[0] != "combined" or not isinstance(params[1], bool):
                raise _Refusal(0, f"Unknown property: {params[:1]}")
            self._is_combined = params[1]
            return None
        if not all(isinstance(name, str) for name in params):
            raise _Refusal(2, "Invalid request: stream names must be strings")
        if method == "UNSUBSCRIBE":
            for name in params:
                self.drop(name)
            return None
        if self.is_refused("subscribe"):
            raise _Refusal(2, "Invalid request: refused")
        if len({*self._feeds, *params}) > MOST_STREAMS:
            raise _Refusal(2, f"Invalid request: a connection can listen to a maximum of {MOST_STREAMS} streams")
        for name in params:
            self._join(name, now)
        return None


def _parse(data: str | bytes) -> tuple[int | str | None, str, list[Any]]:
    try:
        request = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _Refusal(3, "Invalid JSON: expected value at line 1 column 1") from None
    if not isinstance(request, dict):
        raise _Refusal(2, "Invalid request: request must be an object")
    number, method, params = request.get("id"), request.get("method"), request.get("params", [])
    if isinstance(number, bool) or not isinstance(number, int | str | None):
        raise _Refusal(2, "Invalid request: request ID must be an unsigned integer")
    if method not in _METHODS:
        raise _Refusal(2, f"Invalid request: unknown variant `{method}`, expected one of {', '.join(_METHODS)}")
    if not isinstance(params, list):
        raise _Refusal(2, "Invalid request: params must be an array")
    return number, method, params


class BinanceExchange(BinanceState):
    """The venue whose clients are `BinanceSession`s, with its REST pages."""

    def __init__(
        self,
        market: Market,
        *,
        origin_ns: int,
        time_scale: float = 1.0,
        rules: QuoteRules | None = None,
        bursting: bool = False,
        profile: VenueProfile | None = None,
        weight_per_minute: int = WEIGHT_PER_MINUTE,
        **session: float,
    ) -> None:
        super().__init__(
            market, origin_ns=origin_ns, time_scale=time_scale, rules=rules, bursting=bursting, profile=profile
        )
        self.pages = BinancePages(self, weight_per_minute)
        self._session = session

    def open_session(self, now: int, path: str = "/market/stream") -> BinanceSession:
        """A client connected."""
        return BinanceSession(self, now, path, **self._session)

    def http(self, path: str, query: dict[str, str], now: int) -> HttpAnswer | None:
        """A REST page, or one of the simulator's own."""
        return self.pages.answer(path, query, now) or super().http(path, query, now)


class SimulatedBinance(ExchangeServer):
    """A Binance on a loopback port: `async with SimulatedBinance(market, port=0) as server: server.url`, the base of both routes.

    Args:
        market: the truth; its clock starts when the server is made.
        port: 0 takes a free one.
        rate: None is the venue's own pace, 0 as many book tickers as clients read, else so many a second over all clients.
        time_scale: market seconds per real second.
        rules: how makers quote.
        profile: how this venue differs from others of the market; None takes Binance's.
        origin_ns: real time at which the market's clock stands at its start; None is now. Venues of one market share it.
        clock: real time, ns UTC.
        weight_per_minute: of REST requests. ping_seconds, pong_seconds, lifetime_seconds: as of `BinanceSession`.
        options: further arguments of `ExchangeServer`.
    """

    def __init__(
        self,
        market: Market,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rate: float | None = None,
        time_scale: float = 1.0,
        rules: QuoteRules | None = None,
        profile: VenueProfile | None = None,
        origin_ns: int | None = None,
        clock: Clock = real_clock,
        weight_per_minute: int = WEIGHT_PER_MINUTE,
        ping_seconds: float = PING_SECONDS,
        pong_seconds: float = PONG_SECONDS,
        lifetime_seconds: float = LIFETIME_SECONDS,
        **options: Any,
    ) -> None:
        exchange = BinanceExchange(
            market,
            origin_ns=clock() if origin_ns is None else origin_ns,
            time_scale=time_scale,
            rules=rules,
            bursting=rate is not None,
            profile=profile,
            weight_per_minute=weight_per_minute,
            ping_seconds=ping_seconds,
            pong_seconds=pong_seconds,
            lifetime_seconds=lifetime_seconds,
        )
        super().__init__(exchange, host=host, port=port, rate=rate, clock=clock, **options)
        self.market = market
