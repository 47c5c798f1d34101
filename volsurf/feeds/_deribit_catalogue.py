"""What Deribit lists and which of it one connection follows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from volsurf.errors import InputError
from volsurf.feeds._deribit_messages import Listing, decode_listing, nanoseconds
from volsurf.feeds._deribit_names import Market, future_market, parse_symbol
from volsurf.instruments import Instrument, Kind, Universe

VENUE = "deribit"
ENDED = frozenset(("settlement", "delivered", "inactive", "archivized", "closed"))
"""States after which an instrument is not traded any more."""
PAUSED = frozenset(("locked", "halted"))

Key = tuple[str, str]
"""`(currency, kind)` of one `get_instruments` request."""


class Change(NamedTuple):
    """What a listing changed: ids, the names of this connection's it held, and what was wrong with rows that cannot be used."""

    added: list[int]
    retired: list[int]
    listed: set[str]
    unusable: list[str]


class Catalogue:
    """The universe of one connection.

    Args:
        markets: the markets wanted.
        shard: `(i, n)`: of n connections this is the i-th; an instrument belongs to one of them for its whole life, by the
            checksum of its name. Indexes belong to all, because silence is judged by them.

    Attributes:
        rows: name → id of the instruments followed now, indexes apart.
        index_rows: index name → id. listed_markets: every market seen in a listing of options, wanted or not.
    """

    def __init__(self, markets: Sequence[Market], shard: tuple[int, int] = (0, 1)) -> None:
        self.universe = Universe()
        self.markets = {market.name: market for market in markets}
        self.rows: dict[str, int] = {}
        self.index_rows: dict[str, int] = {}
        self.listed_markets: set[str] = set()
        self._shard = shard
        self._key_of: dict[int, Key] = {}
        self._index_of: dict[int, str] = {}

    @property
    def keys(self) -> list[Key]:
        """The listings to ask for."""
        currencies = dict.fromkeys(market.currency for market in self.markets.values())
        return [(currency, kind) for currency in currencies for kind in ("option", "future")]

    def key_of(self, row: int) -> Key | None:
        """The listing an instrument comes from; None for an index."""
        return self._key_of.get(row)

    def index_of(self, row: int) -> str:
        """Name of the index that settles an instrument; its own for an index."""
        return self._index_of.get(row, "")

    def concerns(self, name: str) -> Key | None:
        """The listing that would hold a name, if it is of a wanted market and this shard's."""
        option = parse_symbol(name)
        market = self.markets.get(option.market if option else future_market(name) or "")
        if market is None or not self._is_mine(name):
            return None
        return market.currency, "option" if option else "future"

    def take_listing(self, key: Key, raw_rows: Iterable[msgspec.Raw], venue_ns: int, *, complete: bool) -> Change:
        """Follow what a listing names; with `complete`, say what is followed and no longer listed.

        A listing asked for because of one new instrument retires nothing: Deribit answers from a cache that may be older than
        the last one.

        Args:
            venue_ns: the venue's time; what has expired by then is left out. 0 where unknown.
        """
        wanted: list[Instrument] = []
        unusable: list[str] = []
        for raw in raw_rows:
            try:
                listing = decode_listing(raw)
            except (msgspec.DecodeError, RecursionError):
                unusable.append(repr(bytes(raw)[:80]))
                continue
            if listing.kind != key[1]:
                continue
            market = self._market(listing)
            if listing.kind == "option" and market is not None:
                self.listed_markets.add(market.name)
            if market is None or market.name not in self.markets or not self._is_mine(listing.instrument_name):
                continue
            if listing.state in ENDED or (not listing.is_active and listing.state not in PAUSED):
                continue
            try:
                instrument = instrument_of(listing, market)
            except InputError as error:
                unusable.append(str(error))
                continue
            if not 0 < instrument.expiry_ns <= venue_ns:
                wanted.append(instrument)
        added = self._follow(wanted, key)
        listed = {instrument.symbol for instrument in wanted}
        retired: list[int] = []
        if complete:
            retired = [row for name, row in self.rows.items() if self._key_of[row] == key and name not in listed]
        return Change(added, retired, listed, unusable)

    def retire(self, rows: Iterable[int]) -> None:
        """Follow these no longer."""
        gone = list(rows)
        for row in gone:
            self.rows.pop(self.universe[row].symbol, None)
        self.universe.retire(gone)

    def expired(self, before_ns: int) -> list[int]:
        """Ids followed whose expiry lies before a time."""
        return [row for row in self.rows.values() if 0 < self.universe[row].expiry_ns < before_ns]

    @property
    def first_expiry_ns(self) -> int | None:
        """Expiry that comes first among those followed."""
        return min((e for row in self.rows.values() if (e := self.universe[row].expiry_ns) > 0), default=None)

    @property
    def missing_markets(self) -> list[str]:
        """Wanted markets of which no listing held an option."""
        return [name for name in self.markets if name not in self.listed_markets]

    def _is_mine(self, name: str) -> bool:
        index, count = self._shard
        return count == 1 or crc32(name.encode()) % count == index

    def _market(self, listing: Listing) -> Market | None:
        # By the listing's own fields: a name says what is settled in coin only to those who know the convention of the year.
        base, quote = listing.base_currency, listing.quote_currency
        inverse = listing.instrument_type == "reversed"
        if not listing.instrument_type:
            inverse = (listing.settlement_currency or quote) == base or quote in (base, "USD")
        return Market(base, base, "") if inverse else Market(f"{base}_{quote}", base, quote)

    def _follow(self, instruments: list[Instrument], key: Key) -> list[int]:
        indexes = {i.price_index: i for i in instruments if i.price_index not in self.index_rows}
        added: list[int] = []
        for name, sample in indexes.items():
            index = Instrument(
                venue=VENUE,
                symbol=name,
                kind=Kind.INDEX,
                underlying=sample.underlying,
                settlement=sample.settlement,
                price_index=name,
            )
            row = int(self.universe.add([index])[0])
            self.index_rows[name] = row
            self._index_of[row] = name
            added.append(row)
        fresh = [i for i in instruments if i.symbol not in self.rows or self.universe[self.rows[i.symbol]] != i]
        for instrument, row in zip(fresh, self.universe.add(fresh).tolist(), strict=True):
            self.rows[instrument.symbol] = row
            self._key_of[row] = key
            self._index_of[row] = instrument.price_index
            added.append(row)
        return added


