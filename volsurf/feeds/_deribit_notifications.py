"""What Deribit pushes unasked, channel by channel."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from volsurf.feeds import _deribit_messages as wire
from volsurf.feeds._deribit_books import Books
from volsurf.feeds._deribit_catalogue import ENDED, PAUSED, Key
from volsurf.feeds._deribit_link import Link
from volsurf.feeds._wire import BadLevel, BookGap, malformed_cause, nanoseconds
from volsurf.feeds.book import lost_book
from volsurf.feeds.protocol import Health, TradeEvent

_TICKER_AT = len("ticker.")


class Notifications:
    """Takes what comes in on subscriptions.

    Attributes:
        announced: listing → names that `instrument.state` announced and no listing has shown yet.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.announced: dict[Key, set[str]] = {}
        self._books = Books()
        self._locked: set[str] = set()
        self._paused: set[int] = set()
        self._maintenance = False

    def resume(self, rows: Sequence[int]) -> None:
        """Books of these instruments go on from where whoever holds them has them."""
        self._books.resume(rows)

    def clear(self) -> None:
        """Forget what belonged to the old socket."""
        self._books.clear()
        self.announced.clear()
        self._locked.clear()
        self._paused.clear()
        self._maintenance = False
        self.update_halted()

    @property
    def in_maintenance(self) -> bool:
        """The platform, or an index followed here, is locked: silence is expected."""
        return self._maintenance or bool(self._locked)

    @property
    def suspended(self) -> str:
        """That the whole platform is in maintenance, in words; "" where it is not. What is locked alone shows no quotes."""
        return "the platform is in maintenance" if self._maintenance else ""

    @property
    def trouble(self) -> str:
        """Which maintenance there is, in words; "" where there is none."""
        locked = [f"{name} is locked" for name in sorted(self._locked)]
        return "; ".join(filter(None, (self.suspended, *locked)))

    def update_halted(self) -> None:
        """Tell the values whose prices are no quotes, after a state or the instruments changed."""
        values, catalogue = self._link.values, self._link.catalogue
        if not (self._paused or self._locked or self._maintenance or values.halted):
            return
        halted = set(self._paused)
        if self._maintenance or self._locked:
            rows = catalogue.rows.values()
            halted.update(
                row for row in rows if self._maintenance or catalogue.universe[row].price_index in self._locked
            )
        newly = halted - values.halted
        values.halted = halted
        values.clear(newly, self._link.watch.now)

    def take(self, notification: wire.Notification, now: int, message: bytes) -> None:
        """Take one notification and the whole message that it came as; lets decoding errors out."""
        channel, data = notification.channel, notification.data
        kind, _, _ = channel.partition(".")
        if channel in ("platform_state", "platform_state.public_methods_state"):
            self._platform(wire.decode_platform_state(data))
        elif channel.startswith("instrument.state."):
            self._state(wire.decode_state_change(data))
        elif kind == "ticker":
            self._ticker(wire.decode_ticker(data), now)
            self._link.values.told[channel[_TICKER_AT:].encode()] = message
        elif kind == "book":
            self._book(channel, wire.decode_book(data), data)
        elif kind == "trades":
            self._trades(data)
        elif kind == "deribit_price_index":
            self._index(wire.decode_index_price(data), now)
        elif kind == "markprice":
            self._marks(data, now)
        else:
            # One name for all: what a stranger sends must not become names of counters.
            self._link.counters["channel_unknown"] += 1
            return
        self._link.counters[kind] += 1

    def restart_book(self, row: int) -> None:
        """Start the book of an instrument again from a snapshot."""
        channels = self._link.channels
        for channel in self._link.channels_of(row):
            if channel.startswith("book.") and channel in channels.owner:
                self._restart(channel, row)

    def _ticker(self, ticker: wire.Ticker, now: int) -> None:
        self._link.values.settle()  # what came before it must not come after it
        row = self._link.catalogue.rows.get(ticker.instrument_name)
        if row is None:
            self._link.counters["ticker_unknown"] += 1
            return
        self._link.values.set_ticker(row, ticker, now)

    def _index(self, price: wire.IndexPrice, now: int) -> None:
        row = self._link.catalogue.index_rows.get(price.index_name)
        if row is None or not price.price > 0:
            self._link.counters["index_unusable"] += 1
            return
        if venue_ns := nanoseconds(price.timestamp):
            self._link.venue_time_ns = venue_ns
            self._link.watch.heard_time(venue_ns)
        self._link.values.set_index(row, price, now)
        self._link.watch.heard_of(price.index_name)

    def _marks(self, data: msgspec.Raw, now: int) -> None:
        rows = self._link.catalogue.rows
        for raw in wire.decode_rows(data):
            try:
                mark = wire.decode_mark_price(raw)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                self._link.watch.malformed(malformed_cause(error), bytes(raw))
                continue
            row = rows.get(mark.instrument_name)
            if row is not None:
                self._link.values.set_mark(row, mark, now)

    def _trades(self, data: msgspec.Raw) -> None:
        link = self._link
        for raw in wire.decode_rows(data):
            try:
                trade = wire.decode_trade(raw)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                link.watch.malformed(malformed_cause(error), bytes(raw))
                continue
            row = link.catalogue.rows.get(trade.instrument_name)
            if row is None:
                link.counters["trade_elsewhere"] += 1  # a combo, another market of the currency, another shard
            elif not (trade.price > 0 and trade.amount > 0) or trade.direction not in ("buy", "sell"):
                link.watch.malformed("trade", bytes(raw))
            else:
                is_buy, time_ns = trade.direction == "buy", nanoseconds(trade.timestamp)
                link.watch.emit(TradeEvent(row, trade.price, trade.amount, is_buy, time_ns, str(trade.trade_id)))

    def _book(self, channel: str, book: wire.Book, data: msgspec.Raw) -> None:
        link = self._link
        row = link.catalogue.rows.get(book.instrument_name)
        if row is None:
            link.counters["book_unknown"] += 1
            return
        try:
            event = self._books.take(row, book, in_dollars=link.in_dollars(row))
        except BookGap as gap:
            link.counters["book_gaps"] += 1
            link.watch.report(Health.GAP, f"{book.instrument_name}: {gap}; subscribing anew")
            self._restart(channel, row)
        except BadLevel:
            link.watch.malformed("book", bytes(data))
            self._restart(channel, row)
        else:
            if event is None:
                link.counters["book_awaiting_snapshot"] += 1
            else:
                link.watch.emit(event)

    def _restart(self, channel: str, row: int) -> None:
        self._books.forget(row)
        self._link.watch.emit(lost_book(row))
        self._link.channels.restart(channel, self._link.watch.elapsed)

    def _state(self, change: wire.StateChange) -> None:
        link = self._link
        name, state = change.instrument_name, change.state
        row = link.catalogue.rows.get(name)
        if state in ENDED:
            if row is not None:
                link.retire([row])
                self._books.forget(row)
                self._paused.discard(row)
                self.update_halted()
            for names in self.announced.values():
                names.discard(name)
        elif state in PAUSED:
            if row is not None:
                self._paused.add(row)
                self.update_halted()
                link.watch.report(Health.MAINTENANCE, f"{name} is {state}")
        elif state == "open":
            if row is not None:
                self._paused.discard(row)
                self.update_halted()
            elif (key := link.catalogue.concerns(name)) is not None:
                # The message has neither strike nor expiry, and a name does not say tick or settlement.
                self.announced.setdefault(key, set()).add(name)
        else:
            link.counters["state_unknown"] += 1

    def _platform(self, state: wire.PlatformState) -> None:
        watch = self._link.watch
        if state.price_index and state.locked is not None and state.price_index in self._link.catalogue.index_rows:
            was_locked = state.price_index in self._locked
            # "partial" locks some of a currency's instruments and does not say which.
            if state.locked:
                self._locked.add(state.price_index)
            else:
                self._locked.discard(state.price_index)
            if bool(state.locked) != was_locked:
                self._tell_maintenance(bool(state.locked), f"{state.price_index} is", "locked")
        if state.maintenance is not None and state.maintenance != self._maintenance:
            self._maintenance = state.maintenance
            self._tell_maintenance(state.maintenance, "the platform is", "in maintenance")
        if state.allow_unauthenticated_public_requests is False:
            watch.report(Health.MAINTENANCE, "Deribit takes no anonymous requests for now")
        self.update_halted()

    def _tell_maintenance(self, begins: bool, subject: str, what: str) -> None:
        kind = Health.MAINTENANCE if begins else Health.RECOVERED
        self._link.watch.report(kind, f"{subject} {what}" if begins else f"{subject} no longer {what}")
