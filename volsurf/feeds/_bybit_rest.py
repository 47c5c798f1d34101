"""Reading what Bybit lists: pages of `instruments-info`, coin by coin, within the limits of its REST interface.

Nothing on the option socket says that a contract was listed, so the list is read again every few minutes, and soon after
08:00 UTC when expiries roll. `baseCoin` must always be named: without it the venue lists Bitcoin's options only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

import msgspec

from volsurf.feeds import _bybit_messages as wire
from volsurf.feeds._bybit_link import Link
from volsurf.feeds._lanes import Lane
from volsurf.feeds._watch import SECOND
from volsurf.feeds._wire import nanoseconds
from volsurf.feeds.protocol import Health, HttpRequest

PAGE_ROWS = 1000
MOST_PAGES = 50
TIMEOUT = 30 * SECOND
BANNED = 600 * SECOND
"""After HTTP 403 "access too frequent": wait ten minutes (*Rate Limit Rules*)."""
_FIRST_PAUSE, _LONGEST_PAUSE = 2 * SECOND, 60 * SECOND
_TOO_MANY, _TOO_MANY_FROM_IP, _BAD_PARAMETER = 10006, 10018, 10001
_PER_SECOND = 30.0
"""Bybit takes 600 requests in 5 s from an address; all connections of a feed together ask a quarter of that at most."""


class Taker(Protocol):
    """Told of the whole listing of a coin."""

    def __call__(self, coin: str, rows: list[msgspec.Raw]) -> None: ...


@dataclass(slots=True)
class _Reading:
    """One coin's listing in the course of being read."""

    coin: str
    due: int | None
    cursor: str = ""
    rows: list[msgspec.Raw] = field(default_factory=list)
    pages: int = 0
    attempts: int = 0
    is_queued: bool = False
    trouble: str = ""

    def restart(self) -> None:
        self.cursor, self.pages = "", 0
        self.rows = []


