"""A feed and the simulated exchange it follows, joined in memory under one clock that a case moves by hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zlib import crc32

import numpy as np

from volsurf.feeds.protocol import Event, Health, HealthEvent, HttpRequest, InstrumentEvent, Venue
from volsurf.feeds.registry import make_venues
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.instruments import IntArray, Kind
from volsurf.quotes import QuoteBatch
from volsurf.sim.exchange import Exchange, HttpAnswer, Session
from volsurf.sim.listing import ExpiryRules
from volsurf.sim.market import Market
from volsurf.sim.profiles import PROFILES, VenueProfile
from volsurf.sim.venues import selected

SECOND = 1_000_000_000
START = 1_795_521_600 * SECOND
"""2026-11-24 12:00:00 UTC."""
EIGHT = 1_795_766_400 * SECOND
"""2026-11-27 08:00:00 UTC: the last Friday of a month."""
BASE = "ws://sim.test"
_RETRY_NS = SECOND
"""After which a socket that ended is opened again."""
_OPTIONS: dict[str, dict[str, Any]] = {"binance": {"quotes": "all"}, "bybit": {"relist_seconds": 20.0}}

Alter = Callable[[bytes], Iterable[bytes]]
"""What arrives of one message the exchange sent."""
Call = tuple[int, str, tuple[Any, ...]]
"""Number of the connection, method of its venue, arguments; −1 and `collect` for the feed."""


def small_profile(venue: str, names: Sequence[str], *, density: float = 0.2, expiries: int = 3) -> VenueProfile:
    """The families a few names stand for, at a handful of strikes and expiries, quoted around the truth by honest makers."""
    profile, unknown = selected(PROFILES[venue], names)
    assert not unknown
    families = tuple(replace(family, density=density * family.density) for family in profile.families)
    rules = ExpiryRules(dailies=1, weeklies=1, monthlies=1, quarterlies=expiries - 1)
    return replace(profile, families=families, rules=replace(profile.rules, stale_share=0.0), expiries=rules).mispriced(
        0.0
    )


class World:
    """One venue, its exchange, and everything that passed between them.

    Args:
        names: what the feed asks for; the exchange lists that and `beside`.
        tick: seconds from one step of the market, of the exchange and of the feed to the next.

    Attributes:
        now: of the exchange, ns. skew: of the client's clock against it, ns. alter, alter_page: what becomes of messages and
            pages on their way. batch: of the last tick.
        sessions: of the venues connected now. sent: (connection, time, bytes). asked: (connection, time, page).
        calls: everything done to the venues. checksums: of the batches, 0 for none.
    """

    def __init__(
        self,
        venue: str,
        names: Sequence[str],
        *,
        beside: Sequence[str] = (),
        start: int = START,
        tick: float = 0.2,
        density: float = 0.2,
        expiries: int = 3,
        exchange: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        listed = [*names, *beside]
        coins = tuple(dict.fromkeys(name.partition("_")[0] for name in listed))
        self.tick = round(tick * SECOND)
        self.market = Market(1, coins, start_ns=start, step_ns=self.tick)
        made = getattr(importlib.import_module(f"volsurf.sim.{venue}"), f"{venue.capitalize()}Exchange")
        profile = small_profile(venue, listed, density=density, expiries=expiries)
        self.exchange: Exchange = made(self.market, origin_ns=start, profile=profile, **(exchange or {}))
        self.url = BASE + self.exchange.path
        self.venue, self.names = venue, list(names)
        self._options = _OPTIONS.get(venue, {}) | options
        self.now, self.skew = start, 0
        self.books = bool(options.get("books"))
        self.feed = self.new_feed()
        self.alter: Alter | None = None
        self.alter_page: Callable[[int, bytes], tuple[int, bytes]] | None = None
        self.batch: QuoteBatch | None = None
        self.asleep = False
        self.retry_ns = _RETRY_NS
        self.records = True
        """Keep `calls`, `sent`, `asked`, `checksums` and `shown`; off for worlds that run long."""
        self.sessions: dict[Venue, Session] = {}
        self.events: list[Event] = []
        self.sent: list[tuple[int, int, bytes]] = []
        self.asked: list[tuple[int, int, str]] = []
        self.calls: list[Call] = []
        self.checksums: list[int] = []
        self.shown: tuple[dict[int, set[float]], dict[int, set[float]]] = ({}, {})
        self._retry: dict[Venue, int] = {}

    def new_feed(self) -> VenueFeed:
        """A feed like this one that has heard nothing."""
        venues = make_venues(self.venue, self.names, url=self.url, **self._options)
        return VenueFeed(venues, clock=lambda: self.client_now, books=self.books, seed=1)

    def ask(self, names: Sequence[str]) -> None:
        """Have another feed in place of this one, that asks for these names."""
        for session in self.sessions.values():
            session.closed()
        self.sessions.clear()
        self._retry.clear()
        self.names = list(names)
        self.feed = self.new_feed()

    @property
    def client_now(self) -> int:
        """What the client's clock shows."""
        return self.now + self.skew

    @property
    def venues(self) -> dict[Venue, int]:
        """Those that stand in a place and those that are to take over, with their numbers."""
        found = {}
        for place in self.feed._places:
            for member in (place.member, place.twin):
                if member is not None:
                    found[member.venue] = member.number
        return found

    def run(self, seconds: float) -> None:
        """Let both live."""
        for _ in range(round(seconds * SECOND / self.tick)):
            self.now += self.tick
            self.exchange.advance(self.now)
            if self.records:
                self._note_shown()
            if self.asleep:
                continue
            venues = self.venues
            for venue, number in venues.items():
                self._live(venue, number)
            for venue in [venue for venue in self.sessions if venue not in venues]:
                self.sessions.pop(venue).closed()
            self.collect()

    def until(self, condition: Callable[[], object], seconds: float) -> float:
        """Let both live until something holds; seconds it took. Fails where it never did."""
        begin = self.now
        while not condition():
            assert self.now - begin < seconds * SECOND, (
                f"not within {seconds} s; {self.feed.trouble}; {self.told()[-3:]}"
            )
            self.run(self.tick / SECOND)
        return (self.now - begin) / SECOND

    def ready(self, seconds: float = 20.0) -> World:
        """Let both live until the feed is subscribed to everything and has been told of everything: a second and a tick more."""
        self.until(lambda: self.feed.is_ready, seconds)
        self.run(max(1.4, 3 * self.tick / SECOND))
        return self

    def collect(self) -> None:
        """One tick of the feed."""
        batch, events = self.feed.collect(self.client_now)
        self.events += events
        self.batch = batch
        if self.records:
            self.calls.append((-1, "collect", (self.client_now,)))
            self.checksums.append(0 if batch is None else crc32(batch.to_bytes()))

    def cut(self, venue: Venue, reason: str = "cut") -> None:
        """The socket of a venue ends."""
        self.sessions.pop(venue).closed()
        self._retry[venue] = self.now + self.retry_ns
        self._call(venue, "disconnected", self.client_now, reason)

    def told(self, *kinds: Health) -> list[HealthEvent]:
        """Health events so far, of some kinds or all."""
        return [e for e in self.events if isinstance(e, HealthEvent) and (not kinds or e.kind in kinds)]

    def listings(self) -> tuple[set[str], set[str]]:
        """Symbols that were told of as added and as retired so far."""
        changes = [event for event in self.events if isinstance(event, InstrumentEvent)]
        added = {self.feed.universe[i].symbol for event in changes for i in event.added}
        return added, {self.feed.universe[i].symbol for event in changes for i in event.retired}

    def followed(self, *kinds: Kind) -> dict[int, int]:
        """Feed's id → exchange's row of what both list now, indexes apart."""
        universe, row_of = self.feed.universe, self.exchange.listing.row_of
        found = {}
        for i in np.flatnonzero(universe.active).tolist():
            instrument = universe[i]
            if instrument.kind is not Kind.INDEX and (not kinds or instrument.kind in kinds):
                found[i] = row_of.get(instrument.symbol, -1)
        return {i: row for i, row in found.items() if row >= 0}

    def wrong(self) -> list[str]:
        """Prices on the board that the exchange never showed."""
        board, listing = self.feed.board, self.exchange.listing
        found = []
        for i, instrument in enumerate(self.feed.universe):
            if instrument.kind is Kind.OPTION:
                for shown, column in zip(self.shown, (board.bid, board.ask), strict=True):
                    value = float(column[i])
                    if value == value and round(value, 9) not in shown[listing.row_of[instrument.symbol]]:
                        found.append(f"{instrument.symbol} {value}")
        return found

    def late(self) -> list[str]:
        """Sides of options on the board that are not what the exchange shows now."""
        board, quotes = self.feed.board, self.exchange.quotes
        found = []
        for i, row in self.followed(Kind.OPTION).items():
            for mine, theirs in ((board.bid, quotes.bid), (board.ask, quotes.ask)):
                if not same(float(mine[i]), float(theirs[row])):
                    found.append(f"{self.feed.universe[i].symbol}: {mine[i]}, not {theirs[row]}")
        return found

    def _live(self, venue: Venue, number: int) -> None:
        if venue not in self.sessions:
            self._open(venue)
            if venue not in self.sessions:
                return
        session = self.sessions[venue]
        session.timer(self.now)
        for payload in session.control_pings(self.now):
            session.receive_pong(payload, self.now)
        self._carry(venue, number, session)
        self._call(venue, "timer", self.client_now)
        self._carry(venue, number, session)
        closed = self.exchange.maintenance_close if self.exchange.in_maintenance(self.now) else session.closing
        if closed is not None or venue.failure is not None:
            self.cut(venue, str(venue.failure or f"closed by the venue with code {closed[0]} {closed[1]}"))

    def _open(self, venue: Venue) -> None:
        if self.now < self._retry.get(venue, 0) or self.client_now < venue.not_before:
            return
        if self.exchange.in_maintenance(self.now):
            self._retry[venue] = self.now + self.retry_ns
            self._call(venue, "disconnected", self.client_now, "the server answered HTTP 503")
            return
        self.sessions[venue] = self.exchange.open_session(self.now, venue.url.removeprefix(BASE))
        self._call(venue, "connected", self.client_now)

    def _carry(self, venue: Venue, number: int, session: Session) -> None:
        busy = True
        while busy:
            busy = False
            for message in venue.data_to_send():
                busy = True
                if self.records:
                    self.sent.append((number, self.now, message))
                session.receive(message, self.now)
            for request in venue.http_requests():
                busy = True
                if self.records:
                    self.asked.append((number, self.now, request.url))
                status, body, *_ = self._page(request)
                if self.alter_page is not None:
                    status, body = self.alter_page(status, body)
                self._call(venue, "receive_http", request.key, status, body, self.client_now)
            for payload in session.data_to_send():
                busy = True
                for arrived in (payload,) if self.alter is None else self.alter(payload):
                    self._call(venue, "receive", arrived, self.client_now)

    def _page(self, request: HttpRequest) -> HttpAnswer:
        if self.exchange.in_maintenance(self.now):
            return self.exchange.maintenance_answer
        target = urlsplit(request.url)
        return self.exchange.http(target.path, dict(parse_qsl(target.query)), self.now) or (404, b"")

    def _call(self, venue: Venue, method: str, *arguments: Any) -> None:
        if self.records:
            self.calls.append((self.venues.get(venue, -2), method, arguments))
        getattr(venue, method)(*arguments)

    def _note_shown(self) -> None:
        quotes = self.exchange.quotes
        for shown, column in zip(self.shown, (quotes.bid, quotes.ask), strict=True):
            for row, value in enumerate(column.tolist()):
                shown.setdefault(row, set()).add(round(value, 9))


