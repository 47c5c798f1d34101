"""The venues of one recorded feed, without sockets, given the recorded calls again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from volsurf.capture.format import FEED_WIDE, Block, RecordKind
from volsurf.capture.records import Listing, unpack_http_answer, unpack_instruments
from volsurf.errors import InputError, ReplayError
from volsurf.feeds.protocol import BookEvent, Replaceable
from volsurf.feeds.registry import make_venues
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.instruments import Instrument

Receive = Callable[[bytes, int], None]

_RECEIVED = int(RecordKind.RECEIVED)
_OPTIONS = ("trades", "books")


class RecordedFeed:
    """A `VenueFeed` that connects nothing, and who is behind each recorded connection.

    Args:
        settings: of the feed, as the head of its segments has them. number: of the feed, stamped on its batches.
        listings: instruments of each connection, by number, where it begins from a snapshot.

    Attributes:
        feed: the feed. messages: received so far. last_message_ns: when the last came. connected: connections open now.
        opened: sockets opened so far.
        passed_over: calls to a connection the capture does not introduce, which only a damaged one has.
    """

    def __init__(
        self, settings: Mapping[str, Any], number: int, listings: Mapping[int, tuple[Instrument, ...]] | None = None
    ) -> None:
        try:
            venue, underlyings = str(settings["venue"]), list(settings["underlyings"])
        except (KeyError, TypeError) as error:
            raise InputError(
                f"the settings of a recorded feed name no venue and underlyings: {dict(settings)!r}"
            ) from error
        options = {name: settings[name] for name in _OPTIONS if name in settings}
        venues = make_venues(venue, underlyings, url=settings.get("url"), shards=settings.get("shards") or 1, **options)
        numbers = None
        if listings:
            numbers = list(listings)
            if len(numbers) != len(venues):
                raise ReplayError(
                    f"a snapshot of {len(numbers)} connections, and {venue} is made of {len(venues)} today"
                )
        self.name = venue
        self.feed = VenueFeed(venues, number=number, books=bool(settings.get("books")), numbers=numbers)
        self.messages = 0
        self.last_message_ns = 0
        self.connected: set[int] = set()
        self.opened = 0
        self.passed_over = 0

    def resume(self, connection: int, instruments: tuple[Instrument, ...], now: int) -> None:
        """Start a connection in the midst: subscribed to the instruments it had."""
        venue = self.feed.venue(connection)
        if venue is not None:
            venue.resume(instruments, now)
            self.connected.add(connection)

    def take_books(self, books: Iterable[BookEvent], listing: Listing, now: int) -> None:
        """The books of a snapshot, under the ids of its listing; their next changes follow them."""
        table = self.feed.books
        if table is None:
            return
        instruments = dict(zip(listing.ids, listing.instruments, strict=True))
        for book in books:
            instrument = instruments.get(book.instrument_id)
            found = None if instrument is None else self.feed.universe.find(instrument.venue, instrument.symbol)
            if found is not None:
                table.apply(msgspec.structs.replace(book, instrument_id=found), now)

    @property
    def replaceable(self) -> Replaceable | None:
        """Which of its messages replace each other; one rule for all connections, or none."""
        rules = {venue.replaceable for venue in self.feed.venues}
        return rules.pop() if len(rules) == 1 else None

    def receiver(self, connection: int) -> Receive:
        """What takes the messages of a connection."""
        venue = self.feed.venue(connection)
        return _nowhere if venue is None else venue.receive

    def drain(self, connection: int) -> None:
        """Whatever its venue says now was said then; nobody listens here."""
        venue = self.feed.venue(connection)
        if venue is not None:
            venue.data_to_send()
            venue.http_requests()

    def call(self, kind: int, connection: int, now: int, payload: bytes) -> None:
        """Make one recorded call into a venue; what is no such call is passed over."""
        venue = self.feed.venue(connection)
        if venue is None:
            self.passed_over += kind <= RecordKind.DISCONNECTED
            return
        if kind == _RECEIVED:
            venue.receive(payload, now)
            self.messages += 1
            self.last_message_ns = now
        elif kind == RecordKind.TIMER:
            venue.timer(now)
        elif kind == RecordKind.HTTP_ANSWER:
            venue.receive_http(*unpack_http_answer(payload), now)
        elif kind == RecordKind.CONNECTED:
            self.connected.add(connection)
            self.opened += 1
            venue.connected(now)
        elif kind == RecordKind.DISCONNECTED:
            self.connected.discard(connection)
            venue.disconnected(now, payload.decode("utf-8", "replace"))
        else:
            return
        venue.data_to_send()
        venue.http_requests()


def snapshot_listings(block: Block, at: int) -> tuple[dict[int, tuple[Instrument, ...]], Listing]:
    """What a SNAPSHOT record at a position of a block announces: instruments of each connection, and the feed's with its ids."""
    by_connection: dict[int, tuple[Instrument, ...]] = {}
    whole = Listing((), ())
    for row in range(at + 1, len(block)):
        if block.kind[row] != RecordKind.INSTRUMENTS:
            continue
        listing = unpack_instruments(block.payloads[row])
        connection = int(block.connection[row])
        if connection == FEED_WIDE:
            whole = listing
        else:
            by_connection[connection] = listing.instruments
    return by_connection, whole


def _nowhere(data: bytes, now: int) -> None:
    pass
