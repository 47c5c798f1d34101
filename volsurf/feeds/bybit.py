"""Bybit's public option data (API v5) as a `Venue`: bytes and a clock reading in, events and bytes out.

Sequence of a connection: read the listings over REST, coin by coin and page by page; subscribe to what they name, as far as a
connection may; compare the acknowledgements with what was asked, and what is heard with what was acknowledged; ping every
20 s. No channel tells of listings, so they are read again every few minutes and soon after 08:00 UTC; what expires is retired
by the clock. Units end here: "0" becomes "no quote"; premiums are USDC or USDT for one coin, vols are decimals already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from volsurf.errors import ConfigError
from volsurf.feeds import _bybit_messages as wire
from volsurf.feeds._bybit_answers import Answers
from volsurf.feeds._bybit_link import Link
from volsurf.feeds._bybit_names import parse_symbol
from volsurf.feeds._bybit_pings import Pings
from volsurf.feeds._bybit_plan import connections_needed, families_wanted, rest_base
from volsurf.feeds._bybit_pushes import Pushes
from volsurf.feeds._bybit_rest import BANNED, Listings
from volsurf.feeds._bybit_silence import COIN_LOST, Silence
from volsurf.feeds._watch import SECOND
from volsurf.feeds._wire import malformed_cause, nanoseconds
from volsurf.feeds.protocol import Event, Health, HttpRequest, Replaceable, Venue, VenueGreeks
from volsurf.instruments import Instrument
from volsurf.quotes import QuoteBatch

PRODUCTION = "wss://stream.bybit.com/v5/public/option"
TESTNET = "wss://stream-testnet.bybit.com/v5/public/option"

__all__ = ["PRODUCTION", "TESTNET", "Bybit", "make", "parse_symbol"]

BOOK_DEPTHS = (25, 100)
"""The only depths the option socket serves; it acknowledges others and says nothing."""
_DAY = 86_400 * SECOND
_EXPIRY = 8 * 3600 * SECOND
_ROLL_LOOKS = (5 * SECOND, 60 * SECOND, 180 * SECOND)
"""After 08:00 UTC: the new expiries are listed within minutes."""
_EXPIRY_GRACE = 5 * SECOND


class Bybit(Venue):
    """One connection to Bybit's options.

    Args:
        underlyings: `"BTC"` stands for every option of the coin, `"BTC_USDT"` and `"BTC_USDC"` for those settled in one currency.
        shard: `(i, n)`: this is the i-th of n connections that share the instruments (and the venue's rate limits). One
            connection has room for about 580 tickers, see `make`; what has none is told in `trouble`, outermost strikes first.
        url: where to connect: `PRODUCTION`, `TESTNET`, a simulator.
        rest_url: base of the REST addresses; where not given it follows from `url`.
        books: emit `BookEvent`s of whole order books too, `book_depth` levels a side.
        book_depth: 25 (every 20 ms) or 100 (every 100 ms).
        trades: subscribe to trades and emit `TradeEvent`s.
        relist_seconds: how often the listings are read again.

    Raises:
        ConfigError: an argument that Bybit cannot mean. An underlying it does not list is only known after discovery: then a
            REFUSED event names what there is, and `fatal` is set if nothing at all is left to follow.
    """

    name = "bybit"

    def __init__(
        self,
        underlyings: Sequence[str] = ("BTC", "ETH"),
        *,
        shard: tuple[int, int] = (0, 1),
        url: str = PRODUCTION,
        rest_url: str | None = None,
        books: bool = False,
        book_depth: int = 25,
        trades: bool = True,
        relist_seconds: float = 300.0,
    ) -> None:
        if not 0 <= shard[0] < shard[1]:
            raise ConfigError(f"shard must be (i, n) with 0 ≤ i < n, was {shard!r}")
        if book_depth not in BOOK_DEPTHS:
            raise ConfigError(f"Bybit's option books have 25 or 100 levels, was {book_depth!r}")
        if not relist_seconds >= 10:
            raise ConfigError(f"listings may be read again every 10 seconds at most, was {relist_seconds!r}")
        families = families_wanted(underlyings)
        self._arguments: dict[str, Any] = {
            "underlyings": [family.name for family in families],
            "shard": shard,
            "url": url,
            "rest_url": rest_url,
            "books": books,
            "book_depth": book_depth,
            "trades": trades,
            "relist_seconds": relist_seconds,
        }
        self._url = url
        self._link = Link(families, shard, books=book_depth if books else 0, trades=trades)
        self._pushes = Pushes(self._link)
        self._silence = Silence(self._link)
        self._answers = Answers(self._link, self._silence)
        self._listings = Listings(
            rest_url or rest_base(url),
            self._link,
            share=1 / shard[1],
            every=round(relist_seconds * SECOND),
            take=self._answers.listed,
        )
        self._answers.listings = self._listings
        self._is_connected = False
        self._not_before = 0
        self._pings = Pings(self._link)
        self._looks: list[int] = []
        self.universe = self._link.catalogue.universe
        # What the hot path touches, one attribute away.
        self._watch = self._link.watch
        self._unread, self._heard = self._link.values.unread, self._link.values.heard
        self._tickers = 0
        self._newest = b""
        """Last ticker's message, by which the venue's clock is read once a second."""

    @property
    def url(self) -> str:
        """Where the shell connects."""
        return self._url

    @property
    def counters(self) -> Counter[str]:  # type: ignore[override]
        """Messages by kind, malformed ones by cause; what is wrong inside a ticker is counted when it is taken."""
        counters = self._link.counters
        counters["ticker"] += self._tickers
        self._tickers = 0
        return counters

    def connected(self, now: int) -> None:
        """A new socket is open: read the listings."""
        self._open(now)
        self._watch.report(Health.CONNECTED, self._url)
        self._listings.start()
        self._listings.pump()

    def disconnected(self, now: int, reason: str) -> None:
        """The socket is gone, or could not be opened: both sides of everything it quoted are cleared in the next batch."""
        self._watch.advance(now)
        self._watch.closed()
        if not self._is_connected and "403" in reason:
            # Too many connections from this address; the venue's own rule is to wait.
            self._not_before = now + BANNED
            self._watch.report(Health.RATE_LIMITED, f"{reason}; no new connection for {BANNED // SECOND // 60} minutes")
        self._is_connected = False
        self._forget()
        self._link.values.clear_all(now)
        self._watch.report(Health.DISCONNECTED, reason)

    def receive(self, data: bytes | str, now: int) -> None:
        """Take one websocket message. Never raises on bad input: it counts and reports it."""
        watch = self._watch
        if now != watch.now:
            watch.advance(now)
        watch.heard = watch.elapsed
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        if data.startswith(wire.TICKER_PREFIX):
            end = data.find(b'"', 18)
            if data.startswith(wire.SNAPSHOT, end + 20):
                topic = data[10:end]
                unread = self._unread
                before = unread.get(topic)
                # Both have the 13 digits of their time at the same place.
                if before is not None and before[end + 7 : end + 20] > data[end + 7 : end + 20]:
                    self._take(data, now)
                    return
                unread[topic] = self._newest = data
                self._heard[topic] = now
                self._tickers += 1
                return
        self._take(data, now)

    def receive_http(self, key: str, status: int, body: bytes, now: int) -> None:
        """Take a page of a listing. Never raises on bad input."""
        self._watch.advance(now)
        try:
            if not self._listings.receive(key, status, body):
                self._link.counters["replies_unclaimed"] += 1
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            self._watch.malformed(malformed_cause(error), body)
        self._go_on()

    def timer(self, now: int) -> None:
        """Do what is due: read listings, subscribe, ping, notice silence, retire what has expired."""
        watch = self._watch
        watch.advance(now)
        if not self._is_connected:
            return
        self._read_venue_clock()
        self._silence.note(self._heard, self._pushes.heard)
        self._pushes.heard.clear()
        newly_silent = watch.notice_silence()
        if newly_silent or watch.stepped:
            # After a step of the clock the process may have slept through the end of the connection.
            if watch.stepped:
                self._plan_roll()
            watch.stepped = False
            self._pings.hurry()
        if given_up := self._pings.advance():
            self._answers.fail(given_up)
        if (coin := self._silence.lost) is not None:
            self._answers.fail(f"tickers of {coin} silent for {COIN_LOST // SECOND} s on a connection that answers")
        if coins := self._silence.look():
            self._listings.read_again(coins)
        self._answers.look_after_topics()
        # Both clocks must agree: a local clock that is wrong, or one absurd venue time, must not retire a whole chain.
        certain = min(now, self._link.venue_time_ns) - _EXPIRY_GRACE
        if certain > self._link.first_expiry_ns:
            self._link.retire(self._link.catalogue.expired(certain))
            self._silence.expect()
        while self._looks and now >= self._looks[0]:
            self._looks.pop(0)
            self._listings.read_again()
            if not self._looks:
                self._plan_roll()
        watch.report_malformed()
        self._go_on()

    @property
    def next_deadline(self) -> int | None:
        """At most a second ahead, so that a longer gap between calls can only be a clock step."""
        if not self._is_connected:
            return None
        elapsed, ahead = self._watch.elapsed, SECOND
        for at in (self._listings.next_deadline, self._link.topics.next_deadline, self._pings.next_deadline):
            if at is not None:
                ahead = min(ahead, max(0, at - elapsed))
        return self._watch.now + ahead

    @property
    def is_ready(self) -> bool:
        """Discovered, and every topic there is room for is acknowledged or refused by name."""
        return self._is_connected and self._answers.is_ready

    @property
    def failure(self) -> str | None:
        """Why this connection must be closed and opened again, or None."""
        return self._answers.failure if self._is_connected else None

    @property
    def trouble(self) -> str:
        """Silence, listings that cannot be read, topics without room, a wrong clock; "" where all is well."""
        if not self._is_connected:
            return ""
        parts = (self._watch.trouble, self._listings.trouble, self._silence.trouble, self._link.no_room)
        return "; ".join(filter(None, parts))

    @property
    def silences(self) -> dict[str, tuple[int, int]]:
        """The tickers of each coin: since when they have not come, and how long they may be silent, ns."""
        return self._watch.silences if self._is_connected else {}

    @property
    def not_before(self) -> int:
        """After HTTP 403 in place of a socket: ten minutes later."""
        return self._not_before

    @property
    def fatal(self) -> str | None:
        """Nothing that was asked for is listed, or None."""
        return self._answers.fatal

    @property
    def refused_channels(self) -> frozenset[str]:
        """Topics the venue refused twice, and those it acknowledged twice and never served."""
        return frozenset(self._link.topics.refused | self._silence.silent)

    @property
    def replaceable(self) -> Replaceable:
        """Tickers: each is complete."""
        return Replaceable(wire.TICKER_PREFIX, wire.SNAPSHOT, 20, 7)

    def twin(self) -> Bybit:
        """A new object with the same arguments that has heard nothing yet."""
        return Bybit(**self._arguments)

    def resume(self, instruments: Sequence[Instrument], now: int) -> None:
        """Start in the midst of a conversation: connected, discovered, and subscribed to these."""
        self._open(now)
        link = self._link
        for instrument in instruments:
            added = link.catalogue.follow([instrument], instrument.underlying, complete=False).added
            link.note_rows(added)
        topics: dict[str, int | None] = dict.fromkeys(link.trade_topics())
        for row in link.catalogue.rows.values():
            topics.update(dict.fromkeys(link.topics_of(row), row))
        link.topics.resume(topics, self._watch.elapsed)
        self._pushes.books.resume(list(link.catalogue.rows.values()))
        self._silence.resume(topics)
        self._silence.expect()
        self._answers.resume()
        self._listings.start(after=SECOND)
        self._watch.report(Health.READY, f"{len(link.catalogue.rows)} instruments, taken up in mid-conversation")

    def data_to_send(self) -> list[bytes]:
        """Messages to send, in order, pings first."""
        if not self._is_connected:
            return []
        return self._pings.take_outbox() + self._link.topics.take_outbox()

    def http_requests(self) -> list[HttpRequest]:
        """Pages of listings to ask for."""
        return self._listings.take_outbox() if self._is_connected else []

    def events(self) -> list[Event]:
        """Events since the last call, in order."""
        return self._watch.take_events()

    def take_quotes(self, now: int) -> QuoteBatch | None:
        """What changed since the last call, one row per instrument and one per index, or None."""
        return self._link.values.take(now)

    def greeks(self, instrument_id: int) -> VenueGreeks | None:
        """The venue's own vols and greeks of an option, as last taken; None where none has been."""
        return self._link.values.greeks(self.universe[instrument_id].symbol)

    def restart_book(self, instrument_id: int, now: int) -> None:
        """Subscribe to a book again: its first message is then a whole one."""
        self._watch.advance(now)
        self._pushes.restart_book(instrument_id)
        self._go_on()

    def _open(self, now: int) -> None:
        self._watch.advance(now)
        self._watch.opened()
        self._forget()
        self._is_connected = True
        self._pings.start()
        self._plan_roll()

    def _forget(self) -> None:
        self._link.clear()
        self._listings.clear()
        self._pushes.clear()
        self._silence.clear()
        self._answers.clear()
        self._newest = b""

    def _take(self, data: bytes, now: int) -> None:
        try:
            self._dispatch(data, now)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            self._watch.malformed(malformed_cause(error), data)

    def _dispatch(self, data: bytes, now: int) -> None:
        # Every message but a ticker in its usual form.
        message = wire.decode_message(data)
        if message.topic:
            self._pushes.take(message, now)
            return
        if message.op == "pong" or (message.op == "ping" and message.ret_msg == "pong"):
            self._pings.answered(message)
        elif message.type == "COMMAND_RESP" or message.success is not None:
            self._link.counters["acknowledgements"] += 1
            self._answers.acknowledged(message)
        else:
            self._watch.malformed("envelope", data)
        self._go_on()

    def _read_venue_clock(self) -> None:
        data, self._newest = self._newest, b""
        if not data:
            return
        end = data.find(b'"', 18)
        stamp, heard = data[end + 7 : end + 20], self._heard.get(data[10:end])
        if stamp.isdigit() and heard is not None and (venue_ns := nanoseconds(int(stamp))):
            self._link.heard_time(venue_ns + self._watch.now - heard)

    def _plan_roll(self) -> None:
        eight = self._watch.now - self._watch.now % _DAY + _EXPIRY
        looks = [eight + look for look in _ROLL_LOOKS if eight + look > self._watch.now]
        self._looks = looks or [eight + _DAY + look for look in _ROLL_LOOKS]

    def _go_on(self) -> None:
        self._listings.pump()
        self._link.topics.flush(self._watch.elapsed)
        self._answers.check_ready()


def make(underlyings: Sequence[str], *, url: str | None = None, shards: int = 1, **options: Any) -> list[Venue]:
    """The connections of a feed: as many as asked for, or as the topics of all their options need room.

    How long the listings are is not known before they are read, so it is counted with the longest there have been and a fifth
    more. Should one grow beyond that, its outermost strikes are left out, named in `trouble` and in a REFUSED event, and `shards`
    is what makes room for them.
    """
    needed = connections_needed(families_wanted(underlyings), books=bool(options.get("books", False)))
    count = max(shards, needed)
    return [Bybit(underlyings, shard=(i, count), url=url or PRODUCTION, **options) for i in range(count)]
