"""OKX's public options market data (API v5: REST for discovery, one websocket for the rest) as a `Venue`.

Sequence of a connection: subscribe to `instruments`, so that no listing is missed, and ask over HTTP for ticks and listings;
subscribe to what they name, in requests of at most 64 KB; take each channel's acknowledgement; then follow `instruments` for
what lists and expires. Units end here: contracts become units of the underlying, `""` and `"0"` become "no quote".

Quotes come from `bbo-tbt` (the best level of each side, every 10 ms in which it changed) rather than `tickers` (at most ten a
second): they are ten times fresher in half the bytes, an empty side is an empty list instead of `""`, and they carry a sequence
number. What is heard is not what is worked on, so the higher rate costs a microsecond a message. `tickers` has the last price
besides, and is what to take where OKX minds so many book channels on one connection (its documentation advises fewer than 30 of
them, `bbo-tbt` being one; it is no limit).

Forward and mark vol come from `opt-summary`, which has the greeks too (`Okx.greeks`). Option marks of `mark-price` are left
alone: their unit is not the premium's. The last price is that of `option-trades`, where trades are wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from volsurf.errors import ConfigError
from volsurf.feeds import _okx_messages as wire
from volsurf.feeds._okx_discovery import Discovery
from volsurf.feeds._okx_greeks import greeks_of
from volsurf.feeds._okx_link import Link
from volsurf.feeds._okx_listing import KINDS
from volsurf.feeds._okx_messages import Arg
from volsurf.feeds._okx_names import parse_symbol, wanted_of
from volsurf.feeds._okx_pushes import Pushes
from volsurf.feeds._watch import SECOND
from volsurf.feeds._wire import malformed_cause
from volsurf.feeds.protocol import Event, Health, HttpRequest, Replaceable, Venue, VenueGreeks
from volsurf.instruments import Instrument, Settlement
from volsurf.quotes import QuoteBatch

PRODUCTION = "wss://ws.okx.com:8443/ws/v5/public"
DEMO = "wss://wspap.okx.com:8443/ws/v5/public"
REST = "https://www.okx.com"

__all__ = ["DEMO", "PRODUCTION", "REST", "Okx", "make", "parse_symbol"]

SILENCE = 9 * SECOND
"""Of everything, after which `ping` is sent; looked at once a second. OKX cuts a connection after 30 s of it."""
PONG_WITHIN = 5 * SECOND
QUOTES_SILENCE = 20 * SECOND
"""Of all quotes together: each is sent again once a minute even where nothing changes, and there are hundreds of them."""
QUOTES_LOST = 60 * SECOND
INDEX_LOST = 180 * SECOND
"""Silence on a link that answers: the subscription is gone, so the connection is made anew."""
_EXPIRY_GRACE = 30 * SECOND
"""The `instruments` channel retires what expires; whatever it missed goes this long after."""
_ENOUGH_QUOTES = 50
"""With fewer instruments on a connection, the silence of quotes says nothing."""


class Okx(Venue):
    """One connection to OKX.

    Args:
        underlyings: `"BTC"` is every option family of the coin; `"BTC_USD"` the coin-settled one, `"BTC_USD_UM"` the one settled
            in dollar stablecoins, `"BTC_USDC"` and `"BTC_USDT"` the others.
        shard: `(i, n)`: this is the i-th of n connections that share the instruments (and the limits of the address).
        url: where to connect: `PRODUCTION`, `DEMO`, a simulator. rest_url: where the HTTP pages are, if not where `url` implies.
        quotes: `"bbo-tbt"` or `"tickers"`, see the module.
        books: subscribe to order books too and emit `BookEvent`s. book_channel: `"books"` (400 levels, changes every 100 ms) or
            `"books5"` (five levels, whole every 100 ms).
        trades: subscribe to option trades and emit `TradeEvent`s.

    Raises:
        ConfigError: an argument that OKX cannot mean. An underlying it does not list is only known after discovery: then a
            REFUSED event names what there is, and `fatal` is set if nothing at all is left to follow.
    """

    name = "okx"

    def __init__(
        self,
        underlyings: Sequence[str] = ("BTC", "ETH"),
        *,
        shard: tuple[int, int] = (0, 1),
        url: str = PRODUCTION,
        rest_url: str | None = None,
        quotes: str = wire.BBO,
        books: bool = False,
        book_channel: str = wire.BOOKS,
        trades: bool = False,
    ) -> None:
        names = [underlyings] if isinstance(underlyings, str) else list(underlyings)
        if not names:
            raise ConfigError("OKX needs at least one underlying, such as 'BTC'")
        if not 0 <= shard[0] < shard[1]:
            raise ConfigError(f"shard must be (i, n) with 0 ≤ i < n, was {shard!r}")
        if quotes not in (wire.BBO, wire.TICKERS):
            raise ConfigError(f"quotes must be 'bbo-tbt' or 'tickers', was {quotes!r}")
        if book_channel not in (wire.BOOKS, wire.BOOKS5):
            raise ConfigError(f"book_channel must be 'books' or 'books5', was {book_channel!r}")
        self._arguments: dict[str, Any] = {
            "underlyings": names,
            "shard": shard,
            "url": url,
            "rest_url": rest_url,
            "quotes": quotes,
            "books": books,
            "book_channel": book_channel,
            "trades": trades,
        }
        self._url = url
        wanted = [wanted_of(name) for name in names]
        self._link = Link(wanted, shard, quotes=quotes, books=book_channel if books else "", trades=trades)
        base = (rest_url or rest_base(url)).rstrip("/")
        self._discovery = Discovery(self._link, base, 1 / shard[1], demo=url == DEMO)
        self._pushes = Pushes(self._link, self._discovery)
        self._is_connected = False
        self._is_ready = False
        self._ping_deadline = 0
        self._outbox: list[bytes] = []
        self.universe = self._link.universe
        # What the hot path touches, one attribute away.
        self._watch = self._link.watch
        self._quotes = self._link.values.quotes
        self._prefix = wire.quote_prefix(quotes)
        self._symbol_at = len(self._prefix)
        self._heard_quotes = 0
        self._counted_quotes = 0
        self._seen_quotes = 0
        self._seen_heard = 0

    @property
    def url(self) -> str:
        """Where the shell connects."""
        return self._url

    @property
    def counters(self) -> Counter[str]:  # type: ignore[override]
        """Messages by channel as they come, what was wrong with them as they are decoded, once a tick."""
        fresh = self._heard_quotes - self._counted_quotes
        if fresh:
            self._counted_quotes = self._heard_quotes
            self._link.counters[self._link.quotes] += fresh
        return self._link.counters

    def connected(self, now: int) -> None:
        """A new socket is open: follow the listings, and read them."""
        self._open(now)
        self._watch.report(Health.CONNECTED, self._url)
        self._link.channels.ask_now([Arg(wire.INSTRUMENTS, instType=kind) for kind in KINDS])
        self._discovery.begin()
        self._advance()

    def disconnected(self, now: int, reason: str) -> None:
        """The socket is gone, or could not be opened: both sides of everything it quoted are cleared in the next batch."""
        self._watch.advance(now)
        self._watch.closed()
        self._is_connected = self._is_ready = False
        self._link.clear()
        self._discovery.clear()
        self._pushes.clear()
        self._link.values.clear_all(now)
        self._outbox.clear()
        self._watch.report(Health.DISCONNECTED, reason)

    def resume(self, instruments: Sequence[Instrument], now: int) -> None:
        """Start in the midst of a conversation: connected, discovered, and subscribed to these; their books go on."""
        self._open(now)
        self._link.adopt(instruments)
        self._link.books.resume(list(self._link.catalogue.rows.values()))
        self._link.channels.held = False
        self._discovery.resume()
        self._is_ready = True
        self._expect_quotes()

    @property
    def replaceable(self) -> Replaceable:
        """Quotes: each is complete."""
        return Replaceable(self._prefix)

    def twin(self) -> Okx:
        """A new connection with the same arguments that has heard nothing yet."""
        return Okx(**self._arguments)

    def receive(self, data: bytes | str, now: int) -> None:
        """Take one websocket message. Never raises on bad input: it counts and reports it."""
        watch = self._watch
        if now != watch.now:
            watch.advance(now)
        watch.heard = watch.elapsed
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        if data.startswith(self._prefix):
            at = self._symbol_at
            self._quotes[data[at : data.find(b'"', at)]] = data, now
            self._heard_quotes += 1
        elif data.startswith(wire.SUMMARY_PREFIX):
            self._link.values.add_summary(data, now)
            self._link.counters[wire.SUMMARY] += 1
        elif data == wire.PONG:
            self._ping_deadline = 0
            self._link.counters["pongs"] += 1
        else:
            try:
                self._pushes.take(data, now)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                watch.malformed(malformed_cause(error), data)
            self._advance()

    def receive_http(self, key: str, status: int, body: bytes, now: int) -> None:
        """Take the answer to a question about listings."""
        self._watch.advance(now)
        if self._is_connected:
            self._discovery.take(key, status, body)
            if self._discovery.is_done:
                self._pushes.take_held()
            self._advance()

    def timer(self, now: int) -> None:
        """Do what is due: send requests, give up on answers, ping a silent link, retire what has expired."""
        watch = self._watch
        watch.advance(now)
        if not self._is_connected:
            return
        self._discovery.give_up_overdue()
        self._pushes.give_up_overdue()
        self._listen()
        # Both clocks must agree: a local clock that is wrong, or one absurd venue time, must not retire a whole chain.
        certain = min(now, self._link.venue_time_ns) - _EXPIRY_GRACE
        if certain > self._link.first_expiry_ns:
            self._link.retire(self._link.catalogue.expired(certain))
        watch.report_malformed()
        self._discovery.look_up_announced()
        self._discovery.look_up_doubted()
        self._advance()

    @property
    def next_deadline(self) -> int | None:
        """At most a second ahead, so that a longer gap between calls can only be a clock step."""
        if not self._is_connected:
            return None
        elapsed = self._watch.elapsed
        ahead = SECOND
        for part in (self._link.channels, self._discovery):
            if (at := part.next_deadline(elapsed)) is not None:
                ahead = min(ahead, max(0, at - elapsed))
        return self._watch.now + ahead

    @property
    def is_ready(self) -> bool:
        """Discovered, and every channel wanted is acknowledged or refused by name."""
        return self._is_connected and self._is_ready

    @property
    def failure(self) -> str | None:
        """Why this connection must be closed and opened again, or None."""
        return (self._discovery.failure or self._pushes.failure) if self._is_connected else None

    @property
    def trouble(self) -> str:
        """Silence, a clock that is not the venue's, an upgrade that is announced; "" where all is well."""
        return "; ".join(filter(None, (self._pushes.takeover, self._watch.trouble))) if self._is_connected else ""

    @property
    def silences(self) -> dict[str, tuple[int, int]]:
        """Quotes and indexes: since when they have not come, and how long they may be silent, ns."""
        return self._watch.silences if self._is_connected else {}

    @property
    def suspended(self) -> str:
        """Trading is suspended in everything that is followed here; "" where it is in some or none."""
        halted, followed = len(self._link.values.halted), len(self._link.catalogue.rows)
        return (
            "trading is suspended in every instrument" if self._is_connected and halted and halted >= followed else ""
        )

    @property
    def takeover(self) -> str:
        """The venue has said that it will cut this connection within a minute; "" where it has not."""
        return self._pushes.takeover if self._is_connected else ""

    @property
    def not_before(self) -> int:
        """After a rate limit: when the venue will listen again."""
        return max(self._discovery.not_before, self._pushes.not_before)

    @property
    def fatal(self) -> str | None:
        """Nothing that was asked for is listed, or None."""
        return self._discovery.fatal

    @property
    def refused_channels(self) -> dict[str, str]:
        """Channels the venue would not give, and its words."""
        return {str(arg): why for arg, why in self._link.channels.refused.items()}

    def greeks(self, instrument_id: int) -> VenueGreeks | None:
        """The venue's own vols and greeks of an option, as of the last batch taken; None where it has told none."""
        summary = self._link.values.told.get(instrument_id)
        if summary is None:
            return None
        return greeks_of(summary, in_coin=self.universe[instrument_id].settlement is Settlement.INVERSE)

    def restart_book(self, instrument_id: int, now: int) -> None:
        """Ask for a new snapshot of a book that cannot be right; nothing where books are not followed."""
        self._watch.advance(now)
        self._pushes.restart_book(instrument_id)

    def data_to_send(self) -> list[bytes]:
        """Messages to send, in order."""
        taken, self._outbox = self._outbox, []
        return taken

    def http_requests(self) -> list[HttpRequest]:
        """Pages to read."""
        return self._discovery.take_requests() if self._is_connected else []

    def events(self) -> list[Event]:
        """Events since the last call, in order."""
        return self._watch.take_events()

    def take_quotes(self, now: int) -> QuoteBatch | None:
        """What changed since the last call, one row per instrument, or None."""
        return self._link.values.take(now)

    def _open(self, now: int) -> None:
        self._watch.advance(now)
        self._watch.opened()
        self._link.clear()
        self._discovery.clear()
        self._pushes.clear()
        self._outbox.clear()
        self._ping_deadline = 0
        self._is_connected, self._is_ready = True, False
        self._watch.expect("the connection", SILENCE, "nothing heard for {silence} s")

    def _listen(self) -> None:
        """What is silent, and whether the link lives at all."""
        watch = self._watch
        if watch.heard != self._seen_heard:
            self._seen_heard = watch.heard
            watch.heard_of("the connection")
        if self._heard_quotes != self._seen_quotes:
            self._seen_quotes = self._heard_quotes
            watch.heard_of("quotes")
        newly_silent = watch.notice_silence()
        if self._ping_deadline and watch.elapsed >= self._ping_deadline:
            self._pushes.fail(f"no pong within {PONG_WITHIN // SECOND} s")
        # After a step of the clock the process may have slept through the end of the connection.
        elif not self._ping_deadline and (newly_silent or watch.stepped or watch.is_silent(SILENCE)):
            watch.stepped = False
            self._ping_deadline = watch.elapsed + PONG_WITHIN
            self._outbox.append(wire.PING)
            self._link.counters["pings"] += 1
        for name in self._link.catalogue.index_rows:
            if watch.silence_of(name) > INDEX_LOST:
                self._pushes.fail(f"index {name} silent for {INDEX_LOST // SECOND} s on a connection that answers")
        if watch.silence_of("quotes") > QUOTES_LOST:
            self._pushes.fail(f"no quote for {QUOTES_LOST // SECOND} s on a connection that answers")

    def _expect_quotes(self) -> None:
        if len(self._link.catalogue.rows) >= _ENOUGH_QUOTES:
            self._watch.expect("quotes", QUOTES_SILENCE, "no quote of any instrument for {silence} s")

    def _advance(self) -> None:
        link = self._link
        elapsed = self._watch.elapsed
        self._discovery.pump()
        link.channels.flush(elapsed)
        self._outbox += link.channels.pump(elapsed)
        if not self._is_ready and self._discovery.is_done and self.failure is None and link.channels.settled:
            self._is_ready = True
            self._expect_quotes()
            refused = len(link.channels.refused)
            left_out = f", {refused} refused" if refused else ""
            said = f"{len(link.catalogue.rows)} instruments, {len(link.channels.granted)} channels{left_out}"
            self._watch.report(Health.READY, said)


def rest_base(url: str) -> str:
    """Where the HTTP pages are that belong to a websocket address: the same host, but for the venue's own."""
    address = urlsplit(url)
    if (address.hostname or "").endswith("okx.com"):
        return REST
    return f"{'https' if address.scheme == 'wss' else 'http'}://{address.netloc}"


def make(underlyings: Sequence[str], *, url: str | None = None, shards: int = 1, **options: Any) -> list[Venue]:
    """The connections of one feed, see `Okx` for the options.

    Raises:
        ConfigError: arguments it cannot mean.
    """
    if shards < 1:
        raise ConfigError(f"a feed needs at least one connection, was {shards!r}")
    try:
        return [Okx(underlyings, shard=(shard, shards), url=url or PRODUCTION, **options) for shard in range(shards)]
    except TypeError as error:
        raise ConfigError(f"OKX takes no such option: {error}") from error
