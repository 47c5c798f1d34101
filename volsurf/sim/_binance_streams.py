"""Stream names of the simulated Binance: which exist, on which route they live, and who listens to what."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.sim._binance_listing import BinanceListing

if TYPE_CHECKING:
    from volsurf.sim.binance import BinanceSession

ROUTES = ("public", "market")
SPEEDS = ("100ms", "500ms")
DEPTHS = (5, 10, 20)
_STREAM = re.compile(r"([a-z0-9.-]+)@(bookTicker|optionTicker|optionTrade|optionMarkPrice|openInterest)(?:@(\d{6}))?")
_DEPTH = re.compile(r"([a-z0-9.-]+)@depth(\d*)@(\w+)")
_OF_ROUTE = {"optionMarkPrice": "market", "openInterest": "market", "index": "market", "listings": "market"}


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream that exists."""

    name: str
    kind: str
    """Of its name: "bookTicker", "optionMarkPrice", "index", "listings", "diff", "depth", …"""
    row: int = -1
    pair: str = ""
    date: str = ""
    depth: int = 0
    speed: str = ""

    @property
    def route(self) -> str:
        """Where it lives."""
        return _OF_ROUTE.get(self.kind, "public")


@dataclass(slots=True, eq=False)
class Feed:
    """A stream somebody listens to, and what its listeners were last told."""

    stream: Stream
    sessions: dict[BinanceSession, None] = field(default_factory=dict)
    told: object = None


def parse_stream(name: str, listing: BinanceListing) -> Stream | None:
    """The stream of a name, or None where there is none: the venue acknowledges those too and says nothing on them.

    Upper case in a symbol is such a name.
    """
    if name == "!index@arr":
        return Stream(name, "index")
    if name == "!optionSymbol":
        return Stream(name, "listings")
    if match := _DEPTH.fullmatch(name):
        symbol, depth, speed = match.groups()
        row = _row(symbol, listing)
        known = row >= 0 and speed in SPEEDS and (not depth or int(depth) in DEPTHS)
        return Stream(name, "depth" if depth else "diff", row, depth=int(depth or 0), speed=speed) if known else None
    match = _STREAM.fullmatch(name)
    if match is None:
        return None
    symbol, kind, date = match.groups()
    row, pair = _row(symbol, listing), symbol.upper()
    is_pair = pair in listing.pairs
    by_date = kind in ("optionTicker", "openInterest") and is_pair
    if bool(date) != by_date:
        return None
    if is_pair:
        return Stream(name, kind, pair=pair, date=date or "") if kind != "bookTicker" else None
    return Stream(name, kind, row) if row >= 0 and kind not in ("optionMarkPrice", "openInterest") else None


def _row(symbol: str, listing: BinanceListing) -> int:
    row = listing.row_of.get(symbol.upper(), -1)
    return row if row >= 0 and listing.universe.active[row] else -1


class FeedTable:
    """All feeds by name, and the rows behind those that belong to one option, as arrays for the tick."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}
        self._rows: dict[str, tuple[npt.NDArray[np.intp], list[Feed]]] = {}

    def join(self, stream: Stream, session: BinanceSession) -> Feed:
        """Add a listener."""
        feed = self.feeds.get(stream.name)
        if feed is None:
            feed = self.feeds[stream.name] = Feed(stream)
            self._rows.clear()
        feed.sessions[session] = None
        return feed

    def leave(self, feed: Feed, session: BinanceSession) -> None:
        """Remove a listener; a feed nobody listens to ends."""
        feed.sessions.pop(session, None)
        if not feed.sessions and self.feeds.get(feed.stream.name) is feed:
            del self.feeds[feed.stream.name]
            self._rows.clear()

    def of_kind(self, kind: str) -> list[Feed]:
        """Feeds of a kind."""
        return [feed for feed in self.feeds.values() if feed.stream.kind == kind]

    def by_row(self, kind: str) -> tuple[npt.NDArray[np.intp], list[Feed]]:
        """Rows and feeds of a kind that belong to one option, in the same order."""
        if kind not in self._rows:
            feeds = [feed for feed in self.of_kind(kind) if feed.stream.row >= 0]
            self._rows[kind] = (np.array([feed.stream.row for feed in feeds], np.intp), feeds)
        return self._rows[kind]

    def of_rows(self, rows: Iterable[int]) -> list[Feed]:
        """Every feed that belongs to one of some options."""
        wanted = set(rows)
        return [feed for feed in self.feeds.values() if feed.stream.row in wanted]
