"""A venue of few words for tests of the shells: its listing comes by HTTP or at once, quotes as small JSON, limits as told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from math import nan
from typing import Any

from volsurf.feeds._catalogue import Catalogue
from volsurf.feeds._pending import Pending
from volsurf.feeds._watch import SECOND, Watch
from volsurf.feeds.protocol import BookEvent, Event, Health, HttpRequest, InstrumentEvent, TradeEvent, Venue
from volsurf.instruments import Instrument, Kind
from volsurf.quotes import QuoteBatch

LIFE = 24 * 3600 * SECOND
NOTICE = 10 * 60 * SECOND
"""The venue cuts a socket `LIFE` after it opened; its protocol asks for a takeover `NOTICE` before."""
NAMES = ("A", "B", "C", "D")


def option(name: str) -> Instrument:
    """An option of this venue."""
    return Instrument(
        venue="scripted", symbol=name, kind=Kind.OPTION, underlying="BTC", expiry_ns=1 << 61, strike=1.0 + ord(name[0])
    )


class Scripted(Venue):
    """A venue that believes what it is told.

    Args:
        names: what it lists. ask: an HTTP address it reads after connecting; it is ready once that is answered with 200.
    """

    name = "scripted"

    def __init__(self, names: Sequence[str] = NAMES, *, url: str = "ws://127.0.0.1:1", ask: str = "") -> None:
        self.names, self._url, self._ask = names, url, ask
        self.counters: Counter[str] = Counter()
        self._watch = Watch(self.counters)
        self._catalogue: Catalogue[str] = Catalogue()
        self._pending = Pending(self._catalogue.universe)
        self.universe = self._catalogue.universe
        self._opened: int | None = None
        self._requests: list[HttpRequest] = []
        self._outbox: list[bytes] = []
        self.answers: list[tuple[str, int, bytes]] = []
        self.notice = ""
        self.ready = False
        self.unlisted: str | None = None
        self.broken: str | None = None

    @property
    def url(self) -> str:
        return self._url

    def connected(self, now: int) -> None:
        self._watch.advance(now)
        self._watch.opened()
        self._opened, self.notice, self.broken = now, "", None
        self._watch.report(Health.CONNECTED)
        if self._ask:
            self._requests.append(HttpRequest("GET", self._ask, f"listing {now}"))
        else:
            self.list_all()

    def list_all(self) -> None:
        """Discovery and subscription are done."""
        change = self._catalogue.follow([option(name) for name in self.names], "all", complete=True)
        self._retire(change.retired)
        if change.added:
            self._watch.emit(InstrumentEvent(added=tuple(change.added)))
        self._outbox.append(b'{"subscribe":"all"}')
        self.ready = True
        self._watch.report(Health.READY)

    def _retire(self, rows: list[int]) -> None:
        if rows:
            self._pending.clear(rows, self._watch.now)
            self._catalogue.retire(rows)
            self._watch.emit(InstrumentEvent(retired=tuple(rows)))

    def disconnected(self, now: int, reason: str) -> None:
        self._watch.advance(now)
        self._opened, self.ready = None, False
        self._pending.clear_all(now)
        self._watch.report(Health.DISCONNECTED, reason)

    def receive(self, data: bytes | str, now: int) -> None:
        self._watch.advance(now)
        self.counters["messages"] += 1
        said: dict[str, Any] = json.loads(data)
        if "notice" in said:
            self.notice = said["notice"]
            return
        row = self._catalogue.rows.get(said["i"])
        if row is None:
            self.counters["unknown"] += 1
        elif "gone" in said:
            self._retire([row])
        elif "trade" in said:
            self._watch.emit(TradeEvent(row, said["p"], 1.0, True, said["t"], said["trade"]))
        elif "u" in said:
            bids, asks = (tuple((float(p), float(q)) for p, q in said.get(side, ())) for side in ("bids", "asks"))
            self._watch.emit(BookEvent(row, "pu" not in said, bids, asks, said["u"], said.get("pu", 0), said["t"]))
        else:
            bid, ask = said.get("b", nan), said.get("a", nan)
            self._pending.quote(row, bid, 1.0, ask, 1.0, said["t"], now)

    def receive_http(self, key: str, status: int, body: bytes, now: int) -> None:
        self._watch.advance(now)
        self.answers.append((key, status, body))
        if status == 200:
            self.list_all()

    def timer(self, now: int) -> None:
        self._watch.advance(now)

    @property
    def next_deadline(self) -> int | None:
        return None if self._opened is None else self._watch.now + SECOND

    @property
    def is_ready(self) -> bool:
        return self.ready

    @property
    def failure(self) -> str | None:
        return self.broken

    @property
    def fatal(self) -> str | None:
        return self.unlisted

    @property
    def takeover(self) -> str:
        if self._opened is not None and self._watch.now - self._opened > LIFE - NOTICE:
            return "the venue cuts a connection after 24 h"
        return self.notice

    def twin(self) -> Venue:
        return Scripted(self.names, url=self._url, ask=self._ask)

    def data_to_send(self) -> list[bytes]:
        taken, self._outbox = self._outbox, []
        return taken

    def http_requests(self) -> list[HttpRequest]:
        taken, self._requests = self._requests, []
        return taken

    def events(self) -> list[Event]:
        return self._watch.take_events()

    def take_quotes(self, now: int) -> QuoteBatch | None:
        return self._pending.take(now)


def quote(name: str, bid: float | None, ask: float | None, time_ns: int) -> bytes:
    """A quote message; None for an empty side."""
    sides = {"b": bid, "a": ask}
    return json.dumps({"i": name, "t": time_ns, **{k: v for k, v in sides.items() if v is not None}}).encode()