class Listings:
    """The REST side of one connection.

    Args:
        base: of the addresses. share: part of the rate limit this connection may use, 1 / number of connections.
        every: nanoseconds between two readings of a listing.
        take: told of every complete listing.
    """

    def __init__(self, base: str, link: Link, *, share: float, every: int, take: Taker) -> None:
        self._base, self._link, self._every, self._take = base.rstrip("/"), link, every, take
        self._coins, self._watch = link.coins, link.watch
        self._lane: Lane[_Reading] = Lane(100 * share, SECOND / (_PER_SECOND * share))
        self._number = 0
        self._in_flight: dict[str, tuple[_Reading, int]] = {}
        self._outbox: list[HttpRequest] = []
        self._readings: dict[str, _Reading] = {}

    def clear(self) -> None:
        """A new socket, or none: nothing is asked and nothing is read."""
        self._in_flight.clear()
        self._outbox.clear()
        self._lane.waiting.clear()
        self._readings = {}

    def start(self, *, after: int = 0) -> None:
        """Read every coin's listing, then again and again."""
        self._readings = {coin: _Reading(coin, self._watch.elapsed + after) for coin in self._coins}

    def read_again(self, coins: list[str] | None = None, pause: int = 0) -> None:
        """Read some listings, or all, sooner than they would be."""
        at = self._watch.elapsed + pause
        for coin in self._coins if coins is None else coins:
            reading = self._readings.get(coin)
            if reading is not None and not reading.is_queued and (reading.due is None or reading.due > at):
                reading.due = at

    def pump(self) -> None:
        """Ask for what is due, within the limits."""
        elapsed = self._watch.elapsed
        for key, (reading, deadline) in list(self._in_flight.items()):
            if deadline <= elapsed:
                del self._in_flight[key]
                self._again(reading, f"not answered within {TIMEOUT // SECOND} s", Health.NO_ACK)
        for reading in self._readings.values():
            if reading.due is not None and reading.due <= elapsed and not reading.is_queued:
                reading.is_queued, reading.due = True, None
                self._lane.waiting.append(reading)
        while (taken := self._lane.take(elapsed)) is not None:
            self._ask(taken)

    def receive(self, key: str, status: int, body: bytes) -> bool:
        """Take an answer; False where nobody waits for it. Lets decoding errors out."""
        found = self._in_flight.pop(key, None)
        if found is None:
            return False
        reading = found[0]
        if status != 200:
            self._refused(reading, status, body)
            return True
        try:
            answer = wire.decode_answer(body)
            if venue_ns := nanoseconds(answer.time):
                self._link.heard_time(venue_ns)
            if answer.retCode == 0:
                self._page(reading, wire.decode_page(answer.result))
                return True
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            self._again(reading, "answered with something else than a page of instruments", Health.REFUSED)
            raise
        said = f"{answer.retMsg[:120]} ({answer.retCode})"
        if answer.retCode == _BAD_PARAMETER:
            # The venue does not know the coin: it lists nothing of it.
            self._complete(reading, [])
        elif answer.retCode == _TOO_MANY_FROM_IP:
            self._ban(reading, said)
        else:
            kind = Health.RATE_LIMITED if answer.retCode == _TOO_MANY else Health.REFUSED
            self._again(reading, said, kind)
        return True

    def take_outbox(self) -> list[HttpRequest]:
        """Requests to make."""
        taken, self._outbox = self._outbox, []
        return taken

    @property
    def next_deadline(self) -> int | None:
        """When `pump` has something to do, elapsed ns."""
        times = [deadline for _, deadline in self._in_flight.values()]
        times += [reading.due for reading in self._readings.values() if reading.due is not None]
        if (ready := self._lane.next_ready(self._watch.elapsed)) is not None:
            times.append(ready)
        return min(times, default=None)

    @property
    def trouble(self) -> str:
        """Which listings cannot be read, in words; "" where all can."""
        return "; ".join(reading.trouble for reading in self._readings.values() if reading.trouble)

    def _ask(self, reading: _Reading) -> None:
        self._number += 1
        key = f"instruments-info.{reading.coin}.{self._number}"
        # A cursor comes with its reserved characters escaped already.
        cursor = f"&cursor={quote(reading.cursor, safe='%')}" if reading.cursor else ""
        query = f"category=option&baseCoin={reading.coin}&limit={PAGE_ROWS}{cursor}"
        self._outbox.append(HttpRequest("GET", f"{self._base}/v5/market/instruments-info?{query}", key))
        self._in_flight[key] = (reading, self._watch.elapsed + TIMEOUT)

    def _page(self, reading: _Reading, page: wire.Page) -> None:
        reading.rows += page.rows
        reading.pages += 1
        if not page.nextPageCursor:
            self._complete(reading, reading.rows)
        elif page.nextPageCursor == reading.cursor or reading.pages >= MOST_PAGES:
            self._again(reading, "pages without end", Health.REFUSED)
        else:
            reading.cursor = page.nextPageCursor
            self._lane.waiting.append(reading)
            self.pump()

    def _complete(self, reading: _Reading, rows: list[msgspec.Raw]) -> None:
        reading.restart()
        reading.is_queued, reading.attempts, reading.trouble = False, 0, ""
        reading.due = self._watch.elapsed + self._every
        self._take(reading.coin, rows)

    def _refused(self, reading: _Reading, status: int, body: bytes) -> None:
        said = body[:120].decode("utf-8", "replace")
        if status == 403:
            self._ban(reading, f"HTTP 403: {said}")
        elif status == 0:
            self._again(reading, f"no answer: {said}", Health.NO_ACK)
        else:
            kind = Health.RATE_LIMITED if status == 429 else Health.REFUSED
            self._again(reading, f"HTTP {status}: {said}", kind)

    def _ban(self, reading: _Reading, said: str) -> None:
        # Also what a country that Bybit does not serve is answered with; then ten minutes change nothing, and nothing is lost.
        self._lane.hold(self._watch.elapsed + BANNED)
        self._again(reading, f"{said}; asking again in 10 minutes", Health.RATE_LIMITED, BANNED)

    def _again(self, reading: _Reading, said: str, kind: Health, pause: int | None = None) -> None:
        # From the first page: a cursor belongs to the listing of its moment.
        reading.restart()
        reading.attempts += 1
        reading.is_queued = False
        if pause is None:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE << min(reading.attempts - 1, 6))
        reading.due = self._watch.elapsed + pause
        reading.trouble = f"the options of {reading.coin} cannot be listed: {said}"
        self._watch.report(kind, reading.trouble)