def instrument_of(listing: Listing, market: Market) -> Instrument:
    """The instrument a listing describes.

    Raises:
        InputError: it contradicts its own name, or holds a value that cannot be.
    """
    name = listing.instrument_name
    kind = Kind.OPTION
    expiry_ns = nanoseconds(listing.expiration_timestamp)
    if listing.kind == "option":
        said = parse_symbol(name)
        is_call = listing.option_type == "call"
        if (
            said is None
            or said[1:] != (expiry_ns, listing.strike, is_call)
            or listing.option_type not in ("call", "put")
        ):
            raise InputError(
                f"{name}: listed as {listing.option_type} of strike {listing.strike} expiring {expiry_ns}, its name says {said}"
            )
    else:
        perpetual = listing.settlement_period == "perpetual" or name.endswith("-PERPETUAL")
        kind = Kind.PERPETUAL if perpetual else Kind.FUTURE
        is_call = False
        if future_market(name) is None:
            raise InputError(f"{name}: not the name of a future or perpetual")
    numbers = [listing.tick_size, listing.contract_size or 0.0]
    numbers += [value for step in listing.tick_size_steps for value in (step.above_price, step.tick_size)]
    if any(value < 0 for value in numbers):
        raise InputError(f"{name}: negative tick or contract size in {numbers}")
    return Instrument(
        venue=VENUE,
        symbol=name,
        kind=kind,
        underlying=listing.base_currency,
        settlement=market.settlement,
        expiry_ns=0 if kind is Kind.PERPETUAL else expiry_ns,
        strike=listing.strike if kind is Kind.OPTION and listing.strike is not None else math.nan,
        is_call=is_call,
        tick_size=listing.tick_size,
        tick_steps=tuple(sorted((step.above_price, step.tick_size) for step in listing.tick_size_steps)),
        contract_size=1.0 if listing.contract_size is None else listing.contract_size,
        price_index=listing.price_index or market.price_index,
    ).validate()


def in_sentence(names: Sequence[str], most: int = 8) -> str:
    """A few names of many, for an event a person reads."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
