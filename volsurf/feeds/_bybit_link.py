"""What the parts of one Bybit connection share: the instruments, their last values, the clock, the topics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from volsurf.feeds._bybit_listing import by_importance, index_of
from volsurf.feeds._bybit_names import Family
from volsurf.feeds._bybit_topics import MOST_CHARACTERS, Topics
from volsurf.feeds._bybit_values import LastValues
from volsurf.feeds._catalogue import Catalogue
from volsurf.feeds._watch import Watch
from volsurf.feeds._wire import in_sentence
from volsurf.feeds.protocol import Health, InstrumentEvent
from volsurf.instruments import Instrument, Kind

_NEVER = 1 << 62


class Link:
    """State of one connection.

    Args:
        books: depth of the order books to have beside the tickers, 0 for none. trades: whether to have trades.

    Attributes:
        venue_time_ns: the venue's time, as last told; 0 before. first_expiry_ns: the next expiry of what is followed.
    """

    def __init__(self, families: Sequence[Family], shard: tuple[int, int], *, books: int, trades: bool) -> None:
        self.families = list(families)
        self.coins = list(dict.fromkeys(family.base for family in families))
        self.counters: Counter[str] = Counter()
        self.catalogue: Catalogue[str] = Catalogue(shard)
        self.watch = Watch(self.counters)
        self.values = LastValues(self.catalogue.universe, self.catalogue.rows, self.counters, self.watch)
        self.topics = Topics()
        self.venue_time_ns = 0
        self.first_expiry_ns = _NEVER
        self._book_depth, self._with_trades = books, trades
        self._without_room = 0

    def clear(self) -> None:
        """Forget what belonged to a socket."""
        self.topics.clear()
        self._without_room = 0

    def heard_time(self, venue_ns: int) -> None:
        """The venue's time as of now."""
        self.venue_time_ns = venue_ns
        self.watch.heard_time(venue_ns)

    def topics_of(self, row: int) -> list[str]:
        """Topics of one instrument, its ticker first."""
        symbol = self.catalogue.universe[row].symbol
        books = [f"orderbook.{self._book_depth}.{symbol}"] if self._book_depth else []
        return [f"tickers.{symbol}", *books]

    def trade_topics(self) -> list[str]:
        """One for all options of a coin."""
        return [f"publicTrade.{coin}" for coin in self.coins] if self._with_trades else []

    def follow(self, instruments: Sequence[Instrument], coin: str) -> list[int]:
        """Follow these beside what is followed; returns ids that are new or have new terms, indexes before their options."""
        families = dict.fromkeys(Family(i.underlying, i.quote_currency) for i in instruments)
        indexes = self.catalogue.follow([index_of(family) for family in families], coin, complete=False).added
        added = self.catalogue.follow(by_importance(instruments), coin, complete=False).added
        self.note_rows(added)
        return indexes + added

    def note_rows(self, rows: Sequence[int]) -> None:
        """Options of the catalogue are new: which index is theirs, and when the next of them expires."""
        for row in rows:
            instrument = self.catalogue.universe[row]
            if instrument.kind is Kind.OPTION:
                self.values.tell_index(row, self.catalogue.index_rows.get(instrument.price_index, -1))
        self._note_expiries()

    def subscribe_to_all(self) -> None:
        """Want every topic there should be: trades, then tickers, then books, each as long as there is room."""
        elapsed = self.watch.elapsed
        for topic in self.trade_topics():
            self.topics.want(topic, None, elapsed)
        rows = list(self.catalogue.rows.values())
        by_row = {row: self.topics_of(row) for row in rows}
        for nth in range(2 if self._book_depth else 1):
            for row in rows:
                self.topics.want(by_row[row][nth], row, elapsed)
        without = self.topics.left_out
        if len(without) > self._without_room:
            self.watch.report(Health.REFUSED, self.no_room)
        self._without_room = len(without)
        self.counters["topics_left_out"] = len(without)

    @property
    def no_room(self) -> str:
        """What is not subscribed to because a connection may not have so many topics; "" where all is."""
        without = self.topics.left_out
        if not without:
            return ""
        return (
            f"{len(without)} topics have no room in the {MOST_CHARACTERS:,} characters of one connection: "
            f"{in_sentence(list(without), 3)}; use more shards"
        )

    def retire(self, rows: Sequence[int]) -> None:
        """Stop following instruments: unsubscribe, clear their quotes, say so, and give their room to others."""
        if not rows:
            return
        for row in rows:
            self.topics.drop(self.topics_of(row), self.watch.elapsed)
        self.values.clear(rows, self.watch.now)
        self.catalogue.retire(rows)
        self._note_expiries()
        self.watch.emit(InstrumentEvent(retired=tuple(rows)))
        if self.topics.left_out:
            self.subscribe_to_all()

    def _note_expiries(self) -> None:
        first = self.catalogue.first_expiry_ns
        self.first_expiry_ns = _NEVER if first is None else first
