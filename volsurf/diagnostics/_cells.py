"""The through matrix, computed: one pass over the rows of an underlying, without a loop over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics._curves import Curves, leverage, residuals
from volsurf.diagnostics.ledgers import final_reasons
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.diagnostics.through import ThroughMatrix, ThroughState
from volsurf.errors import InputError
from volsurf.instruments import BoolArray, FloatArray, IntArray, venue_premium
from volsurf.iv.black import black_price
from volsurf.surface.html import utc
from volsurf.surface.venue_quotes import NO_TICK

if TYPE_CHECKING:
    from volsurf.surface.layout import QuoteLayout
    from volsurf.surface.quote_vols import QuoteVols
    from volsurf.surface.surface import Surface

MINIMUM_HALF_SPREAD = 1e-4
"""A locked quote is not infinitely exact: its half-spread counts as one basis point."""
STANDARD_ERRORS = 2.0
"""An edge within this many standard errors of the curve may as well be the curve's."""


def build(surface: Surface, quotes: QuoteVols, maximum_age_ns: int | None = None) -> ThroughMatrix:
    """See `through_matrix`."""
    from volsurf.surface.quote_vols import QuoteVols
    from volsurf.surface.surface import Surface

    if not (isinstance(surface, Surface) and isinstance(quotes, QuoteVols)):
        raise InputError(
            "a surface is held against its quotes: pass a Surface and QuoteVols, such as chain.quote_vols(), "
            f"was {type(surface).__name__} and {type(quotes).__name__}"
        )
    if surface.underlying not in quotes.underlyings:
        held = ", ".join(quotes.underlyings) or "no underlying"
        raise InputError(f"the quotes hold {held}, the surface is of {surface.underlying}")
    if surface.time_ns > quotes.time_ns:
        raise InputError(
            f"the surface is of {utc(surface.time_ns)}, {(surface.time_ns - quotes.time_ns) / 1e9:.3g} s later than the quotes: "
            "pass the quotes it was fitted to, or newer ones"
        )
    layout = quotes.layout
    number = quotes.underlyings.index(surface.underlying)
    groups = np.flatnonzero(layout.underlying_id == number)
    # The rows of an underlying, and of its expiries, stand together.
    first_group = int(groups[0]) if len(groups) else 0
    low = int(layout.start[first_group]) if len(groups) else 0
    high = int(layout.start[first_group + len(groups)]) if len(groups) else 0
    reason = final_reasons((surface,), quotes)
    expiries = layout.expiry_ns[groups]
    curves = Curves.of(surface.smiles, expiries)
    row, key = _rows(layout, reason, quotes.log_moneyness, low, high)
    at, k = layout.group[row] - first_group, quotes.log_moneyness[row]
    fit, error = curves.vol_and_error(at, k)
    bid_vol, ask_vol, side, why = quotes.bid_vol[row], quotes.ask_vol[row], quotes.side[row], reason[row]
    said, ids, is_call = quotes.venue_quotes, layout.ids[row], layout.is_call[row]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # Which side: the one that is further through, or the only one there is.
        bid_edge, ask_edge = bid_vol - fit, fit - ask_vol
        is_bid = (bid_edge >= ask_edge) | np.isnan(ask_edge)
        edge = np.where(is_bid, bid_edge, ask_edge)
        premium = np.where(is_bid, said.bid[row], said.ask[row])
        fair = _fair(quotes, row, fit)
        edge_price = np.where(np.isfinite(edge), np.where(is_bid, premium - fair, fair - premium), np.nan)
        tick = layout.universe.ticks(ids, premium)
        unit = np.where(layout.inverse[row], 1.0, 1.0 / (quotes.forward[row] * said.discount[row]))
        tick_vol = tick * unit / quotes.vega[row]
        threshold = np.fmax(tick_vol, STANDARD_ERRORS * error)
        half = np.maximum(0.5 * (ask_vol - bid_vol), MINIMUM_HALF_SPREAD)
        through = edge > threshold
        edge_ticks = np.where(tick > NO_TICK, edge_price / tick, np.nan)
        edge_se = edge / error
        u = (fit - quotes.mid_vol[row]) / half
    age = quotes.age_ns[row]
    stale = (why == QuoteReason.STALE) | (why == QuoteReason.VENUE_STALE)
    if maximum_age_ns is not None:
        stale |= (age > maximum_age_ns) & (why != QuoteReason.NO_QUOTE)
    used = (why == QuoteReason.USED) & ~stale
    state = np.full(len(row), ThroughState.REJECTED, np.int8)
    state[why == QuoteReason.NO_QUOTE] = ThroughState.MISSING
    state[stale] = ThroughState.STALE
    state[(why == QuoteReason.ONE_SIDED) & ~stale] = ThroughState.ONE_SIDED
    state[used] = ThroughState.INSIDE
    state[used & (side != 0)] = ThroughState.ONE_SIDED
    state[used & np.isnan(fit)] = ThroughState.NO_CURVE
    state[used & through] = np.where(is_bid, ThroughState.BID_THROUGH, ThroughState.ASK_THROUGH)[used & through]
    mid = np.where(used & (side == 0), quotes.mid_vol[row], np.nan)
    if layout.by_market is not None:
        # At one strike each market is at a moneyness of its own; what they can be compared in is the distance from the curve.
        mid = mid - np.where(np.isnan(fit), 0.0, fit)
    spread, agreement = _across_venues(at, layout.strike[row], mid, half, state)
    venue, venues = _markets(layout, row)
    return ThroughMatrix(
        underlying=surface.underlying,
        time_ns=quotes.time_ns,
        surface_time_ns=surface.time_ns,
        universe=layout.universe,
        expiries=expiries,
        venues=venues,
        expiry=at,
        strike=layout.strike[row],
        venue=venue,
        instrument_id=ids,
        key=layout.ids[key],
        is_call=is_call,
        state=state,
        reason=why,
        side=side,
        log_moneyness=k,
        bid_vol=bid_vol,
        ask_vol=ask_vol,
        mid_vol=quotes.mid_vol[row],
        fitted_vol=fit,
        standard_error=error,
        edge_bp=1e4 * edge,
        edge_price=edge_price,
        edge_ticks=edge_ticks,
        edge_se=edge_se,
        edge_is_bid=np.asarray(is_bid & np.isfinite(edge)),
        threshold_bp=1e4 * threshold,
        u=u,
        leverage=_leverage(quotes, row, at, fit, error, why == QuoteReason.USED, len(groups)),
        venue_spread_bp=1e4 * spread,
        agreement=agreement,
        age_ns=age,
    )


