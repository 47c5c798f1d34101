"""What a feed of Bybit needs before anything is known of its listings: addresses, and how many connections."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from volsurf.errors import ConfigError
from volsurf.feeds._bybit_names import Family, families_of
from volsurf.feeds._bybit_topics import MOST_CHARACTERS

MOST_OPTIONS = 1000
"""Of one family, with room to spare: a coin's chain has about 800 contracts in each currency it is settled in."""
_TICKER_CHARACTERS, _BOOK_CHARACTERS = 36, 42
"""Of a topic with the longest names, quotes and comma included: `"tickers.BTC-25JUN27-106000-P-USDT",`."""


def families_wanted(underlyings: Sequence[str]) -> list[Family]:
    """The families that some names of underlyings stand for, each once; `ConfigError` where one stands for none."""
    names = [underlyings] if isinstance(underlyings, str) else list(underlyings)
    if not names:
        raise ConfigError("Bybit needs at least one underlying, such as 'BTC'")
    return list(dict.fromkeys(family for name in names for family in families_of(name)))


def rest_base(url: str) -> str:
    """Base of the REST addresses that belong to a websocket's: `api…` for the venue's `stream…`, else the same host and port."""
    parts = urlsplit(url)
    host = parts.netloc.replace("stream", "api", 1) if parts.netloc.startswith("stream") else parts.netloc
    return f"{'http' if parts.scheme == 'ws' else 'https'}://{host}"


def connections_needed(families: Sequence[Family], *, books: bool) -> int:
    """How many connections it takes for every topic of some families to have room, if each family is as long as it may get."""
    characters = len(families) * MOST_OPTIONS * (_TICKER_CHARACTERS + (_BOOK_CHARACTERS if books else 0))
    return -(-characters // MOST_CHARACTERS)