def same(one: float, other: float) -> bool:
    """Equal to the last digit told, or both NaN."""
    return abs(one - other) <= 1e-9 * abs(other) or (one != one and other != other)


def play(feed: VenueFeed, calls: Iterable[Call], *, curious: bool = False) -> list[int]:
    """Do to a feed's venues what was done to others; checksums of its batches.

    Args:
        curious: read every property in between, and take what is to be sent.
    """
    venues = dict(zip(feed.numbers, feed.venues, strict=True))
    checksums = []
    for number, method, arguments in calls:
        if number == -1:
            batch, _ = feed.collect(*arguments)
            checksums.append(0 if batch is None else crc32(batch.to_bytes()))
            continue
        getattr(venues[number], method)(*arguments)
        if curious:
            venue = venues[number]
            assert dict(venue.counters) is not None
            assert (venue.next_deadline or 0) >= 0
            assert isinstance(venue.trouble + venue.suspended + venue.takeover, str)
            assert venue.failure is None or venue.failure
            assert isinstance(venue.is_ready, bool)
            assert venue.silences is not None
    return checksums


def two_sided(world: World) -> IntArray:
    """Ids of options that show both sides."""
    board, universe = world.feed.board, world.feed.universe
    shown = np.isfinite(board.bid) & np.isfinite(board.ask) & (universe.kind == Kind.OPTION) & universe.active
    return np.flatnonzero(shown)
