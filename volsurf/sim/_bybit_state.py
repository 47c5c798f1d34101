"""The simulated Bybit as a whole: one market, its listings and quotes, and what every topic says at each tick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from volsurf.instruments import BoolArray
from volsurf.sim._bybit_frames import SIZE_DIGIT, STAMP_KEY, Renderer, levels, push
from volsurf.sim._bybit_listing import BybitListing
from volsurf.sim._bybit_topics import DEPTHS, Feed, FeedTable
from volsurf.sim._wire import text_frame
from volsurf.sim.burst import Stampable, stampable
from volsurf.sim.depth import Ladder, ladder, updates
from volsurf.sim.exchange import Exchange
from volsurf.sim.market import Market
from volsurf.sim.profiles import PROFILES, VenueProfile
from volsurf.sim.quoting import QuoteModel, QuoteRules, Trade

_TICKS_PER_SECOND = 10


class BybitState(Exchange):
    """State and broadcasts; what one client may ask and how is `BybitSession`'s, the pages are `BybitPages`'s.

    Args:
        market: the truth it quotes.
        origin_ns: real time at which the market's clock stands at `market.start_ns`.
        time_scale: market seconds per real second.
        profile: how this venue differs from others of the market.
        bursting: tickers go out through `Session.burst` only, and ticks merely render them.
    """

    listing: BybitListing
    path = "/v5/public/option"
    max_connections = 500

    def __init__(
        self,
        market: Market,
        *,
        origin_ns: int,
        time_scale: float = 1.0,
        rules: QuoteRules | None = None,
        bursting: bool = False,
        profile: VenueProfile | None = None,
    ) -> None:
        super().__init__(market, origin_ns=origin_ns, time_scale=time_scale)
        self.bursting = bursting
        self.profile = profile or PROFILES["bybit"]
        self.listing = BybitListing(market, self.profile)
        self.listing.update(market.now_ns)
        self.quotes = QuoteModel(market, self.listing.universe, rules, self.profile)
        self.quotes.update()
        self.quotes.invent_history()
        self.renderer = Renderer(self.listing, self.quotes)
        self.table = FeedTable()
        self.stamped: dict[int, Stampable] = {}
        """Ticker frames to burst, by row."""
        self.stamped_version = 0
        self.delivered: list[tuple[str, str, int, float]] = []
        """Coin, currency, time and price of what was settled, newest first."""
        self._updates: dict[tuple[int, int], int] = {}
        self._moved_ms: dict[tuple[int, int], int] = {}
        self._tick = 0
        self._number = 62_191_583_000

    def advance(self, now: int) -> None:
        """Move the market to `now`, list and expire, quote, and tell every topic."""
        time_ms = self.market_ns(now) // 1_000_000
        trades: list[Trade] = []
        changed = np.zeros(len(self.listing.universe), np.bool_)
        if self.move_market(now):
            _, retired = self.listing.update(self.market.now_ns)
            if retired:
                self._deliver(retired)
            changed, trades = self.quotes.update()
        self._tick += 1
        self._publish(time_ms, changed, trades)

    def snapshots(self, feeds: Sequence[Feed], now: int) -> Iterable[bytes]:
        """What a new listener of some topics is told at once, in the order of the topics."""
        time_ms = self.market_ns(now) // 1_000_000
        rows = [feed.topic.row for feed in feeds if feed.topic.kind == "tickers"]
        tickers = dict(zip(rows, self.renderer.tickers(rows), strict=True))
        if self.bursting and rows:
            self._stamp(np.array(rows, np.intp), time_ms)
        for feed in feeds:
            if feed.topic.kind == "tickers":
                yield push(feed.topic.name, time_ms, "snapshot", self._next_number(), tickers[feed.topic.row])
            elif feed.topic.kind == "orderbook":
                yield self._book_snapshot(feed, time_ms)

    def restart_books(self, now: int) -> None:
        """The book service restarts: every book is sent whole, and its counter begins at 1 again."""
        time_ms = self.market_ns(now) // 1_000_000
        for depth in DEPTHS:
            for feed in self.table.by_row("orderbook", depth)[1]:
                self._updates[feed.topic.row, depth] = 0
                feed.told = None
                payload = self._book_snapshot(feed, time_ms)
                for session in feed.sessions:
                    session.push(payload)

    def chain(self, underlying: str) -> Mapping[int, npt.ArrayLike]:
        """Listed strikes of every expiry."""
        return self.listing.chain(underlying)

    def unlist(self, rows: list[int]) -> None:
        """End every feed of some rows without a word."""
        for feed in self.table.of_rows(rows):
            for session in list(feed.sessions):
                session.drop(feed.topic.name)
        for row in rows:
            self.stamped.pop(row, None)
        self.stamped_version += 1
        for underlying, expiry_ns in {
            (self.listing.family[row].underlying, int(self.listing.universe.expiry_ns[row])) for row in rows
        }:
            self.listing.forget(underlying, expiry_ns)

    def _deliver(self, rows: list[int]) -> None:
        # No word on the socket: the topics of an expired contract simply end.
        self.quotes.settle(np.flatnonzero(self.listing.universe.active[: len(self.quotes.mark)]))
        settled = {(self.listing.family[row], int(self.listing.universe.expiry_ns[row])) for row in rows}
        for family, expiry_ns in sorted(settled, key=lambda one: (one[1], one[0].underlying, one[0].quote_currency)):
            price = self.listing.spot(family)
            self.delivered.insert(0, (family.underlying, family.quote_currency, expiry_ns // 1_000_000, price))
        self.unlist(rows)
        self.counters["expired"] += len(rows)

    def _publish(self, time_ms: int, changed: BoolArray, trades: list[Trade]) -> None:
        rows, feeds = self.table.by_row("tickers")
        # The forward moves all the time and is told once a second; the phase is the row's own, else all would speak at once.
        due = changed[rows] | ((self._tick + rows) % _TICKS_PER_SECOND == 0)
        if self.bursting:
            self._stamp(rows[due], time_ms)
        else:
            chosen = np.flatnonzero(due)
            for i, ticker in zip(chosen.tolist(), self.renderer.tickers(rows[chosen]), strict=True):
                self._tell(feeds[i], push(feeds[i].topic.name, time_ms, "snapshot", self._next_number(), ticker))
        for depth in DEPTHS:
            rows, feeds = self.table.by_row("orderbook", depth)
            for i in np.flatnonzero(changed[rows]).tolist():
                self._tell_book(feeds[i], time_ms)
        for feed in [f for f in self.table.feeds.values() if f.topic.kind == "publicTrade"] if trades else ():
            mine = [t for t in trades if self.listing.family[t.row].underlying == feed.topic.coin]
            if mine:
                data = self.renderer.trades(mine)
                self._tell(feed, push(feed.topic.name, time_ms, "snapshot", self._next_number(), data))

    def _tell(self, feed: Feed, payload: bytes) -> None:
        for session in feed.sessions:
            session.push(payload)

    def _book_snapshot(self, feed: Feed, time_ms: int) -> bytes:
        key = (feed.topic.row, feed.topic.depth)
        # A second listener joins the first one's book, so that the next change fits both.
        if not isinstance(feed.told, Ladder):
            feed.told = self._ladder(feed, self._next_update(key))
            self._moved_ms[key] = time_ms
        book = feed.told
        data = self._book(feed, book, levels(book.bids.items()), levels(book.asks.items()))
        return push(feed.topic.name, time_ms, "snapshot", self._number, data, cts=self._moved_ms[key])

    def _tell_book(self, feed: Feed, time_ms: int) -> None:
        key, old = (feed.topic.row, feed.topic.depth), feed.told
        assert isinstance(old, Ladder)
        new = self._ladder(feed, old.change_id + 1)
        bids, asks = updates(old.bids, new.bids), updates(old.asks, new.asks)
        if bids or asks:
            feed.told = new
            self._updates[key] = new.change_id
            self._moved_ms[key] = time_ms
            data = self._book(feed, new, levels(bids), levels(asks))
            self._tell(feed, push(feed.topic.name, time_ms, "delta", self._number, data, cts=time_ms - 2))

    def _ladder(self, feed: Feed, update: int) -> Ladder:
        whole = ladder(self.quotes, feed.topic.row, update)
        depth = feed.topic.depth
        return Ladder(update, dict(list(whole.bids.items())[:depth]), dict(list(whole.asks.items())[:depth]))

    def _book(self, feed: Feed, book: Ladder, bids: object, asks: object) -> dict[str, object]:
        return {
            "s": self.listing.names[feed.topic.row],
            "b": bids,
            "a": asks,
            "u": book.change_id,
            "seq": self._next_number(),
        }

    def _next_update(self, key: tuple[int, int]) -> int:
        # It goes on while nobody listens; a contract begins somewhere.
        self._updates[key] = self._updates.get(key, 4000 + 7 * key[0]) + 1
        return self._updates[key]

    def _next_number(self) -> int:
        # Shared by all topics, and it jumps.
        self._number += 3
        return self._number

    def _stamp(self, rows: npt.NDArray[np.intp], time_ms: int) -> None:
        names = self.listing.names
        for row, ticker in zip(rows.tolist(), self.renderer.tickers(rows), strict=True):
            payload = push(f"tickers.{names[row]}", time_ms, "snapshot", self._next_number(), ticker)
            self.stamped[row] = stampable(text_frame(payload), STAMP_KEY, SIZE_DIGIT)
        self.stamped_version += 1
