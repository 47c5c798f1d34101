"""What the parts of one Deribit connection share: the instruments, their last values, the clock, the requests, the channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from volsurf.feeds._deribit_catalogue import Catalogue
from volsurf.feeds._deribit_channels import Channels
from volsurf.feeds._deribit_names import Market
from volsurf.feeds._deribit_requests import RequestQueue
from volsurf.feeds._deribit_values import LastValues
from volsurf.feeds._deribit_watch import Watch
from volsurf.feeds.protocol import InstrumentEvent
from volsurf.instruments import Kind, Settlement

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
        self.catalogue = Catalogue(markets, shard)
        self.values = LastValues(self.catalogue.universe, self.catalogue.rows, self.counters)
        self.watch = Watch(self.counters)
        self.requests = RequestQueue(1 / shard[1])
        self.channels = Channels(self.requests)
        self.venue_time_ns = 0
        self.first_expiry_ns = _NEVER

    def clear(self) -> None:
        """Forget what belonged to a socket."""
        self.requests.clear(self.watch.elapsed)
        self.channels.clear()

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
