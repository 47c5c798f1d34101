"""A captured session without a socket or a wait: simulated exchanges, feeds and the core, under a clock moved by hand.

    session = Rehearsal("captures/made", ["deribit", "okx"], ["BTC"], start_ns=…)
    hashes = [frame.hash for frame in session.run(seconds=60)]
    session.close()

Everything is what the live engine runs but for the sockets and processes between it: the exchanges' own sessions, the venues,
`VenueFeed`, `Outbox`, `Core`, and the taps and writers of the capture. The same arguments give the same session, bit for bit, so
this is where the small captures come from that tests, benchmarks and `data/` use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from volsurf.capture.directory import CaptureOptions, claim
from volsurf.capture.format import CORE
from volsurf.capture.taps import CoreTap, FeedTap
from volsurf.capture.writer import StreamWriter
from volsurf.engine.core import Core, CoreRules
from volsurf.engine.frame import Frame
from volsurf.engine.log import FeedHealth, FeedState
from volsurf.engine.outbox import Outbox
from volsurf.errors import InputError
from volsurf.feeds.registry import make_venues
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.replay._hand import HandConnection
from volsurf.sim.exchange import Exchange
from volsurf.sim.market import Market

TICK_NS = 10_000_000
"""Step of the clock."""
_EXCHANGES = {
    "deribit": "DeribitExchange",
    "okx": "OkxExchange",
    "bybit": "BybitExchange",
    "binance": "BinanceExchange",
}
_HOST = "ws://127.0.0.1:1"
_SECOND = 1_000_000_000
_ONE_SEGMENT = CaptureOptions(pending_mb=1e6, min_free_mb=0.0, segment_mb=1e6, segment_seconds=1e6, flush_seconds=1.0)
"""It is played faster or slower than a clock runs, so the disk is given whole blocks and no limits."""

Meddle = Callable[["Rehearsal"], None]
"""Called at every step of the clock, to do what is to go wrong."""


class Rehearsal:
    """One session.

    Args:
        path: of the capture; None records nothing. venues: names. underlyings: as `make_venues` reads them.
        start_ns: when it begins, ns UTC. seed: of the market. seconds are then played by `run`.
        frame_seconds, batch_seconds: periods of the frames and of the feeds' batches; whole multiples of 10 ms.
        rate: further ticker messages a second in all, beyond the venues' own pace, where the simulators can burst.
        books, trades: follow them. options: of the capture.
        lag: the core reads the feeds at every so many-th batch only, so that they are conflated.
        meddle: called at every step.

    Attributes:
        now: of the clock, ns UTC. core, exchanges, feeds, connections: what is played, by venue.
    """

    def __init__(
        self,
        path: str | Path | None,
        venues: Sequence[str],
        underlyings: Sequence[str],
        *,
        start_ns: int,
        seed: int = 1,
        activity: float = 1.0,
        frame_seconds: float = 0.1,
        batch_seconds: float = 0.01,
        rate: float = 0.0,
        books: bool = False,
        trades: bool = True,
        rules: CoreRules | None = None,
        options: CaptureOptions | None = None,
        lag: int = 1,
        meddle: Meddle | None = None,
    ) -> None:
        self.now = start_ns
        self._rate, self._owed, self._lag, self._meddle = rate, 0.0, lag, meddle
        self._batches = 0
        self._frame_ns, self._batch_ns = round(frame_seconds * _SECOND), round(batch_seconds * _SECOND)
        self.core = Core(rules)
        bases = list(dict.fromkeys(name.partition("_")[0] for name in underlyings))
        market = Market(seed, bases, start_ns=start_ns, activity=activity)
        self.exchanges = {name: _exchange(name, market, start_ns, bursting=rate > 0) for name in venues}
        claimed = None if path is None else claim(path)
        self.path = None if claimed is None else claimed.path
        self._claim = claimed
        self._writers: list[StreamWriter] = []
        options = options or _ONE_SEGMENT
        extras = {"trades": trades, "books": books}

        def writer(stream: str, settings: dict[str, object], snapshots: bool) -> StreamWriter | None:
            if claimed is None:
                return None
            made = StreamWriter(
                claimed.path,
                stream,
                capture=claimed.id,
                options=options,
                settings=settings,
                snapshots=snapshots,
                clock=lambda: self.now,
            )
            self._writers.append(made)
            return made

        core_writer = writer(CORE, {"rules": {}, "frame_seconds": frame_seconds}, False)
        self._core_tap = None if core_writer is None else CoreTap(core_writer.recorder)
        self.connections: dict[str, list[HandConnection]] = {}
        self.feeds: dict[str, VenueFeed] = {}
        self._outboxes: dict[str, Outbox] = {}
        self._taps: dict[str, FeedTap | None] = {}
        for number, name in enumerate(venues):
            exchange = self.exchanges[name]
            url = f"{_HOST}{exchange.path}"
            settings = {
                "venue": name,
                "feed": number,
                "underlyings": list(underlyings),
                "url": url,
                "shards": 1,
            } | extras
            feed_writer = writer(f"feed-{number}-{name}", settings, True)
            tap = self._taps[name] = None if feed_writer is None else FeedTap(feed_writer.recorder)
            made = make_venues(name, underlyings, url=url, **extras)
            feed = self.feeds[name] = VenueFeed(made, number=number, books=books, tap=tap, clock=lambda: self.now)
            self.connections[name] = [HandConnection(v, n, exchange, tap) for n, v in enumerate(made)]
            outbox = self._outboxes[name] = Outbox(feed, number, name, self._health_of(name, number))
            outbox.begin()
            if tap is not None:
                tap.linked(self.now, 1)

    def run(self, seconds: float) -> Iterator[Frame]:
        """Play on for so long; the frames, as they are made."""
        end = self.now + round(seconds * _SECOND)
        while self.now < end:
            self.now += TICK_NS
            if self._meddle is not None:
                self._meddle(self)
            self._move()
            if self.now % self._batch_ns == 0:
                self._batch()
            if self.now % self._frame_ns == 0:
                frame = self.core.frame(self.now)
                if self._core_tap is not None:
                    self._core_tap.ticked(self.now, frame.number, frame.hash)
                yield frame

    @property
    def messages(self) -> int:
        """Received by all venues so far."""
        return sum(connection.messages for group in self.connections.values() for connection in group)

    @property
    def is_ready(self) -> bool:
        """Every feed is subscribed to everything."""
        return all(feed.is_ready for feed in self.feeds.values())

    def close(self) -> None:
        """End the capture."""
        for made in self._writers:
            made.close(timeout=120.0)
        if self._claim is not None:
            self._claim.release()

    def _move(self) -> None:
        """The exchanges up to the clock's time, and everything said both ways."""
        for name, exchange in self.exchanges.items():
            if self.now % exchange.tick_ns < TICK_NS:
                exchange.advance(self.now)
            for connection in self.connections[name]:
                connection.step(self.now)
        if self._rate and self.is_ready:
            self._burst()

    def _burst(self) -> None:
        self._owed += self._rate * TICK_NS / _SECOND
        readers = [c for group in self.connections.values() for c in group if c.can_burst]
        for at, connection in enumerate(readers):
            self._owed -= connection.burst(int(self._owed / (len(readers) - at)), self.now)

    def _batch(self) -> None:
        for name, outbox in self._outboxes.items():
            outbox.gather(self.now)
            tap = self._taps[name]
            if tap is not None:
                tap.snapshot_if_wanted(self.feeds[name], self.now)
        self._batches += 1
        if self._batches % self._lag == 0:
            self._tell()

    def _tell(self) -> None:
        for number, (name, outbox) in enumerate(self._outboxes.items()):
            entries = outbox.take(self.now / _SECOND, self.now)
            if not entries:
                continue
            tap = self._taps[name]
            if tap is not None:
                tap.handed(self.now, entries)
            for entry in entries:
                self.core.apply(entry)
            if self._core_tap is not None:
                self._core_tap.took(self.now, number, 1, len(entries))

    def _health_of(self, name: str, number: int) -> Callable[[], FeedHealth]:
        def health() -> FeedHealth:
            feed, connections = self.feeds[name], self.connections[name]
            is_open = [connection for connection in connections if connection.is_open]
            state = FeedState.READY if feed.is_ready else FeedState.SUBSCRIBING if is_open else FeedState.DISCONNECTED
            return FeedHealth(
                feed=number,
                name=name,
                time_ns=self.now,
                state=state,
                connections=len(connections),
                connected=len(is_open),
                last_message_ns=max((connection.heard_ns for connection in is_open), default=0),
                messages=sum(connection.messages for connection in connections),
                reconnects=sum(max(0, connection.opened - 1) for connection in connections),
                trouble=feed.trouble[:400],
            )

        return health


def _exchange(name: str, market: Market, start_ns: int, *, bursting: bool) -> Exchange:
    if name not in _EXCHANGES:
        raise InputError(f"no simulated venue {name!r}; there are {', '.join(_EXCHANGES)}")
    module = importlib.import_module(f"volsurf.sim.{name}")
    options = {"bursting": True} if bursting else {}
    made: Exchange = getattr(module, _EXCHANGES[name])(market, origin_ns=start_ns, **options)
    return made
