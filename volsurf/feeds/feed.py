"""A feed to hold in one's hand: its own socket, in a cell or a script, for study. `vs.live` is for everything else."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from volsurf.errors import ConfigError
from volsurf.feeds.books import BookTable
from volsurf.feeds.protocol import Event
from volsurf.feeds.registry import make_venues
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.instruments import Universe
from volsurf.quotes import QuoteBatch

_MOST_EVENTS = 10_000


class Feed:
    """Live quotes of one venue as batches.

        feed = vs.Feed("deribit", underlyings=["BTC"])
        board = vs.QuoteBoard(feed.universe)
        async for batch in feed.batches(until=60.0):
            board.apply(batch)

    The socket opens with the first batch asked for and closes with the loop. A slow loop misses no instrument, only values
    that were overwritten meanwhile.

    Args:
        venue: `"deribit"`, `"okx"`, `"bybit"` or `"binance"`.
        underlyings: as the venue's class reads them: `"BTC"` for every option family of that coin (on Deribit, the coin-settled
            one), `"BTC_USDC"` and the like for one of them.
        url: a testnet or simulator. shards: connections to spread the instruments over.
        books: follow whole order books: `feed.books` keeps them, and their top and depth are in the batches.
        trades: tell of every trade in `events`.
        tick: seconds between batches at the least. clock: ns UTC. seed: of the jitter between attempts to connect.
        options: further arguments of the venue's class.

    Raises:
        ConfigError: no such venue, or arguments it cannot mean.
    """

    def __init__(
        self,
        venue: str = "deribit",
        underlyings: Sequence[str] = ("BTC",),
        *,
        url: str | None = None,
        shards: int = 1,
        books: bool = False,
        trades: bool = True,
        tick: float = 0.02,
        clock: Callable[[], int] = time.time_ns,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        venues = make_venues(venue, underlyings, url=url, shards=shards, books=books, trades=trades, **options)
        self._feed = VenueFeed(venues, tick=tick, clock=clock, seed=seed, books=books)
        self._tick = tick
        self._running = False
        self.events: deque[Event] = deque(maxlen=_MOST_EVENTS)
        """What happened, oldest first: listings, trades, books, health. The last 10,000 are kept."""

    def __repr__(self) -> str:
        return f"Feed({self._feed!r})"

    @property
    def universe(self) -> Universe:
        """Everything listed; it fills after the first batches."""
        return self._feed.universe

    @property
    def books(self) -> BookTable | None:
        """Every order book, where `books` was asked for."""
        return self._feed.books

    @property
    def counters(self) -> dict[str, int]:
        """Messages by kind, malformed ones by cause."""
        return self._feed.counters

    async def batches(self, until: asyncio.Event | float | None = None) -> AsyncIterator[QuoteBatch]:
        """Connect, and yield what changed, until an event is set or so many seconds have passed.

        Raises:
            ConfigError: the venue lists nothing that was asked for, or this feed is being read elsewhere.
        """
        if self._running:
            raise ConfigError("this feed is being read already; make another one")
        self._running = True
        stop = until if isinstance(until, asyncio.Event) else asyncio.Event()
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(until, stop.set) if isinstance(until, (int, float)) else None
        ending = asyncio.Event()
        connections = asyncio.ensure_future(self._feed.connect(ending))
        try:
            while not stop.is_set():
                await asyncio.wait((connections,), timeout=self._tick)
                batch, events = self._feed.collect()
                self.events.extend(events)
                if batch is not None:
                    yield batch
                if connections.done():
                    break
        finally:
            self._running = False
            if alarm is not None:
                alarm.cancel()
            ending.set()
            await connections
