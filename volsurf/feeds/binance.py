"""Binance European Options' public market data as `Venue`s: bytes and a clock reading in, events and bytes out.

The API of December 2025; the one before it (nbstream) answers no more, and its messages are refused by name.

Two routes, each a websocket address of its own. On `/market` one stream a coin brings the whole chain once a second: best bid
and ask, marks, vols, index and carry. On `/public` a stream an option brings best bid and ask on every change, and order books
and trades. `make` gives one connection of the first and as many of the second as 200 streams each require; they share one
`Group`, where they agree on the listings, on who follows what, and on whose quote is newer.

Sequence of a connection: read the listings over HTTP (one of the group does); subscribe, 100 streams a message; expect a first
message within five seconds, because a stream on the wrong route, or one that does not exist, is acknowledged and silent.
Units end here: prices per contract become prices per coin, contracts become coins, 0 and -1.0 become "no quote".

Premiums stay the venue's own, which are present values: see `_binance_marks` for forward and discount.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from volsurf.feeds import _binance_messages as wire
from volsurf.feeds._binance_group import Group
from volsurf.feeds._binance_link import Link
from volsurf.feeds._binance_market import MarketRoute
from volsurf.feeds._binance_names import MARK, kind_of, parse_symbol
from volsurf.feeds._binance_public import PublicRoute
from volsurf.feeds._binance_quotes import HEAD, NUMBER, STREAM_AT, TICKER_HEAD, Quotes
from volsurf.feeds._binance_replies import Replies, is_rate_limit, missing_sentence
from volsurf.feeds._binance_route import Route
from volsurf.feeds._binance_settings import PRODUCTION, TESTNET, Selection, Settings
from volsurf.feeds._watch import SECOND
from volsurf.feeds.protocol import Event, Health, HttpRequest, Replaceable, Venue, VenueGreeks
from volsurf.instruments import Instrument
from volsurf.quotes import QuoteBatch

__all__ = ["PRODUCTION", "TESTNET", "Binance", "make", "parse_symbol"]

READ_AGAIN = 600 * SECOND
"""Between two readings of the listings; what is announced meanwhile is read sooner."""
READ_SOON, READ_LATER = 2 * SECOND, 60 * SECOND
"""After the last reading, where something asks for another: each time twice as long, until nothing has asked for a while."""
LIFETIME = 23 * 3600 * SECOND
"""Binance cuts a connection at 24 hours. The members of a group go five minutes apart."""
_APART = 300 * SECOND
_EXPIRY_GRACE = 30 * SECOND
_TOO_MANY_PAUSE = 60 * SECOND
_SILENCE = {"market": 10 * SECOND, "public": 30 * SECOND}
"""Without one message on the connection it is asked whether it lives."""
_MARK_TAIL = f"@{MARK}".encode()
_TICKER_HEAD_LENGTH = len(TICKER_HEAD)
_LONGEST_HEAD = 160
"""Bytes within which a book ticker has shown its name."""


class Binance(Venue):
    """One connection to Binance; `make` gives the set of them that a feed needs.

    An underlying that is not listed is only known after discovery: then a REFUSED event names what there is, and `fatal` is set
    if nothing at all is left to follow.

    Args:
        settings: of the whole feed. group: the connections this one belongs to.
        member: its number among them: 0 is the route `/market`, the others are of `/public`.
    """

    name = "binance"

    def __init__(self, settings: Settings, group: Group, member: int) -> None:
        self._settings, self._group, self._member = settings, group, member
        self._link = Link(group, member, settings.rest_url)
        self._market = None if member else MarketRoute(self._link)
        self._quotes: Quotes | None = None
        self._route: Route
        if self._market is not None:
            self._route = self._market
        else:
            trades = settings.trades and member == 1
            public = PublicRoute(self._link, tickers=settings.tickers, book=settings.book, trades=trades)
            self._route, self._quotes = public, public.quotes
        self._replies = Replies(self._link, self._route)
        self._watch = self._link.watch
        self._is_connected = self._was_ready = False
        self._seen = -1
        self._opened = (0, 0)
        self._read_at = 0
        self._read_pause = READ_SOON
        self.universe = self._link.catalogue.universe

    def __repr__(self) -> str:
        return f"Binance(/{self._route.name}, {len(self._link.asked)} streams, {self.universe!r})"

    @property
    def url(self) -> str:
        """Where the shell connects."""
        return f"{self._settings.url}/{self._route.name}/stream"

    @property
    def counters(self) -> Counter[str]:  # type: ignore[override]
        """Messages by kind, malformed ones by cause, what was stale or unknown."""
        if self._quotes is not None:
            self._link.counters["bookTicker"] = self._quotes.received
        return self._link.counters

    def connected(self, now: int) -> None:
        """A new socket is open: read the listings, or follow at once what another connection of the group has read."""
        self._begin(now)
        self._watch.report(Health.CONNECTED, self.url)
        if self._group.discovered:
            self._follow()
        if (not self._group.discovered or not self._member) and self._group.may_ask(self._member, now):
            self._read()
        self._pump()

    def disconnected(self, now: int, reason: str) -> None:
        """The socket is gone, or could not be opened: both sides of what only it quoted are cleared in the next batch."""
        self._watch.advance(now)
        self._watch.closed()
        if is_rate_limit(0, reason):
            self._replies.not_before = max(self._replies.not_before, now + _TOO_MANY_PAUSE)
            self._watch.report(Health.RATE_LIMITED, reason)
        self._is_connected = False
        self._link.clear()
        self._replies.clear()
        self._route.new_socket()
        self._route.lost(self._group.forget(self._member), now)
        self._watch.report(Health.DISCONNECTED, reason)

    def receive(self, data: bytes | str, now: int) -> None:
        """Take one websocket message. Never raises on bad input: it counts and reports it."""
        watch = self._watch
        if now != watch.now:
            watch.advance(now)
        watch.heard = watch.elapsed
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        if data.startswith(HEAD):
            quotes = self._quotes
            if quotes is None:
                if self._take_marks(data, now):
                    return
            elif (end := data.find(TICKER_HEAD, STREAM_AT, _LONGEST_HEAD)) > 0:
                at = end + _TICKER_HEAD_LENGTH
                stream, number = data[STREAM_AT:end], data[at : data.find(b",", at)]
                quotes.received += 1
                known = quotes.unread.get(stream)
                # Ids have no leading zeros, so of two of one length the digits themselves are in order.
                if known is None or (
                    number >= known[1] if len(number) == len(known[1]) else len(number) > len(known[1])
                ):
                    quotes.unread[stream] = data, number, now
                else:
                    self._link.counters["ticker_stale"] += 1
                return
        self._take(data, now)

    def receive_http(self, key: str, status: int, body: bytes, now: int) -> None:
        """Take the answer to an `HttpRequest`. Never raises on bad input."""
        self._watch.advance(now)
        if not self._is_connected:
            return
        self._replies.take_page(key, status, body)
        self._follow_if_new()
        self._pump()

    def timer(self, now: int) -> None:
        """Do what is due: ask what may be asked, give up on answers, notice silence, retire what has expired."""
        watch, link, replies = self._watch, self._link, self._replies
        watch.advance(now)
        if not self._is_connected:
            return
        for request in link.requests.overdue(watch.elapsed):
            replies.unanswered(request)
        for page in link.rest.overdue(watch.elapsed):
            replies.page_overdue(page)
        self._route.timer(now)
        newly_silent = watch.notice_silence()
        # After a step of the clock the process may have slept through the end of the connection.
        if newly_silent or watch.stepped or watch.is_silent(_SILENCE[self._route.name]):
            watch.stepped = False
            replies.probe()
        if lost := self._route.lost_stream():
            replies.fail(lost)
        # Both clocks must agree: a local clock that is wrong, or one absurd venue time, must not retire a whole chain.
        certain = min(now, link.venue_ns or self._group.venue_ns) - _EXPIRY_GRACE
        if certain > link.first_expiry_ns:
            self._route.retire(link.catalogue.expired(certain))
        self._read_if_due(now)
        self._follow_if_new()
        watch.report_malformed()
        self._pump()

    @property
    def next_deadline(self) -> int | None:
        """At most a second ahead, so that a longer gap between calls can only be a clock step."""
        if not self._is_connected:
            return None
        elapsed = self._watch.elapsed
        ahead = 0 if self._seen != self._group.version and self._group.discovered else SECOND
        for at in (self._link.requests.next_deadline(elapsed), self._link.rest.next_deadline(elapsed, self._watch.now)):
            if at is not None:
                ahead = min(ahead, max(0, at - elapsed))
        return self._watch.now + ahead

    @property
    def is_ready(self) -> bool:
        """Discovered, and every stream wanted is acknowledged or refused by name."""
        return self._is_connected and self._was_ready

    @property
    def failure(self) -> str | None:
        """Why this connection must be closed and opened again, or None."""
        return self._replies.failure if self._is_connected else None

    @property
    def trouble(self) -> str:
        """Silence, a clock that is not the venue's, listings that cannot be had; "" where all is well."""
        said = (self._replies.trouble, self._watch.trouble)
        return "; ".join(filter(None, said)) if self._is_connected else ""

    @property
    def silences(self) -> Mapping[str, tuple[int, int]]:
        """What should keep coming, see `Venue`; nothing while there is no connection."""
        return self._route.silences() if self._is_connected else {}

    @property
    def takeover(self) -> str:
        """The 24 hours of a connection are nearly over; "" before."""
        if not self._is_connected:
            return ""
        # Asleep this process does not see time pass, the venue does; a clock set back must not hide what did pass.
        age = max(self._watch.now - self._opened[0], self._watch.elapsed - self._opened[1])
        return "Binance cuts a connection after 24 hours" if age > LIFETIME - self._member * _APART else ""

    @property
    def not_before(self) -> int:
        """After too many requests: when the venue admits them again."""
        return self._replies.not_before

    @property
    def fatal(self) -> str | None:
        """Nothing that was asked for is listed, or None."""
        group = self._group
        if not group.families_listed or len(group.missing) < len(group.families):
            return None
        return missing_sentence(group.families_listed, [family.name for family in group.missing])

    @property
    def refused_streams(self) -> frozenset[str]:
        """Streams the venue refused by name."""
        return frozenset(self._link.refused)

    @property
    def replaceable(self) -> Replaceable:
        """Book tickers: each is complete."""
        return Replaceable(HEAD, NUMBER, 0, len(NUMBER))

    def twin(self) -> Binance:
        """A new object of the same group and number that has heard nothing yet."""
        return Binance(self._settings, self._group, self._member)

    def resume(self, instruments: Sequence[Instrument], now: int) -> None:
        """Start in the midst of a conversation: connected, discovered, and subscribed to these."""
        self._begin(now)
        self._group.resume(instruments, self._member)
        self._link.catalogue.follow(instruments, self._route.KEY, complete=False)
        self._link.note_expiries()
        streams = self._route.streams()
        self._link.asked = dict.fromkeys(streams)
        self._link.granted.update(streams)
        self._route.resume()
        self._seen = self._group.version
        self._was_ready = True

    def greeks(self, instrument_id: int) -> VenueGreeks | None:
        """Binance's own vols and greeks of an option, as of the last chain taken; None where none has been."""
        if self._market is None or not 0 <= instrument_id < len(self.universe):
            return None
        return self._market.marks.greeks(self.universe[instrument_id].symbol)

    def restart_book(self, instrument_id: int, now: int) -> None:
        """Ask for a new snapshot of a book."""
        self._watch.advance(now)
        if self._is_connected:
            self._route.restart_book(instrument_id)
            self._pump()

    def data_to_send(self) -> list[bytes]:
        """Messages to send, in order."""
        return self._link.requests.take_outbox() if self._is_connected else []

    def http_requests(self) -> list[HttpRequest]:
        """Pages to ask for."""
        return self._link.rest.take_outbox() if self._is_connected else []

    def events(self) -> list[Event]:
        """Events since the last call, in order."""
        return self._watch.take_events()

    def take_quotes(self, now: int) -> QuoteBatch | None:
        """What changed since the last call, or None. Of two rows for one instrument the later is the newer."""
        return self._route.take_quotes(now)

    def _begin(self, now: int) -> None:
        self._watch.advance(now)
        self._watch.opened()
        self._link.clear()
        self._route.new_socket()
        self._replies.clear()
        self._is_connected, self._was_ready = True, False
        self._seen = -1
        self._opened = (now, self._watch.elapsed)

    def _take_marks(self, data: bytes, now: int) -> bool:
        """Keep a chain until the next tick, if it is one that was asked for."""
        stream = data[STREAM_AT : data.find(b'"', STREAM_AT)]
        if self._market is None or not stream.endswith(_MARK_TAIL):
            return False
        name = stream.decode("utf-8", "replace")
        if name not in self._link.asked:
            return False
        self._market.receive_marks(name, data, now)
        return True

    def _take(self, data: bytes, now: int) -> None:
        try:
            self._dispatch(data, now)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            self._watch.malformed(wire.malformed_cause(error), data)

    def _dispatch(self, data: bytes, now: int) -> None:
        if data.startswith(b"["):
            rows = wire.decode_rows(data)
            event = wire.decode_payload(rows[0]).e if rows else ""
            self._payload(kind_of("", event), msgspec.Raw(data), data, now)
            return
        message = wire.decode_message(data)
        if message.stream:
            self._payload(kind_of(message.stream, ""), message.data, data, now)
        elif message.e:
            self._payload(kind_of("", message.e), msgspec.Raw(data), data, now)
        elif message.id is not None or message.code is not None or message.error is not None:
            self._replies.take(message)
            self._pump()
        else:
            self._watch.malformed("envelope", data)

    def _payload(self, kind: str, payload: msgspec.Raw, message: bytes, now: int) -> None:
        if kind.startswith("retired."):
            self._link.refuse_retired(kind.removeprefix("retired."))
        elif kind.startswith("unused."):
            self._link.counters[kind] += 1
        elif not self._route.take(kind, payload, message, now):
            # One name for all: what a stranger sends must not become names of counters.
            self._link.counters["stream_unknown"] += 1
        elif self._link.rest.has_waiting:
            self._link.rest.pump(
                self._watch.elapsed, self._watch.now
            )  # a book that starts anew does not wait for the timer

    def _read(self) -> None:
        asked, since = self._link.listing_wanted, self._watch.elapsed - self._read_at
        self._read_pause = min(2 * self._read_pause, READ_LATER) if asked and since < 2 * READ_LATER else READ_SOON
        self._read_at = self._watch.elapsed
        self._link.listing_wanted = False
        self._replies.read_listings()

    def _read_if_due(self, now: int) -> None:
        since = self._watch.elapsed - self._read_at
        if not self._group.discovered:
            due = True
        elif self._link.listing_wanted:
            due = since >= self._read_pause
        else:
            due = not self._member and since >= READ_AGAIN
        if due and self._group.may_ask(self._member, now):
            self._read()

    def _follow_if_new(self) -> None:
        if self._group.discovered and self._seen != self._group.version:
            self._follow()

    def _follow(self) -> None:
        self._seen = self._group.version
        self._route.follow()
        if not self._group.options:
            self._replies.fail("nothing that was asked for is listed")

    def _pump(self) -> None:
        elapsed = self._watch.elapsed
        self._link.requests.pump(elapsed)
        self._link.rest.pump(elapsed, self._watch.now)
        if self._was_ready or self._seen < 0 or self._replies.failure is not None or not self._link.requests.settled:
            return
        self._was_ready = True
        link, left_out = self._link, self._group.left_out if self._member else 0
        missing = f", {left_out} options too far from the money for the streams there are" if left_out else ""
        said = f"{len(link.catalogue.rows)} instruments, {len(link.granted)} streams on /{self._route.name}{missing}"
        self._watch.report(Health.READY, said)


