"""The route `/public`: book tickers, order books and trades."""

from __future__ import annotations

from msgspec import Raw

from volsurf.feeds import _binance_messages as wire
from volsurf.feeds._binance_books import Books
from volsurf.feeds._binance_link import Link
from volsurf.feeds._binance_names import DEPTH, TICKER, TRADES, stream
from volsurf.feeds._binance_quotes import Quotes
from volsurf.feeds._binance_route import Route
from volsurf.feeds._watch import SECOND
from volsurf.feeds.protocol import TradeEvent
from volsurf.instruments import Instrument
from volsurf.quotes import QuoteBatch

FIRST = 5 * SECOND
"""Some quote of a connection's changes within that."""
QUIET = 60 * SECOND
"""So do the others, later on."""
ENOUGH = 20
"""Book tickers of which that can be said."""


class PublicRoute(Route):
    """`/public`: book tickers, order books and trades of the options assigned to this connection.

    Args:
        tickers: subscribe to book tickers. book: what follows `<symbol>@` for order books, "" for none. trades: to trades of
            all options, on this connection.
    """

    name = "public"

    def __init__(self, link: Link, *, tickers: bool, book: str, trades: bool) -> None:
        super().__init__(link)
        self._tickers, self._book, self._trades = tickers, book, trades
        self.quotes = Quotes(link)
        self._books = Books(link)
        self._traded: dict[int, int] = {}
        self._received = 0
        self._came = False

    def new_socket(self) -> None:
        """Every book starts again."""
        self._books.clear()
        self._received, self._came = self.quotes.received, False

    @property
    def _assigned(self) -> list[str]:
        group = self._link.group
        return [symbol for symbol in group.assigned[self._link.member - 1] if symbol in group.options]

    def _instruments(self) -> list[Instrument]:
        group = self._link.group
        if self._trades:  # of all of them
            return list(group.options.values())
        return [group.options[symbol] for symbol in self._assigned]

    def streams(self) -> list[str]:
        """Streams of what is followed now."""
        rows, universe = self._link.catalogue.rows, self._link.catalogue.universe
        pairs = dict.fromkeys(universe[row].price_index for row in rows.values()) if self._trades else {}
        kinds = [TICKER] * self._tickers + [self._book] * bool(self._book)
        symbols = [symbol for symbol in self._assigned if symbol in rows]
        return [*(stream(pair, TRADES) for pair in pairs), *(stream(s, kind) for s in symbols for kind in kinds)]

    def granted(self, streams: tuple[str, ...]) -> None:
        """From here on changes come: a book may ask for its snapshot, and some quote should change soon."""
        link = self._link
        for name in streams:
            symbol, _, kind = name.partition("@")
            row = link.catalogue.rows.get(symbol.upper())
            if row is None:
                continue
            if kind == TICKER:
                self.quotes.inherit(row, symbol.upper(), link.watch.now)
            elif kind == self._book and not _is_partial(kind):
                self._books.start(row)
        tickers = sum(name.endswith(f"@{TICKER}") for name in link.granted)
        if tickers >= ENOUGH and TICKER not in link.watch.silences:
            said = f"not one of {tickers} quotes changed for {{silence}} s on the route /public"
            link.watch.expect(TICKER, FIRST, said)

    def timer(self, now: int) -> None:
        """Notice that book tickers come; after the first of a connection they may be silent for longer."""
        watch, before = self._link.watch, self._received
        self._received = self.quotes.received
        if self._received == before or TICKER not in watch.silences:
            return
        watch.heard_of(TICKER)
        if not self._came:
            self._came = True
            watch.expect(TICKER, QUIET, "not one quote changed for {silence} s on the route /public")

    def take(self, kind: str, data: Raw, message: bytes, now: int) -> bool:
        """Take a payload."""
        link = self._link
        if kind == TICKER:
            self.quotes.set_ticker(wire.decode_book_ticker(data), now)
            return True
        if kind == DEPTH:
            self._depth(wire.decode_depth(data), bytes(data))
        elif kind == TRADES:
            self._trade(wire.decode_trade(data), bytes(data), now)
        else:
            return False
        link.counters[kind] += 1
        return True

    def _depth(self, depth: wire.Depth, raw: bytes) -> None:
        row = self._link.catalogue.rows.get(depth.s)
        if row is None:
            self._link.counters["book_unknown"] += 1
        elif _is_partial(self._book):
            self._books.top(row, depth, raw)
        elif self._book:
            self._books.change(row, depth, raw)

    def _trade(self, trade: wire.Trade, raw: bytes, now: int) -> None:
        link = self._link
        row = link.catalogue.rows.get(trade.s)
        if row is None:
            link.counters["trade_elsewhere"] += 1
            return
        unit = link.catalogue.universe[row].contract_size
        price, size = trade.p / unit, trade.q * unit
        if trade.S not in ("BUY", "SELL") or not (0 < price < float("inf") and 0 < size < float("inf")):
            link.watch.malformed("trade", raw)
            return
        venue_ns = wire.nanoseconds(trade.T or trade.E)
        link.watch.emit(TradeEvent(row, price, size, trade.S == "BUY", venue_ns, str(trade.t)))
        # A block is agreed elsewhere at whatever price: no last price of the market.
        if trade.X != "BLOCK" and venue_ns >= self._traded.get(row, 0):
            self._traded[row] = venue_ns
            self.quotes.set_last(row, price, venue_ns, now)

    def resume(self) -> None:
        """Everything asked for is granted, and has been for long."""
        self._books.resume()
        super().resume()

    def take_quotes(self, now: int) -> QuoteBatch | None:
        """What changed since the last call."""
        return self.quotes.take(now)

    def drop(self, rows: list[int]) -> None:
        """Their books are not kept any more."""
        for row in rows:
            self._books.forget(row)
            self._traded.pop(row, None)

    def clear(self, rows: list[int], now: int) -> None:
        """Both sides of these options are gone."""
        self.quotes.clear(rows, now)

    def lost(self, symbols: set[str], now: int) -> None:
        """The socket is gone."""
        self.quotes.lost(symbols, now)

    def snapshot(self, symbol: str, body: bytes) -> None:
        """The snapshot of a book came."""
        self._books.snapshot(symbol, body)

    def no_snapshot(self, symbol: str) -> None:
        """The snapshot of a book could not be had."""
        self._books.again(symbol)

    def restart_book(self, row: int) -> None:
        """Ask for a new snapshot."""
        self._books.restart(row)

    def lost_stream(self) -> str:
        """Not one quote changed for so long that the subscriptions must be doubted."""
        silence = self._link.watch.silence_of(TICKER)
        return f"not one quote changed for {silence // SECOND} s" if silence > 2 * QUIET else ""


def _is_partial(book: str) -> bool:
    return book.startswith(DEPTH) and book[len(DEPTH) : len(DEPTH) + 1].isdigit()
