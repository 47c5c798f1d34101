"""The simulated Deribit as a whole: one market, its listings and quotes, and what every channel says at each tick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from volsurf.instruments import NANOSECONDS_PER_YEAR, BoolArray, Kind
from volsurf.sim._deribit_books import changes
from volsurf.sim._deribit_channels import INTERVALS, PER_KIND, Channel, Feed, FeedTable, underlying_of_index
from volsurf.sim._deribit_frames import SIZE_DIGIT, STAMP_KEY, Renderer, notification
from volsurf.sim._deribit_listing import TERMS, DeribitListing
from volsurf.sim._wire import text_frame
from volsurf.sim.burst import Stampable, stampable
from volsurf.sim.depth import Ladder, ladder
from volsurf.sim.exchange import Exchange
from volsurf.sim.market import Market
from volsurf.sim.profiles import VenueProfile
from volsurf.sim.quoting import QuoteModel, QuoteRules, Trade

_TICKS_PER_SECOND = 10
_TICKS_PER_AGG2 = 20
_MONTH_NS = NANOSECONDS_PER_YEAR // 12


class DeribitState(Exchange):
    """State and broadcasts; what one client may ask and how is `DeribitSession`'s.

    Args:
        market: the truth it quotes.
        origin_ns: real time at which the market's clock stands at `market.start_ns`.
        time_scale: market seconds per real second.
        profile: how this venue differs from others of the market; None quotes the truth itself.
        bursting: tickers go out through `Session.burst` only, and ticks merely render them.
    """

    path = "/ws/api/v2"
    listing: DeribitListing

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
        self.profile = profile
        self.listing = DeribitListing(market, profile)
        self.listing.update(market.now_ns)
        self.quotes = QuoteModel(market, self.listing.universe, rules, profile)
        self.quotes.update()
        self.quotes.invent_history()
        self.renderer = Renderer(self.listing, self.quotes)
        self.table = FeedTable(self.listing)
        self.stamped: dict[int, Stampable] = {}
        """Ticker frames to burst, by row."""
        self.stamped_version = 0
        self.locked = False
        self._agg2_trades: list[Trade] = []
        self._tick = 0
        self._change_id = 118_850_000_000

    def advance(self, now: int) -> None:
        """Move the market to `now`, list and expire, quote, and tell every channel."""
        now_ns = self.market_ns(now)
        time_ms = now_ns // 1_000_000
        trades: list[Trade] = []
        changed = np.zeros(len(self.listing.universe), np.bool_)
        if self.move_market(now):
            added, retired = self.listing.update(self.market.now_ns)
            if retired:
                self._expire(retired, time_ms)
            changed, trades = self.quotes.update()
            if added:
                self._announce(added, "open", time_ms)
        self._tick += 1
        self._publish(time_ms, changed, trades)

    def lock(self, locked: bool) -> None:
        """Lock or unlock the platform, and say so on `platform_state`."""
        self.locked = locked
        for feed in self.table.of_kind("platform_state"):
            for underlying in self.market.underlyings:
                self._tell(feed, {"price_index": TERMS[underlying].index, "locked": locked})

    def begin_maintenance(self, now: int, seconds: float) -> None:
        """Close, and say so on `platform_state`."""
        super().begin_maintenance(now, seconds)
        for feed in self.table.of_kind("platform_state"):
            self._tell(feed, {"maintenance": True})

    def snapshots(self, feeds: Sequence[Feed], now: int) -> Iterable[bytes]:
        """What a new listener of some channels is told at once, in the order of the channels."""
        time_ms = self.market_ns(now) // 1_000_000
        # Hundreds of tickers are usually asked for together, and the work on columns is worth sharing.
        rows = [feed.channel.row for feed in feeds if feed.channel.kind in ("ticker", "incremental_ticker")]
        tickers = dict(zip(rows, self.renderer.tickers(rows, time_ms), strict=True))
        if self.bursting and rows:
            self._stamp(np.array(rows, np.intp), time_ms)
        for feed in feeds:
            yield from self._snapshot(feed, tickers, time_ms)

    def _snapshot(self, feed: Feed, tickers: dict[int, dict[str, object]], time_ms: int) -> Iterable[bytes]:
        channel = feed.channel
        match channel.kind:
            case "ticker":
                yield notification(channel.name, tickers[channel.row])
            case "incremental_ticker":
                feed.told = tickers[channel.row]
                yield notification(channel.name, {"type": "snapshot"} | tickers[channel.row])
            case "quote":
                yield notification(channel.name, self.renderer.quote(channel.row, time_ms))
            case "book":
                # A second listener joins the first one's book, so that the next change fits both.
                if not isinstance(feed.told, Ladder):
                    feed.told = ladder(self.quotes, channel.row, self._next_change(channel.row))
                yield notification(channel.name, self._book("snapshot", channel.row, feed.told, time_ms))
            case "book_top":
                yield notification(channel.name, self._book_top(feed, time_ms))
            case "markprice.options":
                rows = self._options_of_index(channel.key)
                feed.told = self._marks_told(rows)
                yield notification(channel.name, self.renderer.marks(rows, time_ms))
            case "deribit_price_index" | "estimated_expiration_price" | "deribit_volatility_index":
                yield notification(channel.name, self._index_data(channel, time_ms))

    def chain(self, underlying: str) -> Mapping[int, npt.ArrayLike]:
        """Listed strikes of every expiry."""
        return self.listing.chain(underlying)

    def unlist(self, rows: list[int]) -> None:
        """End every feed of some rows without a word."""
        for feed in self.table.of_rows(rows):
            for session in list(feed.sessions):
                session.drop(feed.channel.name)
        for row in rows:
            self.stamped.pop(row, None)
        self.stamped_version += 1

    def order_book(self, row: int, depth: int, time_ms: int) -> dict[str, object]:
        """The result of `public/get_order_book`: the ticker's keys and the levels."""
        book = ladder(self.quotes, row, self._next_change(row))
        levels = {
            "bids": [[p, a] for p, a in book.bids.items()][:depth],
            "asks": [[p, a] for p, a in book.asks.items()][:depth],
        }
        return self.renderer.tickers([row], time_ms)[0] | {"change_id": book.change_id} | levels

    def _publish(self, time_ms: int, changed: BoolArray, trades: list[Trade]) -> None:
        tick = self._tick
        rows, feeds = self.table.by_row("ticker", INTERVALS[0])
        # The mark moves all the time and is told once a second; the phase is the row's own, else all would speak at once.
        due = changed[rows] | ((tick + rows) % _TICKS_PER_SECOND == 0)
        if self.bursting:
            self._stamp(rows[due], time_ms)
        else:
            self._tell_tickers(rows, feeds, due, time_ms)
        rows, feeds = self.table.by_row("ticker", INTERVALS[1])
        self._tell_tickers(rows, feeds, (tick + rows) % _TICKS_PER_AGG2 == 0, time_ms)
        rows, feeds = self.table.by_row("incremental_ticker")
        self._tell_increments(rows, feeds, (tick + rows) % _TICKS_PER_SECOND == 0, time_ms)
        rows, feeds = self.table.by_row("quote")
        for i in np.flatnonzero(changed[rows]).tolist():
            self._tell(feeds[i], self.renderer.quote(int(rows[i]), time_ms))
        for interval in INTERVALS:
            slow = interval == INTERVALS[1]
            for kind in ("book", "book_top"):
                rows, feeds = self.table.by_row(kind, interval)
                due = (tick + rows) % _TICKS_PER_AGG2 == 0 if slow else changed[rows]
                for i in np.flatnonzero(due).tolist():
                    self._tell_book(feeds[i], time_ms)
        self._agg2_trades += trades
        self._tell_trades(INTERVALS[0], trades)
        if tick % _TICKS_PER_AGG2 == 0:
            self._tell_trades(INTERVALS[1], self._agg2_trades)
            self._agg2_trades = []
        if tick % _TICKS_PER_SECOND == 0:
            self._tell_indices(time_ms)

    def _tell(self, feed: Feed, data: object) -> None:
        payload = notification(feed.channel.name, data)
        for session in feed.sessions:
            session.push(payload)

    def _tell_tickers(self, rows: npt.NDArray[np.intp], feeds: list[Feed], due: BoolArray, time_ms: int) -> None:
        chosen = np.flatnonzero(due)
        if len(chosen):
            tickers = self.renderer.tickers(rows[chosen], time_ms)
            for i, ticker in zip(chosen.tolist(), tickers, strict=True):
                self._tell(feeds[i], ticker)

    def _tell_increments(self, rows: npt.NDArray[np.intp], feeds: list[Feed], due: BoolArray, time_ms: int) -> None:
        chosen = np.flatnonzero(due)
        if not len(chosen):
            return
        for i, ticker in zip(chosen.tolist(), self.renderer.tickers(rows[chosen], time_ms), strict=True):
            told = feeds[i].told
            assert isinstance(told, dict)
            news = {key: value for key, value in ticker.items() if told.get(key) != value or key == "instrument_name"}
            feeds[i].told = ticker
            self._tell(feeds[i], {"type": "change"} | news)

    def _tell_book(self, feed: Feed, time_ms: int) -> None:
        row = feed.channel.row
        if feed.channel.kind == "book_top":
            self._tell(feed, self._book_top(feed, time_ms))
            return
        old = feed.told
        assert isinstance(old, Ladder)
        new = ladder(self.quotes, row, old.change_id)
        bids, asks = changes(old.bids, new.bids), changes(old.asks, new.asks)
        if bids or asks:
            feed.told = Ladder(self._next_change(row), new.bids, new.asks)
            data = self._book("change", row, feed.told, time_ms) | {"bids": bids, "asks": asks}
            self._tell(feed, data | {"prev_change_id": old.change_id})

    def _book(self, kind: str, row: int, book: Ladder, time_ms: int) -> dict[str, object]:
        return {
            "timestamp": time_ms,
            "type": kind,
            "change_id": book.change_id,
            "instrument_name": self.listing.names[row],
            "bids": [("new", price, amount) for price, amount in book.bids.items()],
            "asks": [("new", price, amount) for price, amount in book.asks.items()],
        }

    def _book_top(self, feed: Feed, time_ms: int) -> dict[str, object]:
        row, depth = feed.channel.row, feed.channel.depth
        book = ladder(self.quotes, row, self._next_change(row))
        return {
            "timestamp": time_ms,
            "change_id": book.change_id,
            "instrument_name": self.listing.names[row],
            "bids": list(book.bids.items())[:depth],
            "asks": list(book.asks.items())[:depth],
        }

    def _next_change(self, row: int) -> int:
        # The venue's counter is shared by all instruments and jumps.
        self._change_id += 1 + row % 7
        return self._change_id

    def _tell_trades(self, interval: str, trades: Sequence[Trade]) -> None:
        feeds = (*self.table.of_kind("trades"), *self.table.of_kind("trades_of")) if trades else ()
        for feed in (f for f in feeds if f.channel.interval == interval):
            mine = [t for t in trades if self._is_of(feed.channel, t.row)]
            if mine:
                self._tell(feed, self.renderer.trades(mine))

    def _is_of(self, channel: Channel, row: int) -> bool:
        if channel.row >= 0:
            return channel.row == row
        kind, currency = channel.key.split(".")
        return kind in ("any", PER_KIND[Kind(int(self.listing.universe.kind[row]))]) and currency in (
            "any",
            self.listing.terms(row).currency,
        )

    def _tell_indices(self, time_ms: int) -> None:
        for kind in ("deribit_price_index", "estimated_expiration_price", "deribit_volatility_index"):
            for feed in self.table.of_kind(kind):
                self._tell(feed, self._index_data(feed.channel, time_ms))
        for feed in self.table.of_kind("markprice.options"):
            rows = self._options_of_index(feed.channel.key)
            told, news = feed.told, self._marks_told(rows)
            assert isinstance(told, dict)
            fresh = [row for row, mark in news.items() if told.get(row) != mark]
            feed.told = news
            if fresh:
                self._tell(feed, self.renderer.marks(np.array(fresh, np.intp), time_ms))

    def _index_data(self, channel: Channel, time_ms: int) -> dict[str, object]:
        underlying = underlying_of_index(channel.key, self.listing)
        assert underlying is not None
        price = self.listing.spot(underlying)
        if channel.kind == "estimated_expiration_price":
            expiry = int(self.listing.universe.expiry_ns[self.listing.universe.options(underlying)].min())
            return {"seconds": max(0, expiry // 1_000_000 - time_ms) // 1000, "price": price, "is_estimated": False}
        if channel.kind == "deribit_volatility_index":
            vol = float(self.market.truth_vol(underlying, self.market.now_ns + _MONTH_NS, price))
            return {"timestamp": time_ms, "volatility": round(100.0 * vol, 2), "index_name": channel.key}
        return {"timestamp": time_ms, "price": price, "index_name": channel.key}

    def _options_of_index(self, index: str) -> npt.NDArray[np.intp]:
        underlying = underlying_of_index(index, self.listing)
        return self.listing.universe.options(underlying).astype(np.intp)

    def _marks_told(self, rows: npt.NDArray[np.intp]) -> dict[int, tuple[float, float]]:
        marks, vols = self.renderer.mark_columns(rows)
        return dict(zip(rows.tolist(), zip(marks.tolist(), vols.tolist(), strict=True), strict=True))

    def _stamp(self, rows: npt.NDArray[np.intp], time_ms: int) -> None:
        names = self.listing.names
        for row, ticker in zip(rows.tolist(), self.renderer.tickers(rows, time_ms), strict=True):
            frame = text_frame(notification(f"ticker.{names[row]}.{INTERVALS[0]}", ticker))
            self.stamped[row] = stampable(frame, STAMP_KEY, SIZE_DIGIT)
        self.stamped_version += 1

    def _expire(self, rows: list[int], time_ms: int) -> None:
        # What is listed from now on has no settlement price until tomorrow.
        self.quotes.settle(np.flatnonzero(self.listing.universe.active[: len(self.quotes.mark)]))
        self._announce(rows, "settlement", time_ms)
        for feed in self.table.of_rows(rows):
            channel = feed.channel
            if channel.kind == "ticker" and self.listing.universe.kind[channel.row] == Kind.OPTION:
                underlying = self.listing.universe[channel.row].underlying
                price = self.listing.spot(underlying)
                self._tell(feed, self.renderer.expired(channel.row, time_ms, price))
        self.unlist(rows)
        self._announce(rows, "delivered", time_ms)
        self.counters["expired"] += len(rows)

    def _announce(self, rows: list[int], state: str, time_ms: int) -> None:
        for feed in self.table.of_kind("instrument.state"):
            for row in rows:
                if self._is_of(feed.channel, row):
                    self._tell(feed, {"timestamp": time_ms, "state": state, "instrument_name": self.listing.names[row]})
