"""What a simulated venue showed and when, held against what the board of a feed says.

A price on the board is right if the venue showed exactly it within `KEPT_SECONDS`, and current if it did so a moment ago. That
what the venue shows brackets the truth of its moment is checked as it is shown, except where a fault made it false.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from volsurf.feeds.venue_feed import VenueFeed
from volsurf.instruments import Kind
from volsurf.sim.exchange import Exchange

SECOND = 1_000_000_000
KEPT_SECONDS = 45.0


class ShownPrices:
    """Call `record` whenever the venue has moved.

    Args:
        lag: seconds after which the venue has told a price again, latency and tick included.
        kept: seconds for which what was shown is remembered.

    Attributes:
        untrue: prices shown that did not bracket the truth and were not false on purpose.
    """

    def __init__(self, exchange: Exchange, *, lag: float, kept: float = KEPT_SECONDS) -> None:
        self.exchange = exchange
        self.untrue = 0
        self._shown: deque[tuple[int, np.ndarray, np.ndarray]] = deque()
        self._changed_ns = np.zeros(0, np.int64)
        self._rows: np.ndarray = np.zeros(0, np.intp)
        self._known_good = np.full((2, 0), np.nan)
        self._look_back, self._kept = int(lag * SECOND), int(kept * SECOND)

    def record(self) -> None:
        """Remember what is shown now."""
        quotes, now = self.exchange.quotes, self.exchange.market.now_ns
        if self._shown and self._shown[-1][0] == now:
            return
        bid, ask = quotes.bid.copy(), quotes.ask.copy()
        options = np.flatnonzero(self._is_option()[: len(bid)])
        outside = (bid[options] > quotes.mark[options]) | (ask[options] < quotes.mark[options])
        self.untrue += int((outside & ~quotes.is_distorted(options)).sum())
        changed = np.ones(len(bid), np.bool_)
        if self._shown:
            _, old_bid, old_ask = self._shown[-1]
            n = len(old_bid)
            same = (old_bid == bid[:n]) | (np.isnan(old_bid) & np.isnan(bid[:n]))
            changed[:n] = ~(same & ((old_ask == ask[:n]) | (np.isnan(old_ask) & np.isnan(ask[:n]))))
        grown = np.zeros(len(bid), np.int64)
        grown[: len(self._changed_ns)] = self._changed_ns
        self._changed_ns = np.where(changed, now, grown)
        self._shown.append((now, bid, ask))
        while self._shown[0][0] < now - self._kept:
            self._shown.popleft()

    def rows(self, feed: VenueFeed) -> np.ndarray:
        """The venue's row of each row of the board; −1 for what is no option."""
        universe, row_of = feed.universe, self.exchange.listing.row_of
        if len(self._rows) < len(universe):
            more = [
                row_of.get(universe[i].symbol, -1) if universe[i].kind is Kind.OPTION else -1
                for i in range(len(self._rows), len(universe))
            ]
            self._rows = np.concatenate((self._rows, np.array(more, np.intp)))
        return self._rows

    def _was_shown(self, side: int, rows: np.ndarray, values: np.ndarray, since_ns: int) -> np.ndarray:
        """Whether each value stood in its row at any time since then; an empty side counts as a value."""
        found = np.zeros(len(rows), np.bool_)
        for at in reversed(self._shown):
            shown = at[side + 1]
            inside = rows < len(shown)
            then = np.where(inside, shown[np.where(inside, rows, 0)], np.nan)
            found |= (np.abs(then - values) <= 1e-6 * np.abs(values)) | (np.isnan(then) & np.isnan(values))
            if at[0] < since_ns:
                break
        return found

    def wrong(self, feed: VenueFeed) -> np.ndarray:
        """Rows of the board with a price the venue never showed."""
        of_venue, board = self.rows(feed), feed.board
        rows = np.flatnonzero(of_venue >= 0)
        # What is listed no more was shown once, however long ago: it is late, not wrong.
        rows = rows[self.exchange.listing.universe.active[of_venue[rows]]]
        bad = np.zeros(len(rows), np.bool_)
        if self._known_good.shape[1] < len(of_venue):
            more = np.full((2, len(of_venue) - self._known_good.shape[1]), np.nan)
            self._known_good = np.concatenate((self._known_good, more), axis=1)
        for side, column in enumerate((board.bid, board.ask)):
            # What was right a moment ago and has not changed need not be looked for again.
            new = np.flatnonzero(np.isfinite(column[rows]) & (column[rows] != self._known_good[side, rows]))
            if len(new):
                at = rows[new]
                right = self._was_shown(side, of_venue[at], column[at], 0)
                self._known_good[side, at[right]] = column[at[right]]
                bad[new] |= ~right
        return rows[bad]

    def late(self, feed: VenueFeed, since_ns: int = 0) -> np.ndarray:
        """The venue's rows that are listed and not as on the board, or on the board and not listed.

        Args:
            since_ns: a price that was not told again since then may be any it had before.
        """
        of_venue, board, now = self.rows(feed), feed.board, self.exchange.market.now_ns
        active = self.exchange.listing.universe.active
        known = np.flatnonzero(of_venue >= 0)
        rows = of_venue[known]
        current = np.ones(len(rows), np.bool_)
        for side, column in enumerate((board.bid, board.ask)):
            current &= self._was_shown(side, rows, column[known], now - self._look_back)
        empty = np.isnan(board.bid[known]) & np.isnan(board.ask[known])
        current = np.where(active[rows], current, empty)
        due = np.ones(len(rows), np.bool_)
        if since_ns:
            due = (self._changed_ns[rows] >= since_ns) & (self._changed_ns[rows] < now - self._look_back)
        missing = np.setdiff1d(np.flatnonzero(active & self._is_option()), rows)
        return np.concatenate((rows[~current & (due | ~active[rows])], missing))

    def _is_option(self) -> np.ndarray:
        return np.asarray(self.exchange.listing.universe.kind == Kind.OPTION)
