"""What the parts of one Binance connection share: the clock, the instruments, what is asked for and what was granted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from volsurf.feeds._binance_group import Group
from volsurf.feeds._binance_requests import SUBSCRIBE, UNSUBSCRIBE, Requests, Rest
from volsurf.feeds._catalogue import Catalogue
from volsurf.feeds._watch import Watch
from volsurf.feeds.protocol import Health

_NEVER = 1 << 62


class Link:
    """State of one connection.

    Args:
        member: number of the connection within the group.

    Attributes:
        asked: streams subscribed to, or being so. granted: those acknowledged, which says nothing of their existence.
        refused: those refused by name; they are not asked for again.
        venue_ns: the venue's time as told on this connection; 0 before.
        first_expiry_ns: the next expiry among the instruments followed.
        listing_wanted: the listings should be read again: something unlisted was heard of, or a listed thing is gone.
    """

    def __init__(self, group: Group, member: int, rest_url: str) -> None:
        self.group, self.member = group, member
        self.counters: Counter[str] = Counter()
        self.watch = Watch(self.counters)
        self.catalogue: Catalogue[str] = Catalogue()
        self.requests = Requests()
        self.rest = Rest(rest_url, group.budget)
        self.asked: dict[str, None] = {}
        self.granted: set[str] = set()
        self.refused: set[str] = set()
        self.venue_ns = 0
        self.first_expiry_ns = _NEVER
        self.listing_wanted = False
        self._retired_told: set[str] = set()

    def clear(self) -> None:
        """Forget what belonged to a socket."""
        self.requests.clear(self.watch.elapsed)
        self.rest.clear(self.watch.elapsed)
        self.asked.clear()
        self.granted.clear()
        self.refused.clear()
        self._retired_told.clear()
        self.listing_wanted = False

    def subscribe(self, wanted: Iterable[str]) -> None:
        """Ask for these streams and no others."""
        streams = dict.fromkeys(wanted)
        gone = [stream for stream in self.asked if stream not in streams]
        fresh = [stream for stream in streams if stream not in self.asked]
        # What is dropped goes first: there may be no room for the fresh ones before.
        self.requests.submit_streams(UNSUBSCRIBE, (stream for stream in gone if stream not in self.refused))
        self.requests.submit_streams(SUBSCRIBE, fresh)
        self.asked = streams
        self.granted.difference_update(gone)
        self.refused.difference_update(gone)

    def note_venue_time(self, venue_ns: int) -> None:
        """The venue said what time it is."""
        if venue_ns:
            self.venue_ns = self.group.venue_ns = venue_ns
            self.watch.heard_time(venue_ns)

    def note_expiries(self) -> None:
        """The instruments followed have changed."""
        first = self.catalogue.first_expiry_ns
        self.first_expiry_ns = _NEVER if first is None else first

    def refuse_retired(self, kind: str) -> None:
        """A message of the API that ended in December 2025: counted and named, once each, and not read."""
        self.counters[f"retired.{kind}"] += 1
        if kind not in self._retired_told:
            self._retired_told.add(kind)
            self.watch.report(Health.REFUSED, f"'{kind}' is a message of the retired nbstream API: not read")