def _rows(
    layout: QuoteLayout, reason: npt.NDArray[np.uint8], k: FloatArray, low: int, high: int
) -> tuple[IntArray, IntArray]:
    """Per cell the row that is read, and the row that names the cell: the put where there is one."""
    rows = np.arange(low, high)
    partner = layout.partner[low:high]
    key = rows[(partner < 0) | (partner > rows)]
    other = layout.partner[key]
    paired = other >= 0
    other = np.where(paired, other, key)
    with np.errstate(invalid="ignore"):
        call_side = paired & (k[key] >= 0)
    out, inner = np.where(call_side, other, key), np.where(call_side, key, other)
    # Next to the forward the leg in the money is fitted where it is the only one quoted.
    swap = paired & (reason[inner] == QuoteReason.USED) & (reason[out] != QuoteReason.USED)
    return np.where(swap, inner, out), key


def _fair(quotes: QuoteVols, row: IntArray, fit: FloatArray) -> FloatArray:
    """The curve's premium in the venue's unit; NaN where there is no curve or no time left."""
    fair = np.full(len(row), np.nan)
    with np.errstate(invalid="ignore"):
        able = np.flatnonzero(np.isfinite(fit) & (fit > 0) & (quotes.years[row] > 0) & np.isfinite(quotes.forward[row]))
    mine = row[able]
    forward, layout = quotes.forward[mine], quotes.layout
    normalised = black_price(1.0, layout.strike[mine] / forward, quotes.years[mine], fit[able], layout.is_call[mine])
    settlement = np.where(layout.inverse[mine], 0, 1)
    fair[able] = venue_premium(normalised, forward, settlement, quotes.venue_quotes.discount[mine])
    return fair


def _leverage(
    quotes: QuoteVols, row: IntArray, at: IntArray, fit: FloatArray, error: FloatArray, used: BoolArray, expiries: int
) -> FloatArray:
    """Of every cell; NaN where it is not in the fit."""
    result = np.full(len(row), np.nan)
    mine = np.flatnonzero(used & np.isfinite(fit))
    bar, side = quotes.error[row[mine]], quotes.side[row[mine]]
    u = (fit[mine] - quotes.vol[row[mine]]) / bar
    at = at[mine]
    result[mine] = leverage(u, side, at, error[mine] / bar, residuals(u, side, at, expiries).noise)
    return result


def _across_venues(
    at: IntArray, strike: FloatArray, mid: FloatArray, half: FloatArray, state: npt.NDArray[np.int8]
) -> tuple[FloatArray, npt.NDArray[np.int16]]:
    """Mid over the weighted mean of the other venues' at the strike, and how many of them are through on the same side."""
    n = len(at)
    new = np.ones(n, np.bool_)
    new[1:] = (at[1:] != at[:-1]) | (strike[1:] != strike[:-1])
    place = np.cumsum(new) - 1
    places = int(place[-1]) + 1 if n else 0
    spread, agreement = np.full(n, np.nan), np.zeros(n, np.int16)
    if places == n:
        return spread, agreement
    quoted: BoolArray = np.isfinite(mid)
    weight = np.where(quoted, 1.0 / half**2, 0.0)
    weighted = weight * np.where(quoted, mid, 0.0)
    rest = np.bincount(place, weight, places)[place] - weight
    others = quoted & (np.bincount(place[quoted], minlength=places)[place] > 1) & (rest > 0)
    consensus = (np.bincount(place, weighted, places)[place] - weighted)[others] / rest[others]
    spread[others] = mid[others] - consensus
    for side in (ThroughState.BID_THROUGH, ThroughState.ASK_THROUGH):
        mine = state == side
        agreement[mine] = np.bincount(place[mine], minlength=places)[place[mine]] - 1
    return spread, agreement


def _markets(layout: QuoteLayout, row: IntArray) -> tuple[IntArray, tuple[str, ...]]:
    """Venue of each cell, its currencies and settlements apart where it has several, and the names."""
    market = layout.market[row]
    found, position = np.unique(market, return_inverse=True)
    kinds = [
        (layout.venues[layout.market_venue[m]], not layout.market_inverse[m], layout.market_currency[m]) for m in found
    ]
    names = []
    for venue, linear, currency in kinds:
        settled = {other[1] for other in kinds if other[0] == venue}
        currencies = {other[2] for other in kinds if other[:2] == (venue, linear)}
        name = venue + (f" {currency}" if len(currencies) > 1 else "")
        names.append(name + (" linear" if linear and len(settled) > 1 else ""))
    distinct = sorted(
        set(zip(kinds, names, strict=True)), key=lambda pair: (layout.venues.index(pair[0][0]), *pair[0][1:])
    )
    order = [name for _, name in distinct]
    place = np.array([order.index(name) for name in names], np.int64)
    return place[position], tuple(order)
