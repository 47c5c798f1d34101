"""What OKX sends over the websocket besides quotes: indexes, books, trades, listings, acknowledgements, errors and notices."""

from __future__ import annotations

import msgspec

from volsurf.feeds import _okx_messages as wire
from volsurf.feeds._okx_channels import SUBSCRIBE, TIMEOUT, UNSUBSCRIBE, Refused
from volsurf.feeds._okx_discovery import TOO_MANY, Discovery
from volsurf.feeds._okx_link import Link
from volsurf.feeds._okx_messages import Arg, nanoseconds, number
from volsurf.feeds._watch import SECOND
from volsurf.feeds._wire import BadLevel, BookGap, in_sentence, malformed_cause
from volsurf.feeds.book import lost_book
from volsurf.feeds.protocol import Health, TradeEvent

UPGRADE = "64008"
"""Code of the notice that comes a minute before a connection is cut for an upgrade of the service."""
RATE_LIMITED = ("60014", "60023", *TOO_MANY)
_RATE_PAUSE = 2 * SECOND
_MOST_HELD = 1000


class Pushes:
    """Takes every message that is no quote in its usual form.

    Attributes:
        takeover: why a second socket should take over, or "". failure: why the connection must be opened again.
        not_before: no new connection before this time, ns UTC.
    """

    def __init__(self, link: Link, discovery: Discovery) -> None:
        self._link, self._discovery = link, discovery
        self.not_before = 0
        self.clear()

    def clear(self) -> None:
        """A new socket."""
        self.takeover = ""
        self.failure: str | None = None
        self._held: list[msgspec.Raw] = []

    def fail(self, reason: str) -> None:
        """This connection must be opened again; the first reason is the one told."""
        if self.failure is None:
            self.failure = reason

    def take(self, data: bytes, now: int) -> None:
        """Take one message; lets decoding errors out."""
        message = wire.decode_message(data)
        if message.event:
            self._event(message, data)
        elif message.arg is not None:
            self._push(message.arg, message, data, now)
        else:
            self._link.watch.malformed("envelope", data)

    def take_held(self) -> None:
        """Discovery is done: the listings pushed meanwhile are newer than what it read."""
        held, self._held = self._held, []
        for raw in held:
            self._link.take_rows(wire.decode_rows(raw))

    def give_up_overdue(self) -> None:
        """Do what is due about requests that were not acknowledged."""
        link = self._link
        overdue = link.channels.overdue(link.watch.elapsed)
        for request in overdue.silent:
            link.counters["unanswered"] += 1
            said = f"{request.op} to {in_sentence(list(map(str, request.args)), 3)}"
            link.watch.report(Health.NO_ACK, f"{said} was not acknowledged within {TIMEOUT // SECOND} s")
        for request in overdue.dead:
            self.fail(f"{request.op} was not acknowledged within {TIMEOUT // SECOND} s, twice")
        self._refuse(overdue.refused)

    def restart_book(self, row: int) -> None:
        """Start a book anew, if it is followed."""
        symbol = self._link.universe[row].symbol
        for arg in self._link.args_of(row)[1:]:
            if arg in self._link.channels.owner and self._link.catalogue.rows.get(symbol) == row:
                self._link.books.forget(row)
                self._restart(arg, row)

    def _push(self, arg: Arg, message: wire.Message, data: bytes, now: int) -> None:
        link, channel = self._link, arg.channel
        if channel in (wire.BBO, wire.TICKERS):
            # Not in the usual order of keys, or not of the channel that was asked for.
            self._quote(arg, data, now)
        elif channel == wire.SUMMARY:
            link.values.add_summary(data, now)
        elif channel == wire.INDEX:
            self._indexes(message.data, now)
        elif channel in (wire.BOOKS, wire.BOOKS5):
            self._books(arg, message)
        elif channel in (wire.OPTION_TRADES, "trades", "trades-all"):
            self._trades(message.data, now)
        elif channel == wire.INSTRUMENTS:
            self._instruments(message.data)
        else:
            # One name for all: what a stranger sends must not become names of counters.
            link.counters["channel_unknown"] += 1
            return
        link.counters[channel] += 1

    def _quote(self, arg: Arg, data: bytes, now: int) -> None:
        link = self._link
        if arg.channel != link.quotes:
            link.counters["channel_unknown"] += 1
            return
        # It replaces what is unread of the same instrument, as the fast way does.
        link.values.quotes[arg.instId.encode("utf-8", "surrogatepass")] = data, now

    def _indexes(self, raw: msgspec.Raw, now: int) -> None:
        link = self._link
        for price in wire.decode_indexes(raw):
            row, value = link.catalogue.index_rows.get(price.instId), number(price.idxPx)
            if row is None or not value > 0:
                link.counters["index_unusable"] += 1
                continue
            venue_ns = nanoseconds(price.ts)
            if venue_ns:
                link.venue_time_ns = venue_ns
                link.watch.heard_time(venue_ns)
            link.values.pending.index(row, value, venue_ns, now)
            link.watch.heard_of(price.instId)

    def _trades(self, raw_rows: msgspec.Raw, now: int) -> None:
        link = self._link
        for raw in wire.decode_rows(raw_rows):
            try:
                trade = wire.decode_trade(raw)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                link.watch.malformed(malformed_cause(error), bytes(raw))
                continue
            row, price, contracts = link.catalogue.rows.get(trade.instId), number(trade.px), number(trade.sz)
            if row is None:
                link.counters["trade_elsewhere"] += 1  # another shard's
                continue
            unit, in_dollars = link.values.scale(row)
            size = contracts * unit / price if in_dollars and price > 0 else contracts * unit
            if not (price > 0 and 0 < size < float("inf")) or trade.side not in ("buy", "sell"):
                link.watch.malformed("trade", bytes(raw))
                continue
            venue_ns = nanoseconds(trade.ts)
            link.watch.emit(TradeEvent(row, price, size, trade.side == "buy", venue_ns, trade.tradeId))
            link.values.pending.last(row, price, venue_ns, now)

    def _books(self, arg: Arg, message: wire.Message) -> None:
        link = self._link
        row = link.catalogue.rows.get(arg.instId)
        if row is None:
            link.counters["book_unknown"] += 1
            return
        for book in wire.decode_books(message.data):
            is_snapshot = arg.channel == wire.BOOKS5 or message.action == "snapshot" or book.prevSeqId == -1
            try:
                event = link.books.take(row, book, is_snapshot=is_snapshot, scale=link.values.scale(row))
            except BookGap as gap:
                link.counters["book_gaps"] += 1
                link.watch.report(Health.GAP, f"{arg.instId}: {gap}; subscribing anew")
                self._restart(arg, row)
            except BadLevel:
                link.watch.malformed("book", bytes(message.data))
                self._restart(arg, row)
            else:
                if event is None:
                    link.counters["book_without_event"] += 1
                else:
                    link.watch.emit(event)

    def _restart(self, arg: Arg, row: int) -> None:
        self._link.watch.emit(lost_book(row))
        # Every message of `books5` is a whole book: the next one mends it.
        if arg.channel == wire.BOOKS:
            self._link.channels.restart(arg, self._link.watch.elapsed)

    def _instruments(self, raw_rows: msgspec.Raw) -> None:
        if self._discovery.is_done:
            self._link.take_rows(wire.decode_rows(raw_rows))
        elif len(self._held) < _MOST_HELD:
            wire.decode_rows(raw_rows)
            self._held.append(raw_rows.copy())

    def _event(self, message: wire.Message, data: bytes) -> None:
        link, event, request = self._link, message.event, "" if message.id is None else str(message.id)
        if event in (SUBSCRIBE, UNSUBSCRIBE):
            if message.arg is None:
                link.watch.malformed("envelope", data)
            elif not link.channels.acknowledged(request, event, message.arg):
                link.counters["replies_unclaimed"] += 1
        elif event == "error":
            self._error(request, str(message.code), message.msg)
        elif event == "notice":
            self._notice(str(message.code), message.msg)
        else:
            link.counters["event_unknown"] += 1

    def _notice(self, code: str, words: str) -> None:
        said = f"OKX: {words[:200]} ({code[:20]})"
        self._link.counters["notices"] += 1
        self._link.watch.report(Health.MAINTENANCE, said)
        if code == UPGRADE:
            self._link.counters["upgrades_announced"] += 1
            self.takeover = f"the venue is about to close this connection for an upgrade. {said}"

    def _error(self, request: str, code: str, words: str) -> None:
        link = self._link
        said = f"OKX: {words[:300]} ({code[:20]})"
        link.counters[f"errors.{code}" if code.isdecimal() and len(code) == 5 else "errors.other"] += 1
        if code in RATE_LIMITED:
            link.watch.report(Health.RATE_LIMITED, said)
            self.not_before = link.watch.now + _RATE_PAUSE
            if not link.channels.put_off(request, link.watch.elapsed + _RATE_PAUSE):
                self.fail(said)
            return
        refused = link.channels.failed(request, words, said, link.watch.elapsed)
        if refused:
            self._refuse(refused)
        else:
            link.watch.report(Health.REFUSED, said)

    def _refuse(self, refused: list[Refused]) -> None:
        link = self._link
        if not refused:
            return
        link.counters["channels_refused"] += len(refused)
        names = in_sentence([str(one.arg) for one in refused])
        keys = {key for one in refused if (key := link.may_retry(one.arg)) is not None}
        what = "asking once more" if keys else "given up"
        link.watch.report(Health.REFUSED, f"{names} refused, {what}: {refused[0].why}")
        for key in sorted(keys):
            self._discovery.look_up(key)
        for one in refused:
            if one.arg.channel == wire.INDEX:
                link.watch.forget(one.arg.instId)
