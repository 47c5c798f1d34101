"""What `exchangeInfo` lists, as instruments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from volsurf.errors import InputError
from volsurf.feeds._binance_messages import ExchangeInfo, Listing, decode_listing, nanoseconds
from volsurf.feeds._binance_names import Family, parse_symbol
from volsurf.instruments import Instrument, Kind, Settlement

VENUE = "binance"
TRADED = "TRADING"


class Listed(NamedTuple):
    """One reading of the listings.

    Attributes:
        options: symbol → option of the families wanted. indexes: underlying pair → its index, of those with options.
        families: every family listed, wanted or not: `"BTC_USDT"`. unusable: what was wrong with rows that cannot be used.
        weight_per_minute: REST request weight granted to an address; 0 where it is not said.
    """

    options: dict[str, Instrument]
    indexes: dict[str, Instrument]
    families: set[str]
    unusable: list[str]
    weight_per_minute: int


def read_listing(info: ExchangeInfo, families: Sequence[Family], venue_ns: int) -> Listed:
    """The options of some families, and what else there is.

    Args:
        venue_ns: the venue's time; what has expired by then is left out. 0 where unknown.
    """
    listed = Listed({}, {}, set(), [], _weight_per_minute(info))
    pairs = {contract.underlying: (contract.baseAsset, contract.quoteAsset) for contract in info.optionContracts}
    for raw in info.optionSymbols:
        try:
            listing = decode_listing(raw)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            listed.unusable.append(repr(bytes(raw)[:80]))
            continue
        said = parse_symbol(listing.symbol)
        base, quote = pairs.get(listing.underlying) or (said.base if said else "", listing.quoteAsset)
        if base:
            listed.families.add(f"{base}_{quote}")
        if not any(family.has(base, quote) for family in families) or listing.status != TRADED:
            continue
        try:
            option = option_of(listing, base, quote)
        except InputError as error:
            listed.unusable.append(str(error))
            continue
        if option.expiry_ns > venue_ns:
            listed.options[option.symbol] = option
            listed.indexes.setdefault(listing.underlying, index_of(listing.underlying, base, quote))
    return listed


def option_of(listing: Listing, base: str, quote: str) -> Instrument:
    """The option a listing describes, tick and prices per coin.

    Raises:
        InputError: it contradicts its own name, or holds a value that cannot be.
    """
    name, said = listing.symbol, parse_symbol(listing.symbol)
    expiry_ns = nanoseconds(listing.expiryDate)
    if said is None or said != (base, expiry_ns, listing.strikePrice, listing.side == "CALL"):
        raise InputError(
            f"{name}: listed as {listing.side} on {base} of strike {listing.strikePrice} expiring {expiry_ns}, "
            f"its name says {said}"
        )
    if listing.side not in ("CALL", "PUT") or not 0 < listing.unit < math.inf:
        raise InputError(f"{name}: side {listing.side!r}, {listing.unit} coins per contract")
    tick = next((f.tickSize for f in listing.filters if f.filterType == "PRICE_FILTER"), 0.0)
    if not 0 <= tick < math.inf:
        raise InputError(f"{name}: tick size {tick}")
    return Instrument(
        venue=VENUE,
        symbol=name,
        kind=Kind.OPTION,
        underlying=base,
        settlement=Settlement.LINEAR,
        quote_currency=quote,
        is_discounted=True,
        expiry_ns=expiry_ns,
        strike=listing.strikePrice,
        is_call=said.is_call,
        tick_size=tick / listing.unit,
        contract_size=listing.unit,
        price_index=listing.underlying,
    ).validate()


def index_of(pair: str, base: str, quote: str) -> Instrument:
    """The index `BTCUSDT`."""
    return Instrument(
        venue=VENUE,
        symbol=pair,
        kind=Kind.INDEX,
        underlying=base,
        settlement=Settlement.LINEAR,
        quote_currency=quote,
        price_index=pair,
    )


def in_sentence(names: Sequence[str], most: int = 8) -> str:
    """A few names of many, for an event a person reads."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _weight_per_minute(info: ExchangeInfo) -> int:
    for limit in info.rateLimits:
        if limit.rateLimitType == "REQUEST_WEIGHT" and limit.interval == "MINUTE" and limit.intervalNum > 0:
            return max(0, limit.limit // limit.intervalNum)
    return 0
