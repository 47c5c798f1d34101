"""What OKX's listings mean: instruments of volsurf's from rows of `instruments`, ticks from `instrument-tick-bands`."""

from __future__ import annotations

import math

from volsurf.errors import InputError
from volsurf.feeds._okx_messages import FamilyBands, Listing, nanoseconds, number
from volsurf.feeds._okx_names import Family, parse_family, parse_future, parse_symbol
from volsurf.instruments import Instrument, Kind, Settlement

VENUE = "okx"
KINDS = {"OPTION": Kind.OPTION, "FUTURES": Kind.FUTURE, "SWAP": Kind.PERPETUAL}
"""`instType` of what is followed."""
LIVE, PAUSED, ANNOUNCED = "live", "suspend", "preopen"
"""States of what is traded, of what is listed and not traded for now, and of what is not traded yet. All others are ends."""

_DAY_NS = 86_400_000_000_000

Bands = tuple[float, tuple[tuple[float, float], ...]]
"""The lowest tick, and `(above price, tick)` for the others."""


def bands_of(row: FamilyBands) -> Bands | None:
    """The ticks of a family; None where there is not one usable band.

    A band holds above the end of the one before it. The venue's own lower bound of the second band of `BTC-USD_UM` says 0.005
    where the first ends at 5 (captured in April 2026): a remnant of the coin-settled table that would give every price a tick
    of 5.
    """
    bands = sorted((number(band.maxPx), number(band.minPx), number(band.tickSz)) for band in row.tickBand)
    bands = [band for band in bands if all(map(math.isfinite, band)) and band[2] > 0]
    if not bands:
        return None
    ends = [band[0] for band in bands[:-1]]
    steps = [(max(low, end), tick) for end, (_, low, tick) in zip(ends, bands[1:], strict=True)]
    return bands[0][2], tuple(steps)


def family_of(listing: Listing) -> Family | None:
    """The family of a row, by its own field; by its name where it has none (rows pushed before 2022)."""
    if listing.instFamily:
        return parse_family(listing.instFamily)
    said = parse_symbol(listing.instId) or parse_future(listing.instId)
    return None if said is None else said.family


def instrument_of(listing: Listing, family: Family, bands: Bands | None) -> Instrument:
    """The instrument a listing describes.

    One contract is `ctVal × ctMult` of `ctValCcy`: of coin for options and everything linear, of dollars for inverse futures and
    swaps. Both have been changed by the venue in the past, so neither is assumed.

    Raises:
        InputError: it contradicts its own name, or holds a value that cannot be.
    """
    name, kind = listing.instId, KINDS[listing.instType]
    expiry_ns, strike, is_call = nanoseconds(listing.expTime), math.nan, False
    if kind is Kind.OPTION:
        option = parse_symbol(name)
        strike, is_call = number(listing.stk), listing.optType == "C"
        said = None if option is None else (option.family, option.strike, option.is_call)
        if said != (family, strike, is_call) or listing.optType not in ("C", "P"):
            raise InputError(f"{name}: listed as {listing.optType!r} of strike {listing.stk!r} in {family.name}")
        named_ns = 0 if option is None else option.expiry_ns
    else:
        future = parse_future(name)
        if future is None or future.family != family or (future.expiry_ns == 0) != (kind is Kind.PERPETUAL):
            raise InputError(f"{name}: listed as {listing.instType} of {family.name}")
        named_ns = future.expiry_ns
        expiry_ns = 0 if kind is Kind.PERPETUAL else expiry_ns
    # The hour may be moved by the venue, and then the name stays; the day is the name's.
    if abs(expiry_ns - named_ns) >= _DAY_NS:
        raise InputError(f"{name}: listed to expire at {listing.expTime!r}, its name says {named_ns // 1_000_000}")
    tick, steps = bands if bands is not None and kind is Kind.OPTION else (number(listing.tickSz), ())
    settlement = _settlement(listing, family)
    return Instrument(
        venue=VENUE,
        symbol=name,
        kind=kind,
        underlying=family.base,
        settlement=settlement,
        quote_currency=family.currency,
        expiry_ns=expiry_ns,
        strike=strike,
        is_call=is_call,
        tick_size=tick,
        tick_steps=steps,
        contract_size=_contract_size(listing, family, settlement),
        price_index=family.uly,
    ).validate()


def index_of(family: Family) -> Instrument:
    """The index of a family."""
    return Instrument(
        venue=VENUE,
        symbol=family.uly,
        kind=Kind.INDEX,
        underlying=family.base,
        settlement=Settlement.LINEAR,
        quote_currency=family.currency,
        price_index=family.uly,
    )


def _settlement(listing: Listing, family: Family) -> Settlement:
    inverse = listing.settleCcy == family.base if listing.settleCcy else family.quote == "USD"
    # `ctType` was empty for options until 2026.
    if listing.ctType not in ("", "inverse" if inverse else "linear"):
        raise InputError(f"{listing.instId}: {listing.ctType} and settled in {listing.settleCcy!r}")
    return Settlement.INVERSE if inverse else Settlement.LINEAR


def _contract_size(listing: Listing, family: Family, settlement: Settlement) -> float:
    size = number(listing.ctVal) * number(listing.ctMult or "1")
    if not 0 < size < math.inf:
        raise InputError(f"{listing.instId}: a contract of {listing.ctVal!r} × {listing.ctMult!r} {listing.ctValCcy}")
    in_dollars = settlement is Settlement.INVERSE and listing.instType != "OPTION"
    if listing.ctValCcy and (listing.ctValCcy != family.base) != in_dollars:
        raise InputError(f"{listing.instId}: contracts of {listing.ctVal} × {listing.ctMult} {listing.ctValCcy}")
    # 1 × 0.1 is a decimal with few digits; rounding gives the double that the decimal parses to.
    return round(size, 12)
