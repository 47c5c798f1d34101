"""What a feed of Binance is asked for, checked, and how many connections that takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from volsurf.errors import ConfigError
from volsurf.feeds._binance_group import MOST_STREAMS, Group
from volsurf.feeds._binance_names import DEPTH, Family, family_of

PRODUCTION = "wss://fstream.binance.com"
TESTNET = "wss://fstream.binancefuture.com"
_REST = {PRODUCTION: "https://eapi.binance.com", TESTNET: "https://testnet.binancefuture.com"}
_LISTED = {"BTC": 800, "ETH": 650}
_LISTED_ELSE = 300
"""Options listed of a coin, with some to spare: what connections are made for before anything is known."""

Selection = Literal["near", "all", "none"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Arguments of `volsurf.feeds.binance.make`, checked."""

    families: tuple[Family, ...]
    url: str
    """Base of the websocket addresses."""
    rest_url: str
    """Base of the HTTP pages."""
    publics: int
    """Connections of the route `/public`."""
    tickers: bool
    book: str
    """What follows `<symbol>@` for order books; empty for none."""
    trades: bool

    @property
    def per_symbol(self) -> int:
        """Streams of each option followed on `/public`."""
        return int(self.tickers) + int(bool(self.book))

    @property
    def reserved(self) -> int:
        """Streams of the first connection of `/public` that belong to no option."""
        return 2 * len(self.families) if self.trades else 0

    def group(self) -> Group:
        """A new group of connections."""
        return Group(self.families, self.publics, self.per_symbol, self.reserved)

    @classmethod
    def of(
        cls,
        underlyings: Sequence[str],
        *,
        url: str | None,
        rest_url: str | None,
        shards: int,
        quotes: Selection,
        books: bool,
        trades: bool,
        partial_depth: int,
    ) -> Settings:
        """The settings that arguments mean; `ConfigError` where they mean nothing."""
        if quotes not in ("near", "all", "none"):
            raise ConfigError(f"quotes must be 'near', 'all' or 'none', was {quotes!r}")
        if partial_depth not in (0, 5, 10, 20):
            raise ConfigError(f"partial_depth must be 5, 10 or 20, or 0 for every change, was {partial_depth!r}")
        if shards < 1:
            raise ConfigError(f"a feed needs at least one connection, was {shards!r}")
        names = [underlyings] if isinstance(underlyings, str) else list(underlyings)
        if not names:
            raise ConfigError("Binance needs at least one underlying, such as 'BTC'")
        families = tuple(dict.fromkeys(family_of(name) for name in names))
        base = (url or PRODUCTION).rstrip("/")
        settings = cls(
            families=families,
            url=base,
            rest_url=(rest_url or _rest_base(base)).rstrip("/"),
            publics=shards,
            tickers=quotes != "none",
            book=f"{DEPTH}{partial_depth or ''}@100ms" if books else "",
            trades=trades,
        )
        return settings._with_publics(shards, everything=quotes == "all")

    def _with_publics(self, shards: int, *, everything: bool) -> Settings:
        needed = shards if self.per_symbol else int(self.trades)
        if everything:
            listed = sum(_LISTED.get(base, _LISTED_ELSE) for base in {family.base for family in self.families})
            needed = max(shards, math.ceil((listed * self.per_symbol + self.reserved) / MOST_STREAMS))
        return Settings(
            self.families, self.url, self.rest_url, needed, tickers=self.tickers, book=self.book, trades=self.trades
        )


def _rest_base(url: str) -> str:
    known = _REST.get(url)
    if known is not None:
        return known
    parts = urlsplit(url)
    return f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}"
