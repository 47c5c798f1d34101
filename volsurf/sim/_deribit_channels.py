"""Deribit's subscription channels: parsing their names, and who listens to what."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.instruments import Kind
from volsurf.sim._deribit_listing import TERMS, DeribitListing

if TYPE_CHECKING:
    from volsurf.sim.deribit import DeribitSession

INTERVALS = ("100ms", "agg2")
"""Public intervals. `agg2` is two seconds by the ticker page; the documentation disagrees with itself."""
RAW = "raw"
GROUPS = ("none", "1", "2", "5", "10", "25", "100", "250")
DEPTHS = (1, 10, 20)

_BOOK = re.compile(r"book\.([^.]+)\.([^.]+)\.(\d+)\.([^.]+)")
_BY_INTERVAL = re.compile(r"(ticker|book|trades)\.([^.]+)\.([^.]+)")
_BY_NAME = re.compile(r"(quote|incremental_ticker)\.([^.]+)")
_BY_INDEX = re.compile(
    r"(markprice\.options|deribit_price_index|estimated_expiration_price|deribit_volatility_index)\.([a-z_]+)"
)
_TRADES = re.compile(r"trades\.(option|future)\.([A-Za-z]+)\.([^.]+)")
_STATE = re.compile(r"instrument\.state\.(option|future|any)\.([A-Za-z]+)")
_PLATFORM = ("platform_state", "platform_state.public_methods_state")


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel that exists."""

    name: str
    kind: str
    """First words of the name: "ticker", "book", "book_top", "trades_of", …"""
    interval: str = ""
    row: int = -1
    key: str = ""
    """Index name, or kind and currency."""
    depth: int = 0


@dataclass(slots=True, eq=False)
class Feed:
    """A channel somebody listens to, and what its listeners were last told."""

    channel: Channel
    sessions: dict[DeribitSession, None] = field(default_factory=dict)
    told: object = None


def parse_channel(name: str, listing: DeribitListing) -> Channel | None:
    """The channel of a name, or None where there is no such channel: the venue leaves those out without a word.

    The interval of a channel that exists may be "raw"; who may have that is the session's business.
    """
    if name in _PLATFORM:
        return Channel(name, name)
    if match := _TRADES.fullmatch(name):
        kind, currency, interval = match.groups()
        known = interval in (*INTERVALS, RAW) and _has_currency(currency, listing)
        return Channel(name, "trades_of", interval, key=f"{kind}.{currency}") if known else None
    if match := _BY_INTERVAL.fullmatch(name):
        kind, instrument, interval = match.groups()
        row = listing.row_of.get(instrument, -1)
        known = interval in (*INTERVALS, RAW) and _is_listed(row, listing)
        return Channel(name, kind, interval, row) if known else None
    if match := _BOOK.fullmatch(name):
        instrument, group, depth, interval = match.groups()
        row = listing.row_of.get(instrument, -1)
        known = interval in INTERVALS and group in GROUPS and int(depth) in DEPTHS and _is_listed(row, listing)
        return Channel(name, "book_top", interval, row, depth=int(depth)) if known else None
    if match := _BY_NAME.fullmatch(name):
        kind, instrument = match.groups()
        row = listing.row_of.get(instrument, -1)
        return Channel(name, kind, row=row) if _is_listed(row, listing) else None
    if match := _BY_INDEX.fullmatch(name):
        kind, index = match.groups()
        return Channel(name, kind, key=index) if underlying_of_index(index, listing) else None
    if match := _STATE.fullmatch(name):
        kind, currency = match.groups()
        return Channel(name, "instrument.state", key=f"{kind}.{currency}") if _has_currency(currency, listing) else None
    return None


def underlying_of_index(index: str, listing: DeribitListing) -> str | None:
    """The underlying an index belongs to, e.g. "BTC" of "btc_usd"."""
    return next((u for u in listing.market.underlyings if TERMS[u].index == index), None)


def _is_listed(row: int, listing: DeribitListing) -> bool:
    return row >= 0 and bool(listing.universe.active[row])


def _has_currency(currency: str, listing: DeribitListing) -> bool:
    return currency == "any" or any(TERMS[u].currency == currency for u in listing.market.underlyings)


class FeedTable:
    """All feeds by name, and the rows behind those that belong to one instrument, as arrays for the tick."""

    def __init__(self, listing: DeribitListing) -> None:
        self._listing = listing
        self.feeds: dict[str, Feed] = {}
        self._rows: dict[tuple[str, str], tuple[npt.NDArray[np.intp], list[Feed]]] = {}

    def join(self, channel: Channel, session: DeribitSession) -> Feed:
        """Add a listener."""
        feed = self.feeds.get(channel.name)
        if feed is None:
            feed = self.feeds[channel.name] = Feed(channel)
            self._rows.clear()
        feed.sessions[session] = None
        return feed

    def leave(self, feed: Feed, session: DeribitSession) -> None:
        """Remove a listener; a feed nobody listens to ends."""
        feed.sessions.pop(session, None)
        if not feed.sessions and self.feeds.get(feed.channel.name) is feed:
            del self.feeds[feed.channel.name]
            self._rows.clear()

    def of_kind(self, kind: str) -> list[Feed]:
        """Feeds of a kind that is not per instrument."""
        return [feed for feed in self.feeds.values() if feed.channel.kind == kind]

    def by_row(self, kind: str, interval: str = "") -> tuple[npt.NDArray[np.intp], list[Feed]]:
        """Rows and feeds of a kind that is per instrument, in the same order."""
        key = (kind, interval)
        if key not in self._rows:
            feeds = [f for f in self.feeds.values() if f.channel.kind == kind and f.channel.interval == interval]
            self._rows[key] = (np.array([f.channel.row for f in feeds], np.intp), feeds)
        return self._rows[key]

    def of_rows(self, rows: Iterable[int]) -> list[Feed]:
        """Every feed that belongs to one of some instruments."""
        wanted = set(rows)
        return [feed for feed in self.feeds.values() if feed.channel.row in wanted]


PER_KIND = {Kind.OPTION: "option", Kind.FUTURE: "future", Kind.PERPETUAL: "future"}
"""The venue's word for a kind in channels and discovery."""
