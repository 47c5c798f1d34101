"""The instruments that rows of `instruments-info` describe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from volsurf.errors import InputError
from volsurf.feeds._bybit_messages import Listing, decode_listing
from volsurf.feeds._bybit_names import Family, parse_symbol
from volsurf.feeds._wire import nanoseconds
from volsurf.instruments import Instrument, Kind, Settlement

VENUE = "bybit"
TRADED = "Trading"
"""The status under which a contract is quoted; before it is PreLaunch, after it Delivering and Closed."""


class Listed(NamedTuple):
    """What the rows of a listing hold: instruments, every family seen wanted or not, and what was wrong with unusable rows."""

    instruments: list[Instrument]
    families: set[Family]
    unusable: list[str]


def read_listing(raw_rows: Iterable[msgspec.Raw], wanted: Sequence[Family]) -> Listed:
    """The options of some families that are traded now."""
    found = Listed([], set(), [])
    for raw in raw_rows:
        try:
            listing = decode_listing(raw)
            instrument = instrument_of(listing)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            found.unusable.append(repr(bytes(raw)[:80]))
            continue
        except InputError as error:
            found.unusable.append(str(error))
            continue
        family = Family(listing.baseCoin, listing.settleCoin)
        found.families.add(family)
        if listing.status == TRADED and family in wanted:
            found.instruments.append(instrument)
    return found


def instrument_of(listing: Listing) -> Instrument:
    """The instrument a row describes, its strike out of its name.

    Raises:
        InputError: it contradicts its own name, or holds a value that cannot be.
    """
    said = parse_symbol(listing.symbol)
    expiry_ns = nanoseconds(listing.deliveryTime)
    is_call = listing.optionsType == "Call"
    told = (Family(listing.baseCoin, listing.settleCoin), expiry_ns, is_call)
    if (
        said is None
        or (said.family, said.expiry_ns, said.is_call) != told
        or listing.optionsType not in ("Call", "Put")
    ):
        raise InputError(
            f"{listing.symbol}: listed as {listing.optionsType} of {listing.baseCoin} in {listing.settleCoin} "
            f"expiring {expiry_ns}, its name says {said}"
        )
    # Some rows of USDC contracts have called the strike's currency USD: the index they settle on is quoted in dollars.
    if listing.quoteCoin not in ("", listing.settleCoin, "USD"):
        raise InputError(f"{listing.symbol}: quoted in {listing.quoteCoin}, settled in {listing.settleCoin}")
    return Instrument(
        venue=VENUE,
        symbol=listing.symbol,
        kind=Kind.OPTION,
        underlying=listing.baseCoin,
        settlement=Settlement.LINEAR,
        quote_currency=listing.settleCoin,
        expiry_ns=expiry_ns,
        strike=said.strike,
        is_call=is_call,
        tick_size=listing.priceFilter.tickSize,
        contract_size=1.0,  # sizes are in coins
        price_index=said.family.index_name,
    ).validate()


def index_of(family: Family) -> Instrument:
    """The index of a family, which is told in its tickers."""
    return Instrument(
        venue=VENUE,
        symbol=family.index_name,
        kind=Kind.INDEX,
        underlying=family.base,
        settlement=Settlement.LINEAR,
        quote_currency=family.settle,
        price_index=family.index_name,
    )


def by_importance(instruments: Sequence[Instrument]) -> list[Instrument]:
    """The same, the middle strikes of every expiry first: where there is no room for all, the outermost are left out."""
    groups: dict[tuple[str, int], list[float]] = {}
    for instrument in instruments:
        groups.setdefault((instrument.quote_currency, instrument.expiry_ns), []).append(instrument.strike)
    middle = {key: sorted(strikes)[len(strikes) // 2] for key, strikes in groups.items()}

    def off_middle(instrument: Instrument) -> tuple[float, int, float, str]:
        centre = middle[instrument.quote_currency, instrument.expiry_ns]
        ratio = max(instrument.strike / centre, centre / instrument.strike)
        return (ratio, instrument.expiry_ns, instrument.strike, instrument.symbol)

    return sorted(instruments, key=off_middle)
