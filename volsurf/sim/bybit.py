"""A local Bybit: what one client may ask of its option socket and is told, and the server that puts it on a port.

`BybitSession` is free of I/O. The rules are those of Bybit's public API v5 for options: acknowledgements of their own shape,
21,000 characters of topics a connection and 2,000 topics a message, topics that are acknowledged and never served, pings from
the client, an idle client cut; the REST pages (`_bybit_pages`) stand on the same port.
"""

from __future__ import annotations

from typing import Any

import msgspec

from volsurf.sim._bybit_pages import BybitPages
from volsurf.sim._bybit_state import BybitState
from volsurf.sim._bybit_topics import Feed, Topic, parse_topic
from volsurf.sim.burst import BurstBuffer
from volsurf.sim.exchange import Clock, HttpAnswer, Session, real_clock
from volsurf.sim.market import Market
from volsurf.sim.profiles import VenueProfile
from volsurf.sim.quoting import QuoteRules
from volsurf.sim.server import ExchangeServer

MAX_CHARACTERS = 21_000
"""Of the array of all topics of a connection."""
MAX_ARGS = 2000
"""Of one message."""
IDLE_SECONDS = 600.0
"""A client that says nothing for so long is cut."""


class BybitSession(Session):
    """One client.

    Args:
        exchange: the venue.
        now: real time of the connection, ns.
        idle_seconds: after which a silent client is cut.
    """

    def __init__(self, exchange: BybitState, now: int, idle_seconds: float = IDLE_SECONDS) -> None:
        super().__init__()
        self._exchange = exchange
        self._feeds: dict[str, Feed] = {}
        self._outbox: list[bytes] = []
        self._closing: tuple[int, str] | None = None
        self._heard = now
        self._idle_ns = int(idle_seconds * 1e9)
        exchange.counters["sessions"] += 1
        self._id = f"da7u80nak99fkijm8s6g-{exchange.counters['sessions']:x}"
        self._burst = BurstBuffer(exchange.market.seed)
        self._burst_version = -1

    def receive(self, data: str | bytes, now: int) -> None:
        """Answer one command."""
        if self._closing:
            return
        self._heard = now
        try:
            command = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            command = None
        if not isinstance(command, dict):
            self._refuse("", "", "error:request params error")
            return
        op, number = command.get("op"), command.get("req_id", "")
        if op == "ping":
            self._exchange.counters["pings_answered"] += 1
            self._say({"args": [str(self._exchange.market_ns(now) // 1_000_000)], "op": "pong"})
        elif op in ("subscribe", "unsubscribe"):
            topics = command.get("args")
            if not isinstance(topics, list) or not all(isinstance(topic, str) for topic in topics):
                self._refuse(op, number, "error:request args error")
            elif self.is_refused("rate_limit"):
                self._refuse(op, number, "Too many visits. Exceeded the API Rate Limit.")
            elif op == "subscribe":
                self._subscribe(list(dict.fromkeys(topics)), now)
            else:
                self._unsubscribe(topics)
        else:
            self._refuse(str(op), number, f"error:handler not found,topic:{op}")

    def timer(self, now: int) -> None:
        """Let go of a client that says nothing."""
        if now - self._heard > self._idle_ns and not self._closing:
            self._exchange.counters["cut_idle"] += 1
            self._closing = (1000, "no traffic")

    def push(self, payload: bytes) -> None:
        """Queue a message."""
        self._outbox.append(payload)

    def drop(self, topic: str) -> None:
        """End a subscription."""
        feed = self._feeds.pop(topic, None)
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
    def topics(self) -> list[str]:
        """What it is subscribed to, in order."""
        return list(self._feeds)

    def closed(self) -> None:
        """Leave every feed."""
        for topic in list(self._feeds):
            self.drop(topic)
        self._outbox.clear()

    def burst(self, messages: int, now: int) -> tuple[bytes, int]:
        """The client's tickers, round and round."""
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
            feeds = [feed for feed in self._feeds.values() if feed.topic.kind == "tickers"]
            self._burst.load([stamped[feed.topic.row] for feed in feeds if feed.topic.row in stamped])

    def _subscribe(self, names: list[str], now: int) -> None:
        found: dict[str, Topic] = {}
        characters = len(msgspec.json.encode(list(dict.fromkeys([*self._feeds, *names]))))
        if len(names) > MAX_ARGS or characters > MAX_CHARACTERS:
            self._exchange.counters["refused_too_long"] += 1
        elif not self.is_refused("subscribe"):
            for name in names:
                # Twice is once too many.
                topic = None if name in self._feeds else parse_topic(name, self._exchange.listing)
                if topic is not None:
                    found[name] = topic
        for name, topic in found.items():
            self._feeds[name] = self._exchange.table.join(topic, self)
        self._burst_version = -1
        self._acknowledge(list(found), [name for name in names if name not in found])
        # What was subscribed speaks after the acknowledgement.
        self._outbox.extend(self._exchange.snapshots([self._feeds[name] for name in found], now))

    def _unsubscribe(self, names: list[str]) -> None:
        had = [name for name in names if name in self._feeds]
        for name in had:
            self.drop(name)
        self._acknowledge(had, [name for name in names if name not in had])

    def _acknowledge(self, success: list[str], failed: list[str]) -> None:
        self._exchange.counters["topics_refused"] += len(failed)
        data = {"failTopics": failed, "successTopics": success}
        self._say({"success": not failed, "conn_id": self._id, "data": data, "type": "COMMAND_RESP"})

    def _refuse(self, op: str, number: Any, said: str) -> None:
        self._exchange.counters["commands_refused"] += 1
        self._say({"success": False, "ret_msg": said, "conn_id": self._id, "req_id": str(number), "op": op})

    def _say(self, message: dict[str, Any]) -> None:
        self._outbox.append(msgspec.json.encode(message))


class BybitExchange(BybitState):
    """The venue whose clients are `BybitSession`s, with its REST pages."""

    def __init__(
        self,
        market: Market,
        *,
        origin_ns: int,
        time_scale: float = 1.0,
        rules: QuoteRules | None = None,
        bursting: bool = False,
        profile: VenueProfile | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        super().__init__(
            market, origin_ns=origin_ns, time_scale=time_scale, rules=rules, bursting=bursting, profile=profile
        )
        self.pages = BybitPages(self)
        self._idle_seconds = idle_seconds

    def open_session(self, now: int, path: str = "") -> BybitSession:
        """A client connected."""
        del path
        return BybitSession(self, now, self._idle_seconds)

    def http(self, path: str, query: dict[str, str], now: int) -> HttpAnswer | None:
        """A REST page, or one of the simulator's own."""
        return self.pages.answer(path, query, now) or super().http(path, query, now)


class SimulatedBybit(ExchangeServer):
    """A Bybit on a loopback port: `async with SimulatedBybit(market, port=0) as server: server.url`; REST on `server.http_url`.

    Args:
        market: the truth; its clock starts when the server is made.
        port: 0 takes a free one.
        rate: None is the venue's own pace, 0 as many messages as clients read, else so many a second over all clients.
        time_scale: market seconds per real second.
        rules: how makers quote.
        profile: how this venue differs from others of the market; None takes Bybit's.
        origin_ns: real time at which the market's clock stands at its start; None is now. Venues of one market share it.
        clock: real time, ns UTC.
        idle_seconds: after which a client that says nothing is cut.
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
        idle_seconds: float = IDLE_SECONDS,
        **options: Any,
    ) -> None:
        exchange = BybitExchange(
            market,
            origin_ns=clock() if origin_ns is None else origin_ns,
            time_scale=time_scale,
            rules=rules,
            bursting=rate is not None,
            profile=profile,
            idle_seconds=idle_seconds,
        )
        super().__init__(exchange, host=host, port=port, rate=rate, clock=clock, **options)
        self.market = market
