"""The route `/market`: marks of whole chains, index prices, announcements."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from volsurf.feeds import _binance_messages as wire
from volsurf.feeds._binance_link import Link
from volsurf.feeds._binance_marks import Marks
from volsurf.feeds._binance_names import INDEX_STREAM, LISTINGS_STREAM, MARK, stream
from volsurf.feeds._binance_route import Route
from volsurf.feeds._watch import SECOND
from volsurf.instruments import Instrument
from volsurf.quotes import QuoteBatch

CADENCE = 5 * SECOND
"""Marks and indexes come every second; a first message that is not there by then will not come."""
LOST = 60 * SECOND
"""Silence of something that used to come, on a link that answers: the subscription is gone."""


class MarketRoute(Route):
    """`/market`: marks of whole chains, index prices, announcements. Follows everything listed."""

    name = "market"

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.marks = Marks(link)
        self._heard: set[str] = set()

    def new_socket(self) -> None:
        """Nothing has been heard on it."""
        self._heard.clear()

    def _instruments(self) -> list[Instrument]:
        group = self._link.group
        return [*group.indexes.values(), *group.options.values()]

    def streams(self) -> list[str]:
        """Streams of what is followed now."""
        rows, universe = self._link.catalogue.rows, self._link.catalogue.universe
        pairs = dict.fromkeys(universe[row].price_index for row in rows.values())
        return [INDEX_STREAM, LISTINGS_STREAM, *(stream(pair, MARK) for pair in pairs)]

    def granted(self, streams: tuple[str, ...]) -> None:
        """From here on its first message is due."""
        for name in streams:
            if name != LISTINGS_STREAM:
                said = f"{name} silent for {{silence}} s; it ticks every second on the route /market"
                self._link.watch.expect(name, CADENCE, said)

    def drop(self, rows: list[int]) -> None:
        """A chain that is gone needs not be heard."""
        left = {self._link.catalogue.universe[r].price_index for r in self._link.catalogue.rows.values()}
        universe = self._link.catalogue.universe
        kept = {universe[r].price_index for r in set(self._link.catalogue.rows.values()) - set(rows)}
        for pair in left - kept:
            self._link.watch.forget(stream(pair, MARK))

    def receive_marks(self, name: str, message: bytes, now: int) -> None:
        """A chain came."""
        self._link.counters[MARK] += 1
        self._heard.add(name)
        self._link.watch.heard_of(name)
        self.marks.receive(message, now)

    def take(self, kind: str, data: Raw, message: bytes, now: int) -> bool:
        """Take index prices and announcements; chains come by `receive_marks`."""
        link = self._link
        if kind == "index":
            self._indexes(data, now)
        elif kind == "listings":
            new = wire.decode_new_symbol(data)
            is_known = new.s in link.catalogue.rows
            # It has neither tick nor filters, so the listings are read again; "cs" other than trading ends what is known.
            link.listing_wanted = link.listing_wanted or not is_known or new.cs not in ("", "TRADING")
        elif kind == MARK:
            self.receive_marks(self._name_of(data), message, now)
            return True
        else:
            return False
        link.counters[kind] += 1
        return True

    def _name_of(self, data: Raw) -> str:
        # A raw array does not name its stream; any of its options does.
        marks = wire.decode_rows(data)
        first = wire.decode_marks(b"[%b]" % bytes(marks[0]))[0].s if marks else ""
        row = self._link.catalogue.rows.get(first)
        return "" if row is None else stream(self._link.catalogue.universe[row].price_index, MARK)

    def _indexes(self, data: Raw, now: int) -> None:
        link = self._link
        try:
            indexes = wire.decode_indexes(data)
        except msgspec.DecodeError:
            indexes = []
            for raw in wire.decode_rows(data):
                try:
                    indexes += wire.decode_indexes(b"[%b]" % bytes(raw))
                except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                    link.watch.malformed(wire.malformed_cause(error), bytes(raw))
        for index in indexes:
            row = link.catalogue.index_rows.get(index.s)
            venue_ns = wire.nanoseconds(index.E)
            if row is None:
                continue  # of another underlying
            if not 0 < index.p < float("inf"):
                link.counters["index_unusable"] += 1
                continue
            link.note_venue_time(venue_ns)
            link.group.set_spot(index.s, index.p)
            self.marks.set_index(row, index.p, venue_ns, now)
            self._heard.add(INDEX_STREAM)
            link.watch.heard_of(INDEX_STREAM)

    def timer(self, now: int) -> None:
        """Clear what its chain names no more."""
        if rows := self.marks.notice_gone(now):
            self.marks.report_gone(rows)

    def silences(self) -> dict[str, tuple[int, int]]:
        """Beside the streams "quotes": without any chain there are no live quotes of this venue."""
        silences = super().silences()
        chains = [silence for name, (silence, _) in silences.items() if name.endswith(MARK)]
        return silences | ({"quotes": (min(chains), CADENCE)} if chains else {})

    def take_quotes(self, now: int) -> QuoteBatch | None:
        """What changed since the last call."""
        return self.marks.take(now)

    def clear(self, rows: list[int], now: int) -> None:
        """Both sides of these options are gone."""
        self.marks.clear(rows, now)

    def lost(self, symbols: set[str], now: int) -> None:
        """The socket is gone."""
        self.marks.lost(symbols, now)

    def lost_stream(self) -> str:
        """A stream that used to come, or not one message although all is acknowledged."""
        watch, expected = self._link.watch, [s for s in self._link.granted if s != LISTINGS_STREAM]
        if expected and not self._heard:
            quietest = min(watch.silence_of(name) for name in expected)
            if quietest > 3 * CADENCE:
                return f"nothing came within {quietest // SECOND} s of the subscription: not the route /market?"
        lost = next((name for name in sorted(self._heard) if watch.silence_of(name) > LOST), "")
        return lost and f"{lost} silent for {LOST // SECOND} s on a connection that answers"
