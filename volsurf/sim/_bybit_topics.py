"""Bybit's option topics: which exist, which are acknowledged although nothing ever comes on them, and who listens to what."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.sim._bybit_listing import BybitListing

if TYPE_CHECKING:
    from volsurf.sim.bybit import BybitSession

DEPTHS = (25, 100)
_BOOK = re.compile(r"orderbook\.([0-9]+)\.(.+)")
_SILENT = re.compile(r"kline\.[^.]+\.(.+)")


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic that is acknowledged."""

    name: str
    kind: str
    """"tickers", "orderbook", "publicTrade", or "silent"."""
    row: int = -1
    coin: str = ""
    depth: int = 0


@dataclass(slots=True, eq=False)
class Feed:
    """A topic somebody listens to, and what its listeners were last told."""

    topic: Topic
    sessions: dict[BybitSession, None] = field(default_factory=dict)
    told: object = None


def parse_topic(name: str, listing: BybitListing) -> Topic | None:
    """The topic of a name, or None where the venue refuses it."""
    kind, _, rest = name.partition(".")
    coins = listing.market.underlyings
    if kind == "tickers":
        # A coin in place of a contract is taken, and never served.
        return Topic(name, "silent") if rest in coins else _of_row(name, "tickers", rest, listing)
    if match := _BOOK.fullmatch(name):
        depth = int(match[1])
        known = _of_row(name, "orderbook", match[2], listing, depth)
        return known if known is None or depth in DEPTHS else Topic(name, "silent", known.row)
    if match := _SILENT.fullmatch(name):
        return _of_row(name, "silent", match[1], listing)
    if kind == "publicTrade" and rest in coins:
        return Topic(name, kind, coin=rest)
    return None


def _of_row(name: str, kind: str, symbol: str, listing: BybitListing, depth: int = 0) -> Topic | None:
    row = listing.row_of.get(symbol, -1)
    listed = row >= 0 and bool(listing.universe.active[row])
    return Topic(name, kind, row, depth=depth) if listed else None


class FeedTable:
    """All feeds by name, and the rows behind those that belong to one contract, as arrays for the tick."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}
        self._rows: dict[tuple[str, int], tuple[npt.NDArray[np.intp], list[Feed]]] = {}

    def join(self, topic: Topic, session: BybitSession) -> Feed:
        """Add a listener."""
        feed = self.feeds.get(topic.name)
        if feed is None:
            feed = self.feeds[topic.name] = Feed(topic)
            self._rows.clear()
        feed.sessions[session] = None
        return feed

    def leave(self, feed: Feed, session: BybitSession) -> None:
        """Remove a listener; a feed nobody listens to ends."""
        feed.sessions.pop(session, None)
        if not feed.sessions and self.feeds.get(feed.topic.name) is feed:
            del self.feeds[feed.topic.name]
            self._rows.clear()

    def by_row(self, kind: str, depth: int = 0) -> tuple[npt.NDArray[np.intp], list[Feed]]:
        """Rows and feeds of a kind that is per contract, in the same order."""
        key = (kind, depth)
        if key not in self._rows:
            feeds = [f for f in self.feeds.values() if f.topic.kind == kind and f.topic.depth == depth]
            self._rows[key] = (np.array([f.topic.row for f in feeds], np.intp), feeds)
        return self._rows[key]

    def of_rows(self, rows: Iterable[int]) -> list[Feed]:
        """Every feed that belongs to one of some contracts."""
        wanted = set(rows)
        return [feed for feed in self.feeds.values() if feed.topic.row in wanted]
