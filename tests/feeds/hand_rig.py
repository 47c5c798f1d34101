"""One simulated venue and the feed that follows it, without sockets, under a clock moved by hand: the same looks as `fault_rig`.

Each `Connection` of the feed has a `Line` to the venue in place of a socket. A frame that no library would accept ends it.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.feeds.fault_rig import FAMILY, HOLD_SECONDS, LAG, Cell, has_struck, is_telling, lasts, small_profile
from tests.feeds.shown_prices import SECOND, ShownPrices
from volsurf.feeds._backoff import Backoff
from volsurf.feeds.protocol import Event, HealthEvent, HttpRequest, InstrumentEvent, Venue
from volsurf.feeds.registry import make_venues
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.sim.exchange import Session
from volsurf.sim.faults import FaultRun, FaultScript, FaultyWire, Unframed
from volsurf.sim.listing import to_ns
from volsurf.sim.market import Market
from volsurf.sim.venues import make_server

START = to_ns(datetime(2026, 11, 24, 12, tzinfo=UTC))
STEP = SECOND // 10


class Line:
    """A venue's session and a `Venue` at its two ends."""

    def __init__(self, rig: HandRig, venue: Venue, number: int) -> None:
        self.venue = venue
        self.session: Session | None = None
        self.paused = 0
        self._rig = rig
        self._wire: FaultyWire | None = None
        self._backoff = Backoff(random.Random(number))
        self._opens = rig.now
        self._held: list[bytes] = []
        self._asked: list[HttpRequest] = []

    def step(self, now: int) -> None:
        """Everything that is due between the two ends."""
        if self.session is None:
            if now < self._opens:
                return
            self._open(now)
        for _ in range(4):
            if self.session is None:
                return
            self._exchange_words(now)
        if self.session is not None and self.venue.is_ready:
            self._backoff.reset()

    def close(self, now: int, reason: str) -> None:
        """The connection ends; the next attempt is after a pause."""
        if self.session is not None:
            self.session.closed()
        self.session = None
        self._held.clear()
        self._asked.clear()
        self.venue.disconnected(self._rig.client_now, reason)
        pause = max(int(self._backoff.next() * SECOND), self.venue.not_before - self._rig.client_now)
        self.paused += pause
        self._opens = now + pause

    def give_wire(self, run: FaultRun, now: int) -> None:
        """Let this line suffer."""
        if self.session is not None:
            self._wire = run.open(now, self.session)

    def client(self) -> tuple[int, Session] | None:
        """Number and session, of a line that is open."""
        return None if self.session is None or self._wire is None else (self._wire.client, self.session)

    def _open(self, now: int) -> None:
        exchange = self._rig.exchange
        if exchange.in_maintenance(now):
            self.close(now, "the handshake was refused: HTTP 503")
            return
        target = urlsplit(self.venue.url)
        assert exchange.accepts(target.path), f"the venue has no {target.path}"
        self.session = exchange.open_session(now, f"{target.path}?{target.query}" if target.query else target.path)
        self._wire = self._rig.run.open(now, self.session) if self._rig.run is not None else None
        self.venue.connected(self._rig.client_now)

    def _exchange_words(self, now: int) -> None:
        session, wire = self.session, self._wire
        assert session is not None
        silent = wire is not None and wire.is_silent(now)
        if not self._deliver(now):
            self.close(now, "not a websocket frame")
            return
        self.venue.timer(self._rig.client_now)
        self._held += self.venue.data_to_send()
        self._asked += self.venue.http_requests()
        if not silent:
            for message in self._held:
                session.receive(message, now)
            self._held.clear()
            for ping in session.control_pings(now):
                session.receive_pong(ping, now)
        self._answer_pages(now)
        self._end(now, silent)

    def _deliver(self, now: int) -> bool:
        """Hand over what the venue says; False where a frame is none."""
        assert self.session is not None
        payloads = self.session.data_to_send()
        for payload in self._wire.send(now, payloads) if self._wire is not None else payloads:
            if isinstance(payload, Unframed):
                return False
            self.venue.receive(payload, self._rig.client_now)
        return True

    def _answer_pages(self, now: int) -> None:
        asked, self._asked = self._asked, []
        for request in asked:
            target = urlsplit(request.url)
            exchange = self._rig.exchange
            answer = exchange.http(target.path, dict(parse_qsl(target.query)), now)
            if exchange.in_maintenance(now):
                answer = exchange.maintenance_answer
            status, body = (404, b"{}") if answer is None else answer[:2]
            self.venue.receive_http(request.key, int(status), body, self._rig.client_now)

    def _end(self, now: int, silent: bool) -> None:
        session, exchange = self.session, self._rig.exchange
        assert session is not None
        cut = self._wire.cut(now) if self._wire is not None else None
        if cut is not None:
            self.close(now, "closed by the venue")
        elif exchange.in_maintenance(now):
            self._deliver(now)
            self.close(now, exchange.maintenance_close[1])
        elif session.closing and not silent:
            self._deliver(now)
            self.close(now, session.closing[1])
        elif self.venue.failure:
            self.close(now, self.venue.failure)


