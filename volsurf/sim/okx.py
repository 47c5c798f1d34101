"""A local OKX: what one client may ask of it and is told, and the server that puts it on a socket.

`OkxSession` is free of I/O. The rules are those of OKX's public websocket API v5: an acknowledgement for every channel, errors
with the venue's codes, 480 requests an hour and 64 KB a request, text `ping` and `pong`, a connection over which nothing went
for 30 seconds is cut, a notice a minute before an upgrade. The REST pages of the listing are on the same port.

What happens to the good channels of a request with a bad one is not documented: here they are subscribed to, or, with
`all_or_nothing`, none is.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from volsurf.sim._okx_channels import FOR_VIPS, Channel, Feed, parse_channel
from volsurf.sim._okx_state import OkxState
from volsurf.sim.burst import BurstBuffer
from volsurf.sim.exchange import Clock, Session, real_clock
from volsurf.sim.market import Market
from volsurf.sim.profiles import VenueProfile
from volsurf.sim.quoting import QuoteRules
from volsurf.sim.server import ExchangeServer

MOST_BYTES = 65_536
"""Of the channels of one request."""
MOST_OPERATIONS = 480
"""Subscribing, unsubscribing and logging in, an hour and connection."""
MOST_CONNECTIONS = 3
"""New ones a second."""
SILENCE_NS = 30_000_000_000
UPGRADE = "64008"
_SECOND = 1_000_000_000
_HOUR = 3600 * _SECOND


class OkxSession(Session):
    """One client.

    Args:
        exchange: the venue.
        now: real time of the connection, ns.
        silence_seconds: after which a connection over which nothing went is cut.
        all_or_nothing: whether one bad channel spoils its request.
    """

    def __init__(
        self, exchange: OkxState, now: int, *, silence_seconds: float = 30.0, all_or_nothing: bool = False
    ) -> None:
        super().__init__()
        self._exchange = exchange
        self._silence_ns = int(silence_seconds * _SECOND)
        self._all_or_nothing = all_or_nothing
        self._feeds: dict[str, Feed] = {}
        self._outbox: list[bytes] = []
        self._closing: tuple[int, str] | None = None
        self._used = now
        self._has_news = False
        self._cut_at: int | None = None
        self._operations: deque[int] = deque()
        self._burst = BurstBuffer(exchange.market.seed)
        self._burst_version = -1
        exchange.counters["sessions"] += 1
        self._connection = f"{exchange.counters['sessions']:08x}"
        exchange.sessions[self] = None

    def receive(self, data: str | bytes, now: int) -> None:
        """Answer one message."""
        if self._closing:
            return
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        if data == b"ping":
            self._used = now
            self._exchange.counters["heartbeats_answered"] += 1
            self._outbox.append(b"pong")
            return
        try:
            request = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            request = None
        if not isinstance(request, dict):
            self._error("60012", f"Invalid request: {_shown(data)}", None)
            return
        number = request.get("id")
        op, args = request.get("op"), request.get("args")
        if number is not None and not (isinstance(number, str) and number.isalnum() and len(number) <= 32):
            self._error("60012", f"Invalid request: {_shown(data)}", None)
        elif op not in ("subscribe", "unsubscribe"):
            words = ("60011", "Please log in") if op in ("login", "order") else ("60019", f"Invalid op: {op}")
            self._error(*words, number)
        elif not isinstance(args, list) or not args or not all(isinstance(arg, dict) for arg in args):
            self._error("60013", "Invalid args", number)
        elif self._is_too_often(now):
            self._error("60014", "Requests too frequent", number)
        elif len(msgspec.json.encode(args)) > MOST_BYTES:
            self._error("60012", "The total length of multiple channels cannot exceed 64 KB", number)
        elif op == "subscribe" and self.is_refused("subscribe"):
            self._error("60012", f"Invalid request: {_shown(data)}", number)
        else:
            self._change(op, args, number, now)

    def timer(self, now: int) -> None:
        """Cut a connection that is silent, or whose time has come."""
        if self._has_news:
            self._used, self._has_news = now, False
        if self._closing:
            return
        if self._cut_at is not None and now >= self._cut_at:
            self._closing = (1001, "service upgrade")
        elif now - self._used > self._silence_ns:
            self._exchange.counters["heartbeats_missed"] += 1
            self._closing = (4004, f"No data received in {self._silence_ns // _SECOND}s")

    def refuse_connection(self) -> None:
        """Too many came within a second."""
        self._exchange.counters["connections_too_frequent"] += 1
        self._closing = (1008, "too many connection requests")

    def announce_upgrade(self, cut_at: int) -> None:
        """Say that this connection will be cut, and cut it then."""
        self._cut_at = cut_at
        words = "The connection will soon be closed for a service upgrade. Please reconnect."
        self._say({"event": "notice", "code": UPGRADE, "msg": words})

    def push(self, payload: bytes) -> None:
        """Queue a push."""
        self._outbox.append(payload)

    def drop(self, arg: str) -> None:
        """End a subscription."""
        feed = self._feeds.pop(arg, None)
        if feed is not None:
            self._exchange.table.leave(feed, self)
            self._burst_version = -1

    def data_to_send(self) -> list[bytes]:
        """Everything queued since the last call."""
        payloads, self._outbox = self._outbox, []
        self._has_news |= bool(payloads)
        return payloads

    @property
    def closing(self) -> tuple[int, str] | None:
        """Why the venue ends this connection."""
        return self._closing

    @property
    def channels(self) -> list[str]:
        """What it is subscribed to, in order, as JSON."""
        return list(self._feeds)

    def closed(self) -> None:
        """Leave every feed."""
        for arg in list(self._feeds):
            self.drop(arg)
        self._outbox.clear()
        self._exchange.sessions.pop(self, None)

    def burst(self, messages: int, now: int) -> tuple[bytes, int]:
        """The client's `bbo-tbt` messages, round and round."""
        self._load_burst()
        taken = self._burst.take(messages, self._exchange.market_ns(now) // 1_000_000)
        self._has_news |= taken[1] > 0
        return taken

    @property
    def burst_bytes(self) -> int:
        """Mean size of a quote frame of this client."""
        self._load_burst()
        return self._burst.mean_bytes

    def _load_burst(self) -> None:
        if self._burst_version != self._exchange.stamped_version:
            self._burst_version = self._exchange.stamped_version
            stamped = self._exchange.stamped
            rows = [feed.channel.row for feed in self._feeds.values() if feed.channel.kind == "bbo-tbt"]
            self._burst.load([stamped[row] for row in rows if row in stamped])

    def _change(self, op: str, args: list[dict[str, Any]], number: str | None, now: int) -> None:
        found: list[tuple[dict[str, Any], Channel]] = []
        refused: list[tuple[str, str]] = []
        for arg in args:
            channel = parse_channel(arg, self._exchange.listing)
            if channel is not None or op == "unsubscribe":
                found.append((arg, channel or Channel(msgspec.json.encode(arg).decode(), "")))
            elif arg.get("channel") in FOR_VIPS:
                refused.append(("64003", f"Only users who are VIP4 and above can subscribe to {arg['channel']}"))
            else:
                said = ",".join(f"{key}:{value}" for key, value in arg.items())
                words = "doesn't exist. Please use the correct URL, channel and parameters referring to API document."
                refused.append(("60018", f"Wrong URL or {said} {words}"))
        if refused and self._all_or_nothing:
            found = []
        joined: list[Feed] = []
        for arg, channel in found:
            self._say({"event": op, "arg": arg}, number)
            if op == "unsubscribe":
                self.drop(channel.arg)
            else:
                feed = self._feeds[channel.arg] = self._exchange.table.join(channel, self)
                joined.append(feed)
        for code, words in refused:
            self._error(code, words, number)
        if joined:
            self._burst_version = -1
            # What was subscribed speaks after the acknowledgement.
            self._outbox.extend(self._exchange.snapshots(joined, now))

    def _is_too_often(self, now: int) -> bool:
        while self._operations and now - self._operations[0] >= _HOUR:
            self._operations.popleft()
        if self.is_refused("rate_limit") or len(self._operations) >= MOST_OPERATIONS:
            return True
        self._operations.append(now)
        return False

    def _error(self, code: str, words: str, number: object) -> None:
        self._exchange.counters[f"error_{code}"] += 1
        self._say({"event": "error", "code": code, "msg": words}, number)

    def _say(self, message: dict[str, object], number: object = None) -> None:
        head = {} if number is None else {"id": number}
        self._outbox.append(msgspec.json.encode(head | message | {"connId": self._connection}))


def _shown(data: bytes) -> str:
    return data[:65_536].decode("utf-8", "replace")


class OkxExchange(OkxState):
    """The venue whose clients are `OkxSession`s.

    Args:
        silence_seconds, all_or_nothing: see `OkxSession`.
        connections_per_second: more new ones are cut at once.
    """

    def __init__(
        self,
        market: Market,
        *,
        origin_ns: int,
        time_scale: float = 1.0,
        rules: QuoteRules | None = None,
        bursting: bool = False,
        profile: VenueProfile | None = None,
        silence_seconds: float = 30.0,
        all_or_nothing: bool = False,
        connections_per_second: int = MOST_CONNECTIONS,
    ) -> None:
        super().__init__(
            market, origin_ns=origin_ns, time_scale=time_scale, rules=rules, bursting=bursting, profile=profile
        )
        self._session_options: dict[str, Any] = {
            "silence_seconds": silence_seconds,
            "all_or_nothing": all_or_nothing,
        }
        self._most_connections = connections_per_second
        self._opened: deque[int] = deque()

    def open_session(self, now: int, path: str = "") -> OkxSession:
        """A client connected."""
        del path
        session = OkxSession(self, now, **self._session_options)
        while self._opened and now - self._opened[0] >= _SECOND:
            self._opened.popleft()
        if len(self._opened) >= self._most_connections:
            session.refuse_connection()
        else:
            self._opened.append(now)
        return session


class SimulatedOkx(ExchangeServer):
    """An OKX on a loopback port: `async with SimulatedOkx(market, port=0) as server: server.url`.

    Args:
        market: the truth; its clock starts when the server is made.
        port: 0 takes a free one.
        rate: None is the venue's own pace, 0 as many messages as clients read, else so many a second over all clients.
        time_scale: market seconds per real second.
        rules: how makers quote.
        profile: how this venue differs from others of the market; None quotes the truth itself, without latency.
        origin_ns: real time at which the market's clock stands at its start; None is now. Venues of one market share it.
        clock: real time, ns UTC.
        silence_seconds, all_or_nothing, connections_per_second: see `OkxExchange`.
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
        silence_seconds: float = 30.0,
        all_or_nothing: bool = False,
        connections_per_second: int = MOST_CONNECTIONS,
        **options: Any,
    ) -> None:
        exchange = OkxExchange(
            market,
            origin_ns=clock() if origin_ns is None else origin_ns,
            time_scale=time_scale,
            rules=rules,
            profile=profile,
            bursting=rate is not None,
            silence_seconds=silence_seconds,
            all_or_nothing=all_or_nothing,
            connections_per_second=connections_per_second,
        )
        super().__init__(exchange, host=host, port=port, rate=rate, clock=clock, **options)
        self.market = market
