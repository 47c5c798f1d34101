"""The simulated Binance as a whole: one market, its listings and quotes, and what every stream says at each tick."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from msgspec.json import encode

from volsurf.instruments import BoolArray
from volsurf.sim._binance_frames import SIZE_DIGIT, STAMP_KEY, Renderer, wrapped
from volsurf.sim._binance_listing import INDEX_DECIMALS, BinanceListing
from volsurf.sim._binance_quotes import BinanceQuotes
from volsurf.sim._binance_streams import ROUTES, Feed, FeedTable
from volsurf.sim._wire import text_frame
from volsurf.sim.burst import Stampable, stampable
from volsurf.sim.depth import Ladder, ladder, updates
from volsurf.sim.exchange import Exchange
from volsurf.sim.listing import from_ns
from volsurf.sim.market import Market
from volsurf.sim.profiles import PROFILES, VenueProfile
from volsurf.sim.quoting import QuoteRules, Trade

_TICKS_PER_SECOND = 10
_TICKS_OF = {"100ms": 1, "500ms": 5}
_TICKS_PER_MINUTE = 600
_FIRST_UPDATE = 39_895_600_000


class BinanceState(Exchange):
    """State and broadcasts; what one client may ask and how is `BinanceSession`'s, the pages are `BinancePages`'s.

    Args:
        market: the truth it quotes.
        origin_ns: real time at which the market's clock stands at `market.start_ns`.
        time_scale: market seconds per real second.
        profile: how this venue differs from others of the market.
        bursting: book tickers go out through `Session.burst` only, and ticks merely render them.
    """

    listing: BinanceListing
    quotes: BinanceQuotes
    path = ""
    max_connections = 300
    """Per five minutes of an address, at the venue; here, open at once."""

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
        self.profile = profile or PROFILES["binance"]
        self.listing = BinanceListing(market, self.profile)
        self.listing.update(market.now_ns)
        self.quotes = BinanceQuotes(market, self.listing.universe, rules, self.profile)
        self.quotes.update()
        self.quotes.invent_history()
        self.renderer = Renderer(self.listing, self.quotes)
        self.table = FeedTable()
        self.stamped: dict[int, Stampable] = {}
        """Book ticker frames to burst, by row."""
        self.stamped_version = 0
        self._ladders: dict[int, Ladder] = {}
        self._tick = 0
        self._update = _FIRST_UPDATE

    def accepts(self, path: str) -> bool:
        """Both routes, raw and combined; without a route the venue opens a connection too, and says nothing on it."""
        parts = path.strip("/").split("/", 2)
        if parts[0] in ROUTES:
            parts = parts[1:]
        return parts[:1] in (["ws"], ["stream"])

    def advance(self, now: int) -> None:
        """Move the market to `now`, list and expire, quote, and tell every stream."""
        time_ms = self.market_ns(now) // 1_000_000
        trades: list[Trade] = []
        changed = np.zeros(len(self.listing.universe), np.bool_)
        if self.move_market(now):
            added, retired = self.listing.update(self.market.now_ns)
            if retired:
                self._expire(retired)
            changed, trades = self.quotes.update()
            for row in added:
                self._announce(row, time_ms)
        self._tick += 1
        self._publish(time_ms, changed, trades)

    def chain(self, underlying: str) -> Mapping[int, npt.ArrayLike]:
        """Listed strikes of every expiry."""
        return self.listing.chain(underlying)

    def unlist(self, rows: list[int]) -> None:
        """End every feed of some rows without a word."""
        for feed in self.table.of_rows(rows):
            for session in list(feed.sessions):
                session.drop(feed.stream.name)
        for row in rows:
            self.stamped.pop(row, None)
            self._ladders.pop(row, None)
        self.stamped_version += 1
        for underlying, expiry_ns in {
            (self.listing.family[row].underlying, int(self.listing.universe.expiry_ns[row])) for row in rows
        }:
            self.listing.forget(underlying, expiry_ns)

    def book(self, row: int) -> Ladder:
        """The book of a row as its changes have led to."""
        if row not in self._ladders:
            self._ladders[row] = ladder(self.quotes, row, self._next_update(row))
        return self._ladders[row]

    def joined(self, feed: Feed, now: int) -> None:
        """Somebody listens to a stream: the changes of a book are told from here on, and a burst needs a frame to begin with."""
        if feed.stream.kind == "diff" and feed.told is None:
            feed.told = self.book(feed.stream.row)
        if self.bursting and feed.stream.kind == "bookTicker":
            self.stamp(np.array([feed.stream.row], np.intp), self.market_ns(now) // 1_000_000)

    def rows_of(self, pair: str) -> npt.NDArray[np.intp]:
        """Options listed on a pair."""
        universe, family = self.listing.universe, self.listing.pairs[pair]
        rows = universe.options(family.underlying).astype(np.intp)
        return rows[[universe[row].price_index == pair for row in rows.tolist()]]

    def stamp(self, rows: npt.NDArray[np.intp], time_ms: int) -> None:
        """Render book tickers to burst."""
        for row in rows.tolist():
            payload = self.renderer.book_ticker(row, self._next_update(row), time_ms)
            name = f"{self.listing.names[row].lower()}@bookTicker"
            self.stamped[row] = stampable(text_frame(wrapped(name, payload)), STAMP_KEY, SIZE_DIGIT)
        self.stamped_version += 1

    def _publish(self, time_ms: int, changed: BoolArray, trades: list[Trade]) -> None:
        rows, feeds = self.table.by_row("bookTicker")
        if self.bursting:
            self.stamp(rows[changed[rows]], time_ms)
        else:
            for i in np.flatnonzero(changed[rows]).tolist():
                row = int(rows[i])
                self._tell(feeds[i], self.renderer.book_ticker(row, self._next_update(row), time_ms))
        self._move_books(changed)
        for kind in ("diff", "depth"):
            for feed in self.table.by_row(kind)[1]:
                if self._tick % _TICKS_OF[feed.stream.speed] == 0:
                    self._tell_book(feed, time_ms)
        for trade in trades:
            self._tell_trade(trade, time_ms)
        if self._tick % _TICKS_PER_SECOND == 0:
            self._tell_seconds(time_ms)

    def _tell(self, feed: Feed, payload: bytes) -> None:
        combined = wrapped(feed.stream.name, payload)
        for session in feed.sessions:
            session.push(payload, combined)

    def _move_books(self, changed: BoolArray) -> None:
        for row in [row for row in self._ladders if changed[row]]:
            old = self._ladders[row]
            new = ladder(self.quotes, row, old.change_id)
            if (old.bids, old.asks) != (new.bids, new.asks):
                self._ladders[row] = Ladder(self._next_update(row), new.bids, new.asks)

    def _tell_book(self, feed: Feed, time_ms: int) -> None:
        row, new, old = feed.stream.row, self.book(feed.stream.row), feed.told
        feed.told = new
        if new is old:
            return
        if feed.stream.kind == "depth":
            top = (list(new.bids.items())[: feed.stream.depth], list(new.asks.items())[: feed.stream.depth])
            # As captured: the number before is that of thousands of changes ago.
            payload = self.renderer.depth(row, new, new.change_id - 9_253, new.change_id - 3, top, time_ms)
        else:
            assert isinstance(old, Ladder)
            sides = (updates(old.bids, new.bids), updates(old.asks, new.asks))
            first = old.change_id + 1 + (new.change_id - old.change_id - 1) // 2
            payload = self.renderer.depth(row, new, old.change_id, first, sides, time_ms)
        self._tell(feed, payload)

    def _next_update(self, row: int) -> int:
        # The venue's counter is shared by all instruments and jumps.
        self._update += 1 + row % 7
        return self._update

    def _tell_trade(self, trade: Trade, time_ms: int) -> None:
        pair = self.listing.universe[trade.row].price_index
        for feed in self.table.of_kind("optionTrade"):
            if feed.stream.row == trade.row or feed.stream.pair == pair:
                self._tell(feed, self.renderer.trade(trade, time_ms))

    def _tell_seconds(self, time_ms: int) -> None:
        for feed in self.table.of_kind("index"):
            self._tell(feed, self._indexes(time_ms))
        for feed in self.table.of_kind("optionMarkPrice"):
            rows = self.rows_of(feed.stream.pair)
            if len(rows):
                self._tell(feed, self.renderer.marks(feed.stream.pair, rows, time_ms))
        for feed in self.table.of_kind("optionTicker"):
            for row in self._rows_of_feed(feed):
                self._tell(feed, self.renderer.statistics(row, time_ms))
        if self._tick % _TICKS_PER_MINUTE == 0:
            for feed in self.table.of_kind("openInterest"):
                self._tell(feed, self._open_interest(self._rows_of_feed(feed), time_ms))

    def _rows_of_feed(self, feed: Feed) -> list[int]:
        if feed.stream.row >= 0:
            return [feed.stream.row]
        rows: list[int] = self.rows_of(feed.stream.pair).tolist()
        expiry = self.listing.universe.expiry_ns
        return [row for row in rows if f"{from_ns(int(expiry[row])):%y%m%d}" == feed.stream.date]

    def _indexes(self, time_ms: int) -> bytes:
        prices = {pair: self.listing.spot(family) for pair, family in self.listing.pairs.items()}
        return encode(
            [
                {"e": "indexPrice", "E": time_ms, "s": pair, "p": f"{price:.{INDEX_DECIMALS}f}"}
                for pair, price in prices.items()
            ]
        )

    def _open_interest(self, rows: list[int], time_ms: int) -> bytes:
        names, interest = self.listing.names, self.quotes.open_interest
        return encode(
            [
                {"e": "openInterest", "E": time_ms, "s": names[row], "o": f"{interest[row]:.2f}", "h": "0.0"}
                for row in rows
            ]
        )

    def _expire(self, rows: list[int]) -> None:
        # No word on the sockets: what has expired is missing from the next chain.
        self.quotes.settle(np.flatnonzero(self.listing.universe.active[: len(self.quotes.mark)]))
        self.unlist(rows)
        self.counters["expired"] += len(rows)

    def _announce(self, row: int, time_ms: int) -> None:
        for feed in self.table.of_kind("listings"):
            self._tell(feed, encode({"e": "optionSymbol", "E": time_ms} | self.listing.announcements[row]))
