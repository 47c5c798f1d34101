"""Bybit's REST pages: what is listed, in pages with a cursor, and within the limit of requests."""

from __future__ import annotations

from collections import deque
from urllib.parse import parse_qs, quote

import msgspec

from volsurf.sim._bybit_frames import levels
from volsurf.sim._bybit_state import BybitState
from volsurf.sim.depth import ladder
from volsurf.sim.exchange import HttpAnswer

LIMIT = 600
"""Requests of an address in `WINDOW_NS`; more, and it is shut out for `BAN_NS`."""
WINDOW_NS = 5_000_000_000
BAN_NS = 600_000_000_000
_DEFAULT_ROWS, _MOST_ROWS = 500, 1000
_BAD_PARAMETER, _TOO_MANY = 10001, 10006


class _BadParameter(Exception):
    """A parameter the venue does not take."""


class BybitPages:
    """The pages of one exchange, all to one address. Times are ns of the real clock."""

    def __init__(self, exchange: BybitState) -> None:
        self._exchange = exchange
        self._asked: deque[int] = deque()
        self._banned_until = 0
        self._refusals: deque[int] = deque()
        self._pages = {
            "/v5/market/instruments-info": self._instruments,
            "/v5/market/tickers": self._tickers,
            "/v5/market/orderbook": self._order_book,
            "/v5/market/new-delivery-price": self._delivery_prices,
            "/v5/market/time": self._time,
        }

    def refuse_next(self, count: int = 1, status: int = 200) -> None:
        """Refuse the next requests: with a status, or with 200 and "too many visits" inside."""
        self._refusals.extend([status] * count)

    def answer(self, path: str, query: dict[str, str], now: int) -> HttpAnswer | None:
        """The answer to a request; None where there is no such page."""
        page = self._pages.get(path)
        if page is None:
            return None
        time_ms = self._exchange.market_ns(now) // 1_000_000
        if not self._admit(now):
            self._exchange.counters["pages_shut_out"] += 1
            return 403, b'{"retCode":10018,"retMsg":"403, access too frequent"}'
        self._exchange.counters["pages"] += 1
        if self._refusals:
            status = self._refusals.popleft()
            self._exchange.counters["pages_refused"] += 1
            if status != 200:
                return status, b"refused"
            return 200, _body(_TOO_MANY, "Too many visits. Exceeded the API Rate Limit.", {}, time_ms)
        try:
            if path != "/v5/market/time" and query.get("category") != "option":
                raise _BadParameter("Illegal category")
            return 200, _body(0, "OK", page(query, time_ms), time_ms)
        except _BadParameter as bad:
            return 200, _body(_BAD_PARAMETER, str(bad), {}, time_ms)

    def _admit(self, now: int) -> bool:
        if now < self._banned_until:
            return False
        while self._asked and self._asked[0] <= now - WINDOW_NS:
            self._asked.popleft()
        self._asked.append(now)
        if len(self._asked) > LIMIT:
            self._banned_until = now + BAN_NS
            return False
        return True

    def _instruments(self, query: dict[str, str], time_ms: int) -> dict[str, object]:
        listing = self._exchange.listing
        # Without a coin it is Bitcoin's options, and Bitcoin's only.
        coin = query.get("baseCoin", "BTC")
        if not coin.isalnum():
            raise _BadParameter("Illegal baseCoin")
        rows = listing.of_coin(coin)
        if symbol := query.get("symbol"):
            rows = [row for row in rows if listing.names[row] == symbol]
        limit = _whole(query.get("limit", str(_DEFAULT_ROWS)), "limit")
        if not 1 <= limit <= _MOST_ROWS:
            raise _BadParameter("Illegal limit")
        if cursor := query.get("cursor"):
            last = parse_qs(cursor).get("last", [""])[0]
            after = _whole(last, "cursor")
            rows = [row for row in rows if row > after]
        page = rows[:limit]
        more = len(rows) > limit
        # Escaped already: whoever sends it back sends it as it came.
        cursor = quote(f"first={page[0]}&last={page[-1]}", safe="") if more else ""
        return {"category": "option", "nextPageCursor": cursor, "list": [listing.rows[row] for row in page]}

    def _tickers(self, query: dict[str, str], time_ms: int) -> dict[str, object]:
        listing = self._exchange.listing
        if "baseCoin" not in query and "symbol" not in query:
            raise _BadParameter("baseCoin or symbol is required")
        rows = [self._row(query)] if "symbol" in query else listing.of_coin(query["baseCoin"])
        return {"category": "option", "list": self._exchange.renderer.rest_tickers(rows)}

    def _order_book(self, query: dict[str, str], time_ms: int) -> dict[str, object]:
        row = self._row(query)
        depth = min(25, _whole(query.get("limit", "1"), "limit"))
        book = ladder(self._exchange.quotes, row)
        sides = {"b": levels(list(book.bids.items())[:depth]), "a": levels(list(book.asks.items())[:depth])}
        return {"s": self._exchange.listing.names[row], **sides, "ts": time_ms, "u": 1, "seq": 1, "cts": time_ms}

    def _delivery_prices(self, query: dict[str, str], time_ms: int) -> dict[str, object]:
        settle = query.get("settleCoin", "USDC")
        found = [
            {"deliveryPrice": str(price), "deliveryTime": str(delivered_ms)}
            for coin, currency, delivered_ms, price in self._exchange.delivered
            if (coin, currency) == (query.get("baseCoin"), settle)
        ]
        return {"category": "option", "list": found[:50]}

    def _time(self, query: dict[str, str], time_ms: int) -> dict[str, object]:
        return {"timeSecond": str(time_ms // 1000), "timeNano": str(time_ms * 1_000_000)}

    def _row(self, query: dict[str, str]) -> int:
        listing = self._exchange.listing
        row = listing.row_of.get(query.get("symbol", ""), -1)
        if row < 0 or not listing.universe.active[row]:
            raise _BadParameter("symbol invalid")
        return row


def _whole(text: str, name: str) -> int:
    if not text.isdigit():
        raise _BadParameter(f"Illegal {name}")
    return int(text)


def _body(code: int, said: str, result: object, time_ms: int) -> bytes:
    return msgspec.json.encode({"retCode": code, "retMsg": said, "result": result, "retExtInfo": {}, "time": time_ms})
