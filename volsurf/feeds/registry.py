"""Which venues there are, and how the connections of one are made."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from volsurf.errors import ConfigError
from volsurf.feeds.protocol import Venue

VENUES = ("deribit", "okx", "bybit", "binance")
"""Names of the venues that have a feed; the module of each is `volsurf.feeds.<name>` and makes its connections with `make`."""


def make_venues(
    venue: str, underlyings: Sequence[str], *, url: str | None = None, shards: int = 1, **options: Any
) -> list[Venue]:
    """The `Venue` of each connection that a feed of one exchange holds.

    Args:
        venue: one of `VENUES`. underlyings: `"BTC"`, or one option family of it such as `"BTC_USDC"`; see the venue's class.
        url: another address than its own: a testnet's or a simulator's.
        shards: connections to spread the instruments over; a venue that admits less per connection takes more.
        options: further arguments of the venue's class: `books`, `trades`, …

    Raises:
        ConfigError: no such venue, or arguments it cannot mean.
    """
    if venue not in VENUES:
        raise ConfigError(f"no venue {venue!r}; there are {', '.join(VENUES)}")
    if shards < 1:
        raise ConfigError(f"a feed needs at least one connection, was {shards!r}")
    names = [underlyings] if isinstance(underlyings, str) else list(underlyings)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ConfigError(f"{venue} needs underlyings such as 'BTC', was {underlyings!r}")
    module = importlib.import_module(f"volsurf.feeds.{venue}")
    made: list[Venue] = module.make(names, url=url, shards=shards, **options)
    return made
