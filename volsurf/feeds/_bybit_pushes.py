"""What Bybit pushes on topics other than tickers in their usual form: order books, trades, and tickers in another."""

from __future__ import annotations

import msgspec

from volsurf.feeds import _bybit_messages as wire
from volsurf.feeds._bybit_books import Books
from volsurf.feeds._bybit_link import Link
from volsurf.feeds._wire import BadLevel, BookGap, malformed_cause, nanoseconds
from volsurf.feeds.book import lost_book
from volsurf.feeds.protocol import Health, TradeEvent

_SIDES = {"Buy": True, "Sell": False}


class Pushes:
    """Takes what comes in on topics.

    Attributes:
        heard: topics of books heard since somebody last emptied it.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.books = Books()
        self.heard: set[str] = set()

    def clear(self) -> None:
        """Forget what belonged to the old socket."""
        self.books.clear()
        self.heard.clear()

    def take(self, message: wire.Message, now: int) -> None:
        """Take one message with a topic; lets decoding errors out."""
        kind, _, rest = message.topic.partition(".")
        if kind == "tickers":
            self._ticker(rest, message, now)
        elif kind == "orderbook":
            self._book(message)
            self._link.counters["book"] += 1
        elif kind == "publicTrade":
            self._trades(message.data)
            self._link.counters["trades"] += 1
        else:
            # One name for all: what a stranger sends must not become names of counters.
            self._link.counters["topic_unknown"] += 1

    def _ticker(self, symbol: str, message: wire.Message, now: int) -> None:
        self._link.counters["ticker"] += 1
        if symbol not in self._link.catalogue.rows:
            self._link.counters["ticker_unknown"] += 1
        elif message.type not in ("snapshot", "delta"):
            self._link.watch.malformed("type", bytes(message.data))
        else:
            self._link.values.hold(symbol, message, now)

    def _book(self, message: wire.Message) -> None:
        link, topic = self._link, message.topic
        book = wire.decode_book(message.data)
        row = link.catalogue.rows.get(book.s)
        if row is None or topic not in link.topics.owner:
            link.counters["book_unknown"] += 1
            return
        is_snapshot = message.type == "snapshot"
        if not is_snapshot and message.type != "delta":
            link.watch.malformed("type", bytes(message.data))
            return
        self.heard.add(topic)
        try:
            event = self.books.take(row, book, is_snapshot=is_snapshot, time_ms=message.ts)
        except BookGap as gap:
            link.counters["book_gaps"] += 1
            link.watch.report(Health.GAP, f"{book.s}: {gap}; subscribing anew")
            self._restart(topic, row)
        except BadLevel:
            link.watch.malformed("book", bytes(message.data))
            self._restart(topic, row)
        else:
            if event is not None:
                # A snapshot may come before its acknowledgement, and then stands for it.
                if is_snapshot:
                    link.topics.delivers(topic, link.watch.elapsed)
                link.watch.emit(event)
            else:
                link.counters["book_repeated" if self.books.has(row) else "book_awaiting_snapshot"] += 1

    def restart_book(self, row: int) -> None:
        """Start the book of an instrument again from a snapshot."""
        for topic in self._link.topics_of(row):
            if topic.startswith("orderbook.") and topic in self._link.topics.owner:
                self.books.forget(row)
                self._restart(topic, row)

    def _restart(self, topic: str, row: int) -> None:
        self._link.watch.emit(lost_book(row))
        self._link.topics.restart(topic, self._link.watch.elapsed)

    def _trades(self, data: msgspec.Raw) -> None:
        link = self._link
        for raw in wire.decode_rows(data):
            try:
                trade = wire.decode_trade(raw)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                link.watch.malformed(malformed_cause(error), bytes(raw))
                continue
            row = link.catalogue.rows.get(trade.s)
            is_buy = _SIDES.get(trade.S)
            infinite = float("inf")
            if row is None:
                link.counters["trade_elsewhere"] += 1  # another family of the coin, another connection's
            elif not (0 < trade.p < infinite and 0 < trade.v < infinite) or is_buy is None:
                link.watch.malformed("trade", bytes(raw))
            else:
                time_ns = nanoseconds(trade.T)
                link.watch.emit(TradeEvent(row, trade.p, trade.v, is_buy, time_ns, str(trade.i)))
