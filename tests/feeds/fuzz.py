"""Damaged messages and pages for any venue, in the midst of a conversation with its simulated exchange."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from tests.feeds.conformance.facts import FACTS
from tests.feeds.conformance.world import SECOND, World, two_sided
from tests.feeds.mutations import Mutator
from volsurf.feeds.protocol import Venue
from volsurf.instruments import Kind
from volsurf.quotes import Field, QuoteBatch, QuoteBoard

PER_TICK = 250
"""Damaged messages between two ticks of the exchange."""
_GOLDEN = {"deribit": "", "okx": "okx", "bybit": "bybit", "binance": "binance"}
_LONGEST = 4000
"""Bytes of a message to damage: longer ones say nothing new and take long."""
_CLOSED_TICKS = 25
_POSITIVE = dict.fromkeys(("bid", "ask", "bid_size", "ask_size"), Field.QUOTE) | {
    "last": Field.LAST,
    "forward": Field.FORWARD,
    "index": Field.INDEX,
}


@dataclass
class Result:
    """What became of the messages of one run."""

    frames: int = 0
    counted: int = 0
    """Messages after which some counter of the venue was higher."""
    pages: int = 0
    connections: int = 0
    feeds: int = 0
    counters: Counter[str] = field(default_factory=Counter)
    uncounted: Counter[str] = field(default_factory=Counter)
    """Beginnings of those that raised none."""

    @property
    def malformed(self) -> int:
        """Messages and rows that were not understood."""
        return sum(count for name, count in self.counters.items() if name.startswith("malformed."))


def golden(venue: str) -> list[bytes]:
    """The golden messages of a venue."""
    frames: dict[bytes, None] = {}
    for path in sorted((Path(__file__).with_name("golden") / _GOLDEN[venue]).glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            for frame in json.loads(line).get("frames", ()):
                frames[frame.encode("utf-8", "surrogatepass")] = None
    return [frame for frame in frames if frame]


@lru_cache
def corpus(venue: str) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Messages and pages to damage: the golden ones, and those of a simulated session."""
    frames = dict.fromkeys(golden(venue))
    pages: dict[bytes, None] = {}
    world = World(venue, [FACTS[venue].family], books=True, trades=True, expiries=2)
    heard: list[bytes] = []

    def listen(payload: bytes) -> tuple[bytes, ...]:
        heard.append(payload)
        return (payload,)

    def read(status: int, body: bytes) -> tuple[int, bytes]:
        pages[body] = None
        return status, body

    world.alter, world.alter_page = listen, read
    world.ready()
    world.run(2)
    frames.update(dict.fromkeys(heard[:200] + heard[-200:]))
    return tuple(frame for frame in frames if len(frame) < _LONGEST), tuple(pages) or (b"[]",)


def check(told: QuoteBoard | Venue, batch: QuoteBatch | None) -> None:
    """What must hold of whatever comes out, however damaged what went in."""
    if batch is None:
        return
    ids, universe = batch.instrument_id, told.universe
    assert 0 <= int(ids.min()) <= int(ids.max()) < len(universe)
    for name in ("bid", "ask", "bid_size", "ask_size", "last", "forward", "index", "mark", "mark_vol"):
        assert not np.isinf(getattr(batch, name)).any(), name
    for name, group in _POSITIVE.items():
        column = getattr(batch, name)[(batch.fields & np.uint16(group)) != 0]
        assert (np.isnan(column) | (column > 0)).all(), name
    assert (batch.venue_time_ns >= 0).all()
    assert (batch.fields > 0).all()
    assert np.isnan(batch.forward[universe.kind[ids] != Kind.OPTION]).all()
    assert QuoteBatch.from_bytes(batch.to_bytes()).instrument_id.tolist() == ids.tolist()