def make(
    underlyings: Sequence[str],
    *,
    url: str | None = None,
    rest_url: str | None = None,
    shards: int = 1,
    quotes: Selection = "near",
    books: bool = False,
    trades: bool = False,
    partial_depth: int = 0,
) -> list[Venue]:
    """The connections of one feed: one of the route `/market`, and as many of `/public` as the streams wanted there need.

    Args:
        underlyings: `"BTC"`, `"BTC_USDT"`.
        url: another base address than `PRODUCTION`. rest_url: of the HTTP pages, where it does not follow from that.
        shards: connections of the route `/public` at the least.
        quotes: which options have their best bid and ask told on every change, beside once a second for all: "near" is those
            nearest to the money, as many as `shards` connections hold; "all"; "none".
        books: keep the order books of those options (of the nearest, where `quotes` is "none") and emit `BookEvent`s.
        trades: emit the trades of all options.
        partial_depth: 5, 10 or 20: books are that many levels, whole each time. 0 follows every change.

    Raises:
        ConfigError: an argument that Binance cannot mean.
    """
    settings = Settings.of(
        underlyings,
        url=url,
        rest_url=rest_url,
        shards=shards,
        quotes=quotes,
        books=books,
        trades=trades,
        partial_depth=partial_depth,
    )
    group = settings.group()
    return [Binance(settings, group, member) for member in range(settings.publics + 1)]
