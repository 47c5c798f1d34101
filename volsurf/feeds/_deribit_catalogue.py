"""What Deribit lists and which of it one connection follows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from volsurf.errors import InputError
from volsurf.feeds._catalogue import Catalogue
from volsurf.feeds._deribit_messages import Listing, decode_listing
from volsurf.feeds._deribit_names import Market, future_market, parse_symbol
from volsurf.feeds._wire import nanoseconds
from volsurf.instruments import Instrument, Kind, Settlement

VENUE = "deribit"
ENDED = frozenset(("settlement", "delivered", "inactive", "archivized", "closed"))
"""States after which an instrument is not traded any more."""
PAUSED = frozenset(("locked", "halted"))

Key = tuple[str, str]
"""`(currency, kind)` of one `get_instruments` request."""


class Listed(NamedTuple):
    """What a listing changed: ids, the names of this connection's it held, and what was wrong with rows that cannot be used."""

    added: list[int]
    retired: list[int]
    listed: set[str]
    unusable: list[str]


class DeribitCatalogue(Catalogue[Key]):
    """The universe of one connection.

    Args:
        markets: the markets wanted. shard: as in `Catalogue`.

    Attributes:
        listed_markets: every market seen in a listing of options, wanted or not.
    """

    def __init__(self, markets: Sequence[Market], shard: tuple[int, int] = (0, 1)) -> None:
        super().__init__(shard)
        self.markets = {market.name: market for market in markets}
        self.listed_markets: set[str] = set()

    @property
    def keys(self) -> list[Key]:
        """The listings to ask for."""
        currencies = dict.fromkeys(market.currency for market in self.markets.values())
        return [(currency, kind) for currency in currencies for kind in ("option", "future")]

    def concerns(self, name: str, *, any_shard: bool = False) -> Key | None:
        """The listing that would hold a name, if it is of a wanted market and, where that matters, this shard's."""
        option = parse_symbol(name)
        market = self.markets.get(option.market if option else future_market(name) or "")
        if market is None or not (any_shard or self.is_mine(name)):
            return None
        return market.currency, "option" if option else "future"

    def take_listing(self, key: Key, raw_rows: Iterable[msgspec.Raw], venue_ns: int, *, complete: bool) -> Listed:
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
            if market is None or market.name not in self.markets or not self.is_mine(listing.instrument_name):
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
        change = self.follow((*self._indexes(wanted), *wanted), key, complete=complete)
        listed = {instrument.symbol for instrument in wanted}
        return Listed(change.added, change.retired, listed, unusable)

    def follow_again(self, instruments: Iterable[Instrument]) -> list[int]:
        """Follow what was followed before, as far as it is wanted and of this shard; ids."""
        by_key: dict[Key, list[Instrument]] = {}
        for instrument in instruments:
            linear = instrument.settlement is Settlement.LINEAR
            base, quote = instrument.underlying, instrument.quote_currency
            if instrument.venue != VENUE or (f"{base}_{quote}" if linear else base) not in self.markets:
                continue
            kind = "option" if instrument.kind is Kind.OPTION else "future"
            if instrument.kind is Kind.INDEX or self.is_mine(instrument.symbol):
                by_key.setdefault((quote if linear else base, kind), []).append(instrument)
        return [row for key, group in by_key.items() for row in self.follow(group, key, complete=False).added]

    @property
    def missing_markets(self) -> list[str]:
        """Wanted markets of which no listing held an option."""
        return [name for name in self.markets if name not in self.listed_markets]

    def _market(self, listing: Listing) -> Market | None:
        # By the listing's own fields: a name says what is settled in coin only to those who know the convention of the year.
        base, quote = listing.base_currency, listing.quote_currency
        inverse = listing.instrument_type == "reversed"
        if not listing.instrument_type:
            inverse = (listing.settlement_currency or quote) == base or quote in (base, "USD")
        return Market(base, base, "") if inverse else Market(f"{base}_{quote}", base, quote)

    def _indexes(self, instruments: Iterable[Instrument]) -> list[Instrument]:
        """The indexes that settle these and are not followed yet."""
        samples = {i.price_index: i for i in instruments if i.price_index not in self.index_rows}
        return [
            Instrument(
                venue=VENUE,
                symbol=name,
                kind=Kind.INDEX,
                underlying=sample.underlying,
                settlement=sample.settlement,
                quote_currency=sample.quote_currency,
                price_index=name,
            )
            for name, sample in samples.items()
        ]


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
        quote_currency=market.quote or "USD",
        expiry_ns=0 if kind is Kind.PERPETUAL else expiry_ns,
        strike=listing.strike if kind is Kind.OPTION and listing.strike is not None else math.nan,
        is_call=is_call,
        tick_size=listing.tick_size,
        tick_steps=tuple(sorted((step.above_price, step.tick_size) for step in listing.tick_size_steps)),
        contract_size=1.0 if listing.contract_size is None else listing.contract_size,
        price_index=listing.price_index or market.price_index,
    ).validate()
