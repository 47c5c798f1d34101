"""OKX's public channels: which there are, and who listens to what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.sim._okx_listing import KINDS, OkxListing, family_name

if TYPE_CHECKING:
    from volsurf.sim.okx import OkxSession

PER_INSTRUMENT = ("bbo-tbt", "tickers", "books", "books5", "trades", "mark-price")
PER_FAMILY = ("opt-summary", "option-trades", "estimated-price")
FOR_VIPS = ("books-l2-tbt", "books50-l2-tbt")
"""For those who are logged in and pay enough."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel that exists."""

    arg: str
    """As JSON: what every push of it begins with."""
    kind: str
    row: int = -1
    key: str = ""
    """Family, index or `instType`."""


@dataclass(slots=True, eq=False)
class Feed:
    """A channel somebody listens to, and what its listeners were last told."""

    channel: Channel
    sessions: dict[OkxSession, None] = field(default_factory=dict)
    told: Any = None
    told_ns: int = 0


def parse_channel(arg: dict[str, Any], listing: OkxListing) -> Channel | None:
    """The channel a subscription names, or None where there is none."""
    kind = arg.get("channel")
    if not isinstance(kind, str) or not all(isinstance(value, str) for value in arg.values()):
        return None
    encoded = msgspec.json.encode(arg).decode()
    if kind in PER_INSTRUMENT:
        row = listing.row_of.get(arg.get("instId", ""), -1)
        return Channel(encoded, kind, row) if row >= 0 and listing.universe.active[row] else None
    families = {family_name(f): f for f in listing.families}
    if kind in PER_FAMILY:
        family = arg.get("instFamily", "")
        needs_type = kind != "opt-summary"
        known = family in families and (not needs_type or arg.get("instType") == "OPTION")
        return Channel(encoded, kind, key=family) if known else None
    if kind == "index-tickers":
        index = arg.get("instId", "")
        return Channel(encoded, kind, key=index) if index in map(listing.price_index, listing.families) else None
    if kind == "instruments" and arg.get("instType") in KINDS.values():
        return Channel(encoded, kind, key=arg["instType"])
    return None


class FeedTable:
    """All feeds by their argument, and the rows behind those that belong to one instrument, as arrays for the tick."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}
        self._rows: dict[str, tuple[npt.NDArray[np.intp], list[Feed]]] = {}

    def join(self, channel: Channel, session: OkxSession) -> Feed:
        """Add a listener."""
        feed = self.feeds.get(channel.arg)
        if feed is None:
            feed = self.feeds[channel.arg] = Feed(channel)
            self._rows.clear()
        feed.sessions[session] = None
        return feed

    def leave(self, feed: Feed, session: OkxSession) -> None:
        """Remove a listener; a feed nobody listens to ends."""
        feed.sessions.pop(session, None)
        if not feed.sessions and self.feeds.get(feed.channel.arg) is feed:
            del self.feeds[feed.channel.arg]
            self._rows.clear()

    def of_kind(self, kind: str) -> list[Feed]:
        """Feeds of a kind."""
        return self.by_row(kind)[1]

    def by_row(self, kind: str) -> tuple[npt.NDArray[np.intp], list[Feed]]:
        """Rows and feeds of a kind, in the same order; −1 where it is not per instrument."""
        if kind not in self._rows:
            feeds = [feed for feed in self.feeds.values() if feed.channel.kind == kind]
            self._rows[kind] = (np.array([feed.channel.row for feed in feeds], np.intp), feeds)
        return self._rows[kind]

    def of_rows(self, rows: Iterable[int]) -> list[Feed]:
        """Every feed that belongs to one of some instruments."""
        wanted = set(rows)
        return [feed for feed in self.feeds.values() if feed.channel.row in wanted]