class HandRig:
    """`rig = HandRig("okx"); rig.settled(20.0); cell = rig.strike("gap", "at 0s gap channel=book count=5")`.

    Args:
        step_ns: between two ticks of the venue; all seconds are of this clock.
    """

    def __init__(self, venue: str, *, seed: int = 1, step_ns: int = STEP) -> None:
        self.venue = venue
        self.now = START
        self.step_ns = step_ns
        self.market = Market(seed, ("BTC",), start_ns=START, step_ns=step_ns)
        server = make_server(venue, self.market, profile=small_profile(venue), origin_ns=START, clock=lambda: self.now)
        self.exchange = server.exchange
        self.shown = ShownPrices(self.exchange, lag=max(LAG[venue], 2.5 * step_ns / SECOND))
        self.run: FaultRun | None = None
        self.events: list[Event] = []
        options: dict[str, dict[str, Any]] = {"bybit": {"relist_seconds": 20.0}, "binance": {"quotes": "all"}}
        url = f"ws://127.0.0.1:1{self.exchange.path}"
        venues = make_venues(venue, [FAMILY[venue]], url=url, books=True, **options.get(venue, {}))
        self.feed = VenueFeed(venues, clock=lambda: self.client_now, books=True)
        self.client_ahead_ns = 0
        """How far the client's clock is ahead of the venue's."""
        self.is_asleep = False
        """The client's machine: what the venue says waits in the sockets."""
        self._lines: dict[int, Line] = {}

    @property
    def client_now(self) -> int:
        """What the client's clock shows, ns UTC."""
        return self.now + self.client_ahead_ns

    def step(self, cell: Cell | None = None) -> None:
        """One tick of the venue, what comes of it, and a look at every price."""
        self.now += self.step_ns
        if self.run is not None:
            self.run.step(self.now, self.exchange, [c for line in self._lines.values() if (c := line.client())])
        self.exchange.advance(self.now)
        for line in self._lines.values():
            if line.session is not None:
                line.session.timer(self.now)
        self.shown.record()
        if not self.is_asleep:
            self._step_client()
        if cell is not None:
            self._look(cell)

    def _step_client(self) -> None:
        connections = self.feed._connections
        for number in self._lines.keys() - connections.keys():
            # A twin took over.
            line = self._lines.pop(number)
            if line.session is not None:
                line.session.closed()
        for number, connection in connections.items():
            if number not in self._lines:
                self._lines[number] = Line(self, connection.venue, number)
            self._lines[number].step(self.now)
        _, events = self.feed.collect(self.client_now)
        self.events += [e for e in events if isinstance(e, HealthEvent | InstrumentEvent)]

    def _look(self, cell: Cell) -> None:
        cell.looks += 1
        wrong = self.shown.wrong(self.feed)
        cell.wrong += len(wrong)
        if len(wrong) and not cell.note:
            cell.note = f"{self.feed.universe[int(wrong[0])].symbol} showed {self.feed.board.bid[int(wrong[0])]:g}"

    def settled(self, seconds: float, *, since_ns: int = 0, cell: Cell | None = None) -> float:
        """Seconds until everything was right, and stayed so; NaN for never."""
        began, start = -1, self.now
        while self.now - start < seconds * SECOND:
            late = self.shown.late(self.feed, since_ns)
            if cell is not None:
                cell.late = len(late)
            if not self.feed.is_ready or self.feed.trouble or len(late):
                began = -1
            elif began < 0:
                began = self.now
            elif self.now - began >= HOLD_SECONDS * SECOND:
                return (began - start) / SECOND
            self.step(cell)
        return float("nan")

    def totals(self) -> Counter[str]:
        """Counters and events, as `Rig.totals` has them."""
        counts = Counter({name: n for name, n in self.feed.counters.items() if n})
        assert self.feed.books is not None
        counts.update({f"books.{name}": n for name, n in self.feed.books.counters.items()})
        counts.update(f"health.{e.kind.name}" for e in self.events if isinstance(e, HealthEvent))
        counts["retired"] = sum(len(e.retired) for e in self.events if isinstance(e, InstrumentEvent))
        return counts

    def strike(self, fault: str, script: str, *, forgiving: bool = False, until: str = "", limit: float = 30.0) -> Cell:
        """As `Rig.run`; time is the rig's own."""
        cell = Cell(self.venue, fault)
        before, self.shown.untrue = self.totals(), 0
        lines = [line for line in self._lines.values() if line.session is not None]
        entries = [
            entry.replace("{clients}", str(i))
            for entry in script.split(";")
            for i in (range(len(lines)) if "{clients}" in entry else (0,))
        ]
        self.run = run = FaultRun(FaultScript.parse("; ".join(entries)), start_ns=self.now, venue=self.venue)
        for line in self._lines.values():
            line.paused = 0
            line.give_wire(run, self.now)
        wait = 20 * SECOND
        while self.now - run.start_ns < (lasts(run.script) if has_struck(run) else wait):
            self.step(cell)
        if until:
            wanted, end = before[until] + run.log.counts.total(), self.now + int(limit * SECOND)
            while self.totals()[until] < wanted and self.now < end:
                self.step(cell)
        cell.recovered = self.settled(limit, since_ns=self.now if forgiving else 0, cell=cell)
        cell.paused = max(line.paused for line in self._lines.values()) / SECOND
        cell.untrue = self.shown.untrue
        cell.injected = dict(run.log.counts)
        cell.counted = {name: n for name, n in (self.totals() - before).items() if n and is_telling(name)}
        return cell
