"""REST pages of the simulated Binance, with the weights that each costs its address."""

from __future__ import annotations

from typing import Any

from msgspec.json import encode

from volsurf.sim._binance_listing import INDEX_DECIMALS
from volsurf.sim._binance_state import BinanceState
from volsurf.sim.exchange import HttpAnswer

WEIGHT_PER_MINUTE = 2400
_MINUTE = 60 * 1_000_000_000
_PATIENCE = 10
"""Requests in spite of 429 after which an address is banned."""
_FIRST_BAN, _LONGEST_BAN = 120 * 1_000_000_000, 3 * 86_400 * 1_000_000_000
_DEPTH_WEIGHTS = ((50, 1), (100, 5), (500, 10), (1000, 20))
_LIMITS = (5, 10, 20, 50, 100, 500, 1000)


class _Bad(Exception):
    """A request that is answered with 400."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class BinancePages:
    """The pages under `/eapi/v1/` of one address: all clients here are of one.

    Args:
        weight_per_minute: above which requests are refused, and in the end the address banned.
    """

    def __init__(self, state: BinanceState, weight_per_minute: int = WEIGHT_PER_MINUTE) -> None:
        self._state = state
        self.weight_per_minute = weight_per_minute
        self._minute, self._used, self._refused = -1, 0, 0
        self._banned_until, self._ban = 0, _FIRST_BAN

    def answer(self, path: str, query: dict[str, str], now: int) -> HttpAnswer | None:
        """The answer of a page; None where it is no page of the venue's."""
        name = path.removeprefix("/eapi/v1/")
        if name == path:
            return None
        if now // _MINUTE != self._minute:
            self._minute, self._used, self._refused = now // _MINUTE, 0, 0
        if now < self._banned_until or self._used >= self.weight_per_minute:
            return self._too_many(now)
        try:
            weight, body = self._page(name, query, now)
        except _Bad as bad:
            weight, body = 1, encode({"code": bad.code, "msg": bad.text})
            return self._charged(400, weight, body)
        return self._charged(200, weight, body)

    def _charged(self, status: int, weight: int, body: bytes) -> HttpAnswer:
        self._used += weight
        self._state.counters["pages"] += 1
        self._state.counters["weight"] += weight
        return status, body, {"X-MBX-USED-WEIGHT-1m": str(self._used)}

    def _too_many(self, now: int) -> HttpAnswer:
        self._refused += 1
        self._state.counters["pages_refused"] += 1
        if now >= self._banned_until and self._refused > _PATIENCE:
            self._banned_until, self._ban = now + self._ban, min(2 * self._ban, _LONGEST_BAN)
        if now >= self._banned_until:
            said = f"Too many requests; current limit is {self.weight_per_minute} request weight per 1 MINUTE."
            return 429, encode({"code": -1003, "msg": said}), {"Retry-After": "60"}
        until = self._banned_until // 1_000_000
        said = (
            f"Way too many requests; IP banned until {until}. Please use the websocket for live updates to avoid bans."
        )
        return (
            418,
            encode({"code": -1003, "msg": said}),
            {"Retry-After": str((self._banned_until - now) // 1_000_000_000)},
        )

    def _page(self, name: str, query: dict[str, str], now: int) -> tuple[int, bytes]:
        time_ms = self._state.market_ns(now) // 1_000_000
        if name == "ping":
            return 1, b"{}"
        if name == "time":
            return 1, encode({"serverTime": time_ms})
        if name == "exchangeInfo":
            return 1, encode(self._exchange_info(time_ms))
        if name == "index":
            family = self._state.listing.pairs.get(query.get("underlying", ""))
            if family is None:
                raise _Bad(-1121, "Invalid symbol.")
            return 1, encode({"time": time_ms, "indexPrice": f"{self._state.listing.spot(family):.{INDEX_DECIMALS}f}"})
        if name == "depth":
            return self._depth(query, time_ms)
        raise _Bad(-5000, f"Path /eapi/v1/{name}, Method GET is invalid")

    def _exchange_info(self, time_ms: int) -> dict[str, Any]:
        listing = self._state.listing
        active = listing.universe.active
        return {
            "timezone": "UTC",
            "serverTime": time_ms,
            "optionContracts": [
                {
                    "baseAsset": family.underlying,
                    "quoteAsset": family.quote_currency,
                    "underlying": pair,
                    "settleAsset": family.quote_currency,
                }
                for pair, family in listing.pairs.items()
            ],
            "optionAssets": [{"name": "USDT"}],
            "optionSymbols": [row for row, is_listed in zip(listing.rows, active.tolist(), strict=True) if is_listed],
            "rateLimits": [
                {
                    "rateLimitType": "REQUEST_WEIGHT",
                    "interval": "MINUTE",
                    "intervalNum": 1,
                    "limit": self.weight_per_minute,
                }
            ],
        }

    def _depth(self, query: dict[str, str], time_ms: int) -> tuple[int, bytes]:
        row = self._state.listing.row_of.get(query.get("symbol", ""), -1)
        if row < 0 or not self._state.listing.universe.active[row]:
            raise _Bad(-1121, "Invalid symbol.")
        limit = int(query["limit"]) if query.get("limit", "100").isdigit() and "limit" in query else 100
        if limit not in _LIMITS:
            raise _Bad(-4021, f"{limit} is not valid depth limit")
        book, levels = self._state.book(row), self._state.renderer.levels
        body = {
            "bids": levels(row, list(book.bids.items())[:limit]),
            "asks": levels(row, list(book.asks.items())[:limit]),
            "T": time_ms,
            "lastUpdateId": book.change_id,
        }
        return next(weight for most, weight in _DEPTH_WEIGHTS if limit <= most), encode(body)