class Fuzzer:
    """`Fuzzer("okx", seed=1).run(100_000)`; raises whatever escapes from a venue.

    Half of the feeds follow books and trades. Between damaged messages the conversation goes on: timers, whole messages, pages
    of which a third are damaged, sockets that end and open again, batches taken and looked at.
    """

    def __init__(self, venue: str, seed: int) -> None:
        self.result = Result()
        frames, pages = corpus(venue)
        self._mutator, self._pager = Mutator(seed, frames), Mutator(seed + 1, pages)
        self._random = self._mutator.random
        books = bool(seed % 2)
        self._family = FACTS[venue].family
        self.world = World(venue, [self._family], books=books, trades=books, expiries=2).ready()
        self.world.records, self.world.retry_ns = False, 0
        self.world.alter_page = self._alter_page
        self._closed = 0

    def run(self, frames: int) -> Result:
        """Give so many damaged messages, then see that a clean session works."""
        world, result, rng = self.world, self.result, self._random
        given = 0
        while given < frames:
            for _ in range(min(PER_TICK, frames - given)):
                venue = rng.choice(world.feed.venues)
                if venue in world.sessions:
                    self._give(venue)
                    given += 1
                if venue.failure is not None:
                    break
            self._tick()
        result.frames += given
        self._note_counters()
        self.prove_usable()
        return result

    def prove_usable(self) -> None:
        """Sockets are opened anew, and everything the exchange shows is on the board."""
        world = self.world
        world.alter_page = None
        for venue in list(world.sessions):
            world.cut(venue)
        # Eleven minutes: the longest pause a venue asks of a client that it takes for a nuisance.
        for _ in range(11 * 60 // 4):
            world.now += 4 * SECOND
            for venue in world.feed.venues:
                venue.timer(world.client_now)
        world.collect()
        if any(venue.not_before > world.client_now or venue.fatal for venue in world.feed.venues):
            self._start_anew()
        world.until(lambda: world.feed.is_ready and not world.late(), 60)
        assert len(two_sided(world)) > 15
        world.alter_page = self._alter_page

    def _give(self, venue: Venue) -> None:
        frame: bytes | str = self._mutator.next()
        if self._random.random() < 0.02:
            frame = frame.decode("latin-1")  # type: ignore[union-attr]
        before = venue.counters.total()
        venue.receive(frame, self.world.client_now)
        if venue.counters.total() > before:
            self.result.counted += 1
        else:
            self.result.uncounted[str(frame[:70])] += 1

    def _tick(self) -> None:
        world, rng = self.world, self._random
        for venue in world.feed.venues:
            if venue in world.sessions:
                # What was said so far is read before the exchange goes on, so that a flood is not one message.
                assert venue.next_deadline is None or venue.next_deadline >= world.client_now
                for row in range(min(3, len(venue.universe))):
                    venue.greeks(row)
                assert isinstance(venue.trouble + venue.suspended + venue.takeover, str)
        world.skew += rng.choice((0, 0, 0, 1, SECOND // 10, SECOND, 3 * SECOND, -SECOND // 100))
        world.run(world.tick / SECOND)
        check(world.feed.board, world.batch)
        world.events.clear()
        if rng.random() < 0.02 and world.sessions:
            world.cut(rng.choice(list(world.sessions)), rng.choice(("fuzz", "HTTP 403", "connection_too_slow")))
            self.result.connections += 1
        self._closed = 0 if len(world.sessions) == len(world.feed.venues) else self._closed + 1
        if self._closed > _CLOSED_TICKS or any(venue.fatal for venue in world.feed.venues):
            self._start_anew()

    def _start_anew(self) -> None:
        """The venue has every reason to wait, or to think that there is nothing: another feed need not."""
        self._note_counters()
        self.world.skew = 0
        self.world.ask([self._family])
        self.result.feeds += 1
        self._closed = 0

    def _note_counters(self) -> None:
        for venue in self.world.feed.venues:
            self.result.counters.update(venue.counters)
            venue.counters.clear()

    def _alter_page(self, status: int, body: bytes) -> tuple[int, bytes]:
        self.result.pages += 1
        if self._random.random() < 0.67:
            return status, body
        return self._random.choice((200, 200, 200, 0, 403, 418, 429, 500, 503)), self._pager.next()
