"""Deribit's public market data (API v2 over one websocket) as a `Venue`: bytes and a clock reading in, events and bytes out.

Sequence of a connection: set the heartbeat and ask for the listings; subscribe to what they name, 500 channels a message at
the venue's credit rate; compare each acknowledgement with what was asked; then follow `instrument.state` for what lists and
expires. Units end here: percent vols become decimals, 0.0 becomes "no quote", dollar amounts become units of the underlying.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from volsurf.errors import ConfigError
from volsurf.feeds import _deribit_messages as wire
from volsurf.feeds._deribit_link import INDEX_SILENCE, LOST, Link
from volsurf.feeds._deribit_names import market_of, parse_symbol
from volsurf.feeds._deribit_notifications import Notifications
from volsurf.feeds._deribit_replies import Replies
from volsurf.feeds._deribit_requests import Request
from volsurf.feeds._watch import SECOND
from volsurf.feeds._wire import malformed_cause
from volsurf.feeds.protocol import Event, Health, InstrumentEvent, Replaceable, Venue, VenueGreeks
from volsurf.instruments import Instrument, Kind
from volsurf.quotes import QuoteBatch

PRODUCTION = "wss://www.deribit.com/ws/api/v2"
TESTNET = "wss://test.deribit.com/ws/api/v2"

__all__ = ["PRODUCTION", "TESTNET", "Deribit", "make", "parse_symbol"]

_NAME_AT = len(wire.TICKER_PREFIX)
_EXPIRY_GRACE = 30 * SECOND
"""`instrument.state` retires what expires; whatever it missed goes this long after."""


class Deribit(Venue):
    """One connection to Deribit.

    Args:
        underlyings: `"BTC"` and `"ETH"` stand for the coin-settled markets, `"SOL_USDC"` (any `X_USDC`, `X_USDT`) for a linear
            one, and any other bare name for the one linear in USDC: `"SOL"` is `"SOL_USDC"`.
        shard: `(i, n)`: this is the i-th of n connections that share the instruments (and the venue's rate limits).
        url: where to connect: `PRODUCTION`, `TESTNET`, a simulator.
        heartbeat_seconds: how often the venue is to prove that it lives, at least 10.
        interval: how the venue gathers changes: `"100ms"`, `"agg2"`, or `"raw"` for those who may (else it falls back).
        books: subscribe to whole order books too and emit `BookEvent`s.
        trades: subscribe to option trades and emit `TradeEvent`s.
        mark_prices: subscribe to the marks of whole chains too: one channel an index instead of waiting for tickers.

    Raises:
        ConfigError: an argument that Deribit cannot mean. An underlying it does not list is only known after discovery: then a
            REFUSED event names what there is, and `fatal` is set if nothing at all is left to follow.
    """

    name = "deribit"

    def __init__(
        self,
        underlyings: Sequence[str] = ("BTC", "ETH"),
        *,
        shard: tuple[int, int] = (0, 1),
        url: str = PRODUCTION,
        heartbeat_seconds: int = 30,
        interval: str = "100ms",
        books: bool = False,
        trades: bool = True,
        mark_prices: bool = False,
    ) -> None:
        names = [underlyings] if isinstance(underlyings, str) else list(underlyings)
        if not names:
            raise ConfigError("Deribit needs at least one underlying, such as 'BTC'")
        if not 0 <= shard[0] < shard[1]:
            raise ConfigError(f"shard must be (i, n) with 0 ≤ i < n, was {shard!r}")
        if heartbeat_seconds < 10:
            raise ConfigError(f"Deribit refuses heartbeats under 10 seconds, was {heartbeat_seconds!r}")
        if interval not in ("100ms", "agg2", "raw"):
            raise ConfigError(f"interval must be '100ms', 'agg2' or 'raw', was {interval!r}")
        markets = [market_of(name) for name in names]
        self._arguments: dict[str, Any] = {
            "underlyings": names,
            "shard": shard,
            "url": url,
            "heartbeat_seconds": heartbeat_seconds,
            "interval": interval,
            "books": books,
            "trades": trades,
            "mark_prices": mark_prices,
        }
        self._url = url
        self._heartbeat_seconds = heartbeat_seconds
        self._link = Link(markets, shard, interval=interval, books=books, trades=trades, mark_prices=mark_prices)
        self._notifications = Notifications(self._link)
        self._replies = Replies(self._link, self._notifications)
        self._is_connected = False
        self.universe = self._link.catalogue.universe
        # What the hot path touches, one attribute away.
        self._watch = self._link.watch
        self._unread, self._heard = self._link.values.unread, self._link.values.heard
        self._received = self._received_before = self._counted = 0

    @property
    def url(self) -> str:
        """Where the shell connects."""
        return self._url

    @property
    def counters(self) -> Counter[str]:  # type: ignore[override]
        """`ticker` counts what came as one; those that `take_quotes` finds out not to be are counted as malformed instead."""
        self._link.counters["ticker"] += self._received - self._counted
        self._counted = self._received
        return self._link.counters

    def connected(self, now: int) -> None:
        """A new socket is open: set the heartbeat and ask for the listings."""
        self._open(now)
        self._watch.report(Health.CONNECTED, self._url)
        requests = self._link.requests
        requests.submit(Request("public/set_heartbeat", {"interval": self._heartbeat_seconds}))
        for key in self._link.catalogue.keys:
            self._replies.ask_listing(key, complete=True)
        requests.pump(self._watch.elapsed)

    def resume(self, instruments: Sequence[Instrument], now: int) -> None:
        """Start in the midst of a conversation: connected, and subscribed to those of these that are this connection's.

        Until the next `connected` it asks for nothing. Answers to what was asked before count as answers to look-ups.
        """
        self._open(now)
        added = self._link.catalogue.follow_again(instruments)
        if added:
            self._watch.emit(InstrumentEvent(added=tuple(added)))
        self._notifications.resume(added)
        self._replies.resume()

    @property
    def replaceable(self) -> Replaceable:
        """Tickers: each is complete."""
        return Replaceable(wire.TICKER_PREFIX)

    def twin(self) -> Deribit:
        """A new object with the same arguments that has heard nothing yet."""
        return Deribit(**self._arguments)

    def _open(self, now: int) -> None:
        self._watch.advance(now)
        self._watch.opened()
        self._link.expect_heartbeats(self._heartbeat_seconds)
        self._link.clear()
        self._notifications.clear()
        self._replies.clear()
        self._is_connected = True

    def disconnected(self, now: int, reason: str) -> None:
        """The socket is gone, or could not be opened: both sides of everything it quoted are cleared in the next batch."""
        self._watch.advance(now)
        self._watch.closed()
        if "connection_too_slow" in reason and self.failure != "connection_too_slow":
            self._replies.too_slow()
        self._is_connected = False
        self._link.clear()
        self._replies.clear()
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
            self._received += 1
            channel = data[_NAME_AT : data.find(b'"', _NAME_AT)]
            self._unread[channel] = data
            self._heard[channel] = now
        else:
            self._take(data, now)

    def timer(self, now: int) -> None:
        """Do what is due: send what has its credits, give up on answers, notice silence, retire what has expired."""
        watch = self._watch
        watch.advance(now)
        if not self._is_connected:
            return
        if self._received != self._received_before:
            self._received_before = self._received
            self._link.heard_quotes()
        for request in self._link.requests.overdue(watch.elapsed):
            self._replies.unanswered(request)
        newly_silent = watch.notice_silence()
        # After a step of the clock the process may have slept through the end of the connection.
        if newly_silent or watch.stepped or watch.is_silent(INDEX_SILENCE):
            watch.stepped = False
            self._replies.probe()
        if (lost := self._link.lost) is not None and not self._notifications.in_maintenance:
            self._replies.fail(f"{lost} silent for {LOST // SECOND} s on a connection that answers")
        # Both clocks must agree: a local clock that is wrong, or one absurd venue time, must not retire a whole chain.
        certain = min(now, self._link.venue_time_ns) - _EXPIRY_GRACE
        if certain > self._link.first_expiry_ns:
            self._link.retire(self._link.catalogue.expired(certain))
        watch.report_malformed()
        self._replies.look_up_announced()
        self._replies.look_up_doubted()
        self._advance_requests()

    @property
    def next_deadline(self) -> int | None:
        """At most a second ahead, so that a longer gap between calls can only be a clock step."""
        if not self._is_connected:
            return None
        elapsed = self._watch.elapsed
        ahead = SECOND
        for at in (self._link.requests.next_deadline(elapsed), self._link.channels.flush_at):
            if at is not None:
                ahead = min(ahead, max(0, at - elapsed))
        return self._watch.now + ahead

    @property
    def is_ready(self) -> bool:
        """Discovered, and every channel wanted is acknowledged or refused by name."""
        return self._is_connected and self._replies.is_ready

    @property
    def failure(self) -> str | None:
        """Why this connection must be closed and opened again, or None."""
        return self._replies.failure if self._is_connected else None

    @property
    def trouble(self) -> str:
        """Silence, a clock that is not the venue's, maintenance; "" where all is well."""
        return "; ".join(filter(None, (self._notifications.trouble, self._watch.trouble))) if self._is_connected else ""

    @property
    def suspended(self) -> str:
        """The platform is in maintenance: what it quotes, if anything, is not to be believed; "" where it is not."""
        return self._notifications.suspended if self._is_connected else ""

    @property
    def silences(self) -> dict[str, tuple[int, int]]:
        """Heartbeats, indexes, tickers: since when they have not come, and how long they may be silent, ns."""
        return self._watch.silences if self._is_connected else {}

    @property
    def not_before(self) -> int:
        """After `too_many_requests`: when the credits are back."""
        return self._replies.not_before

    @property
    def fatal(self) -> str | None:
        """Nothing that was asked for is listed, or None."""
        return self._replies.fatal

    @property
    def refused_channels(self) -> frozenset[str]:
        """Channels the venue left out twice."""
        return frozenset(self._link.channels.refused)

    def data_to_send(self) -> list[bytes]:
        """Messages to send, in order, answers to heartbeats first."""
        return self._link.requests.take_outbox() if self._is_connected else []

    def events(self) -> list[Event]:
        """Events since the last call, in order."""
        return self._watch.take_events()

    def take_quotes(self, now: int) -> QuoteBatch | None:
        """What changed since the last call, or None: one row per instrument, and one more where a mark came by itself."""
        values, counters = self._link.values, self.counters
        values.settle()
        # Some may be tickers in another form, most are broken: the slower way finds out, and counts them as what they are.
        counters["ticker"] -= len(values.undecoded)
        for data, heard in values.undecoded:
            self._take(data, heard)
        values.undecoded.clear()
        return values.take(now)

    def greeks(self, instrument_id: int) -> VenueGreeks | None:
        """Deribit's own vols and greeks of an option, as of its last ticker; None where none has come."""
        channel, *_ = self._link.channels_of(instrument_id)
        is_option = self.universe[instrument_id].kind is Kind.OPTION
        return self._link.values.greeks(channel.removeprefix("ticker.").encode()) if is_option else None

    def restart_book(self, instrument_id: int, now: int) -> None:
        """Subscribe to a book again: its first message is then a whole one."""
        self._watch.advance(now)
        self._notifications.restart_book(instrument_id)

    def _take(self, data: bytes, now: int) -> None:
        try:
            self._dispatch(data, now)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            self._watch.malformed(malformed_cause(error), data)

    def _dispatch(self, data: bytes, now: int) -> None:
        # Every message but a ticker in its usual order of keys.
        message = wire.decode_message(data)
        if message.method == "subscription":
            self._notifications.take(wire.decode_notification(message.params), now, data)
        elif message.method == "heartbeat":
            self._heartbeat(wire.decode_heartbeat(message.params).type)
        elif message.id is not None or message.error is not None:
            try:
                self._replies.take(message)
            finally:
                self._advance_requests()
        else:
            self._watch.malformed("envelope", data)

    def _heartbeat(self, kind: str) -> None:
        self._link.heard_heartbeat()
        if kind == "test_request":
            self._link.counters["heartbeats_answered"] += 1
            self._link.requests.urgent("public/test")
            self._watch.report(Health.HEARTBEAT_ANSWERED)
        else:
            self._link.counters["heartbeats"] += 1

    def _advance_requests(self) -> None:
        elapsed = self._watch.elapsed
        self._link.channels.flush(elapsed)
        self._replies.check_ready()
        self._link.requests.pump(elapsed)


def make(underlyings: Sequence[str], *, url: str | None = None, shards: int = 1, **options: Any) -> list[Venue]:
    """The `Deribit` of each of so many connections; `options` are further arguments of the class.

    Raises:
        ConfigError: arguments that Deribit cannot mean.
    """
    address = PRODUCTION if url is None else url
    return [Deribit(underlyings, shard=(shard, shards), url=address, **options) for shard in range(shards)]
