"""What the parts of one Deribit connection share: the instruments, their last values, the clock, the requests, the channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from volsurf.feeds._deribit_catalogue import DeribitCatalogue, Key
from volsurf.feeds._deribit_channels import Channels
from volsurf.feeds._deribit_names import Market
from volsurf.feeds._deribit_requests import RequestQueue
from volsurf.feeds._deribit_values import LastValues
from volsurf.feeds._watch import SECOND, Watch
from volsurf.feeds.protocol import InstrumentEvent
from volsurf.instruments import Kind, Settlement

INDEX_SILENCE = 10 * SECOND
"""`deribit_price_index` comes about once a second."""
QUOTES_SILENCE = 30 * SECOND
"""Deribit refreshes the ticker of a quiet instrument every second, in older feeds every five."""
LOST = 60 * SECOND
"""Silence on a link that answers: the subscription is gone, so the connection is made anew."""
QUOTES = "quotes"
_HEARTBEAT_GRACE = 10 * SECOND
_HEARTBEAT = "heartbeat"
_NEVER = 1 << 62


class Link:
    """State of one connection.

    Args:
        interval: of tickers and books. books, trades, mark_prices: which channels to have beside the tickers.

    Attributes:
        venue_time_ns: the venue's time, as last told by an index price or a reply; 0 before.
        first_expiry_ns: the next expiry among the instruments followed.
    """

    def __init__(
        self,
        markets: Sequence[Market],
        shard: tuple[int, int],
        *,
        interval: str,
        books: bool,
        trades: bool,
        mark_prices: bool,
    ) -> None:
        self.interval = interval
        self._with_books, self._with_trades, self._with_marks = books, trades, mark_prices
        self.counters: Counter[str] = Counter()
        self.catalogue = DeribitCatalogue(markets, shard)
        self.values = LastValues(self.catalogue.universe, self.catalogue.rows, self.counters)
        self.watch = Watch(self.counters)
        self.requests = RequestQueue(1 / shard[1])
        self.channels = Channels(self.requests)
        self._awaits_quotes = False
        self.venue_time_ns = 0
        self.first_expiry_ns = _NEVER

    def clear(self) -> None:
        """Forget what belonged to a socket."""
        self._awaits_quotes = False
        self.requests.clear(self.watch.elapsed)
        self.channels.clear()

    def expect_heartbeats(self, seconds: int) -> None:
        """A heartbeat or a test request comes this often."""
        within = seconds * SECOND + _HEARTBEAT_GRACE
        self.watch.expect(_HEARTBEAT, within, f"no heartbeat for {{silence}} s; one is due every {seconds} s")

    def heard_heartbeat(self) -> None:
        """A heartbeat or a test request came."""
        self.watch.heard_of(_HEARTBEAT)

    def no_heartbeats(self) -> None:
        """The venue would not set a heartbeat: expect none."""
        self.watch.forget(_HEARTBEAT)

    def expect_index(self, name: str) -> None:
        """A price of this index comes every second."""
        self.watch.expect(name, INDEX_SILENCE, f"index {name} silent for {{silence}} s; it ticks every second")

    def heard_quotes(self) -> None:
        """Tickers came; from the first one on they are expected to."""
        if not self._awaits_quotes:
            self._awaits_quotes = True
            self.watch.expect(QUOTES, QUOTES_SILENCE, "no ticker of any instrument for {silence} s")
        self.watch.heard_of(QUOTES)

    @property
    def lost(self) -> str | None:
        """What has been silent for so long that the subscription itself must be doubted."""
        index = next((name for name in self.catalogue.index_rows if self.watch.silence_of(name) > LOST), None)
        if index is not None:
            return f"index {index}"
        return "every ticker" if self.catalogue.rows and self.watch.silence_of(QUOTES) > LOST else None

    def doubted(self) -> set[int]:
        """Options of expiries of which no ticker came for `QUOTES_SILENCE` while tickers of others did."""
        universe, received = self.catalogue.universe, self.values.received
        newest: dict[tuple[Key | None, int], int] = {}
        options = [row for row in self.catalogue.rows.values() if universe[row].kind is Kind.OPTION]
        of = {row: (self.catalogue.key_of(row), universe[row].expiry_ns) for row in options if row in received}
        for row, expiry in of.items():
            newest[expiry] = max(newest.get(expiry, 0), received[row])
        last = max(newest.values(), default=0)
        return {row for row, expiry in of.items() if last - newest[expiry] > QUOTES_SILENCE}

    def common_channels(self) -> list[str]:
        """Channels that belong to no instrument."""
        keys = self.catalogue.keys
        channels = ["platform_state", "platform_state.public_methods_state"]
        channels += [f"instrument.state.{kind}.{currency}" for currency, kind in keys]
        if self._with_trades:
            channels += [f"trades.option.{currency}.100ms" for currency, kind in keys if kind == "option"]
        return channels

    def index_channels(self, name: str) -> list[str]:
        """Channels of one index, its price first."""
        marks = [f"markprice.options.{name}"] if self._with_marks else []
        return [f"deribit_price_index.{name}", *marks]

    def channels_of(self, row: int) -> list[str]:
        """Channels of one instrument."""
        symbol = self.catalogue.universe[row].symbol
        books = [f"book.{symbol}.{self.interval}"] if self._with_books else []
        return [f"ticker.{symbol}.{self.interval}", *books]

    def in_dollars(self, row: int) -> bool:
        """Amounts of this instrument are dollars (inverse futures and perpetuals), not units of the underlying."""
        instrument = self.catalogue.universe[row]
        return instrument.kind is not Kind.OPTION and instrument.settlement is Settlement.INVERSE

    def retire(self, rows: list[int]) -> None:
        """Stop following instruments: unsubscribe, clear their quotes, say so."""
        if not rows:
            return
        for row in rows:
            self.channels.drop(self.channels_of(row), self.watch.elapsed)
        self.values.clear(rows, self.watch.now)
        self.catalogue.retire(rows)
        self.note_expiries()
        self.watch.emit(InstrumentEvent(retired=tuple(rows)))

    def note_expiries(self) -> None:
        """The instruments followed have changed."""
        first = self.catalogue.first_expiry_ns
        self.first_expiry_ns = _NEVER if first is None else first
