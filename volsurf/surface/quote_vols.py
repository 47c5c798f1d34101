"""From the last quotes of a board to implied vols with error bars, and a reason for every row that is not used.

One vectorised pass over all options. Every row ends with a `QuoteReason`; the order in which the checks below are made is the
order in which reasons are given.

    e^2 = h^2 + (|delta| se_F / vega)^2 + (|delta| vol sqrt(age) / vega)^2 + floor^2

is the error bar of a vol: half the bid-ask spread, the uncertainty of the forward, the move of the forward since the quote was
last confirmed, and a floor. Premiums, delta and vega are in units of the forward.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import (
    NANOSECONDS_PER_YEAR,
    BoolArray,
    FloatArray,
    IdArray,
    IntArray,
    years_between,
)
from volsurf.iv.black import black_greeks
from volsurf.iv.forward import expiry_forwards
from volsurf.iv.implied import ImpliedVolStatus, implied_vol_status
from volsurf.quotes import QuoteBoard
from volsurf.surface.layout import QuoteLayout
from volsurf.surface.vol_columns import QuoteRules, QuoteVols

__all__ = ["QuoteRules", "QuoteVols", "quote_vols"]


def quote_vols(
    board: QuoteBoard,
    now_ns: int,
    *,
    previous: QuoteVols | None = None,
    rules: QuoteRules | None = None,
    discount: npt.ArrayLike = 1.0,
    refused: npt.NDArray[np.uint8] | None = None,
) -> QuoteVols:
    """Implied vols, error bars and reasons of every active option on a board.

    Args:
        now_ns: the instant, ns UTC; ages and times to expiry are counted from it.
        previous: the last result for the same board. Its vols start the solver, which is twice as fast; the result is the
            same to the solver's accuracy.
        discount: of linear premiums, one number or one per instrument id.
        refused: reasons of rows that never reached the board; they join the ledger.
    """
    rules = rules or QuoteRules()
    layout = QuoteLayout.of(board.universe, previous.layout if previous is not None else None)
    ids, group, n = layout.ids, layout.group, len(layout)
    reason = np.zeros(n, np.uint8)

    def mark(mask: BoolArray, why: QuoteReason) -> None:
        reason[mask & (reason == 0)] = why

    bid, ask = board.bid[ids], board.ask[ids]
    expiry_years = years_between(now_ns, layout.expiry_ns)
    years = expiry_years[group]
    age_ns = np.maximum(now_ns - board.receive_time_ns[ids], 0)
    with np.errstate(invalid="ignore"):
        has_bid, has_ask = bid > 0, ask > 0
        crossed = has_bid & has_ask & (bid > ask)
        bad_price = (bid < 0) | (ask < 0) | np.isinf(bid) | np.isinf(ask)
    stale = (age_ns > rules.maximum_age_ns) & (has_bid | has_ask)
    mark(years <= 0, QuoteReason.EXPIRED)
    mark(years <= rules.settlement_window_ns / NANOSECONDS_PER_YEAR, QuoteReason.EXPIRING)
    mark(bad_price, QuoteReason.BAD_PRICE)
    mark(~has_bid & ~has_ask, QuoteReason.NO_QUOTE)
    mark(stale, QuoteReason.STALE)
    mark(crossed, QuoteReason.CROSSED)

    clean = reason == 0
    discount_ = np.asarray(discount, np.float64)
    discounts = np.full(n, float(discount_)) if discount_.ndim == 0 else discount_[ids]
    both = clean & has_bid & has_ask
    found = expiry_forwards(
        start=layout.start,
        partner=layout.partner,
        strike=layout.strike,
        inverse=layout.inverse,
        discount=discounts,
        bid=np.where(both, bid, np.nan),
        ask=np.where(both, ask, np.nan),
        time_ns=_ticker_time(board, ids),
        years=expiry_years,
        underlying_id=layout.underlying_id,
        **_venue_forwards(board, layout),
    )
    forward = found.forward[group]
    mark(np.isnan(forward), QuoteReason.NO_FORWARD)

    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # log1p of the distance, not the log of the ratio: it keeps its digits next to the forward.
        k = np.log1p((layout.strike - forward) / forward)
        money = np.where(layout.inverse, 1.0, 1.0 / (forward * discounts))
        in_the_money = np.where(layout.is_call, k < 0, k > 0)
        near = np.abs(k) <= rules.near_the_money * found.root_theta[group]
    bid = np.where(has_bid & ~bad_price, bid * money, np.nan)
    ask = np.where(has_ask & ~bad_price, ask * money, np.nan)
    mark(in_the_money & ~(near & both), QuoteReason.ITM_LEG)

    wanted = reason == 0
    bid_vol, ask_vol, bid_status, ask_status = _invert(layout, wanted, bid, ask, forward, years, previous)
    mark(ask_status == ImpliedVolStatus.BELOW_INTRINSIC, QuoteReason.BELOW_INTRINSIC)
    mark(ask_status == ImpliedVolStatus.AT_INTRINSIC, QuoteReason.BELOW_INTRINSIC)
    mark(bid_status == ImpliedVolStatus.ABOVE_MAXIMUM, QuoteReason.ABOVE_MAXIMUM)
    mark(np.isnan(bid_vol) & np.isnan(ask_vol), QuoteReason.BELOW_INTRINSIC)

    bid_only, ask_only = np.isnan(ask_vol), np.isnan(bid_vol)
    two_sided = ~bid_only & ~ask_only
    side = np.where(two_sided, 0, np.where(bid_only, -1, 1)).astype(np.int8)
    mid_vol = 0.5 * (bid_vol + ask_vol)
    vol = np.where(two_sided, mid_vol, np.where(bid_only, bid_vol, ask_vol))
    mark(in_the_money & ~two_sided, QuoteReason.ITM_LEG)

    vega, delta = np.full(n, np.nan), np.full(n, np.nan)
    priced = np.flatnonzero(np.isfinite(vol))
    greeks = black_greeks(1.0, np.exp(k[priced]), years[priced], vol[priced], layout.is_call[priced])
    vega[priced], delta[priced] = greeks.vega, greeks.delta

    deviation = _atm_vol(layout, reason == 0, two_sided & ~in_the_money, k, vol)[group] * np.sqrt(np.maximum(years, 0))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        half = np.where(two_sided, 0.5 * (ask_vol - bid_vol), _tick(board, layout, bid, ask, money) / vega)
        mark(np.abs(k) > rules.maximum_moneyness * deviation, QuoteReason.TOO_FAR)
        mark(vega < rules.minimum_vega, QuoteReason.LOW_VEGA)
        mark(two_sided & (half > rules.maximum_half_spread), QuoteReason.TOO_WIDE)
        mark(half > rules.maximum_half_spread, QuoteReason.LOW_VEGA)
        far_ask = ask_only & (ask > rules.ask_over_mark * board.mark[ids] * money)
        mark(far_ask, QuoteReason.ONE_SIDED)

        used = reason == 0
        lever = np.abs(delta) / vega
        forward_error = (found.standard_error / found.forward)[group]
        extra = (lever * forward_error) ** 2 + (lever * vol) ** 2 * age_ns / NANOSECONDS_PER_YEAR
        spread = half * half
    _average_legs(layout, reason, used & two_sided, in_the_money, vol, spread)
    error = np.where(used, np.sqrt(spread + extra + rules.error_floor**2), np.nan)
    return QuoteVols(
        time_ns=now_ns,
        underlyings=board.universe.underlyings,
        layout=layout,
        expiry_forwards=found,
        expiry_years=expiry_years,
        forward=forward,
        years=years,
        log_moneyness=k,
        bid=bid,
        ask=ask,
        bid_vol=bid_vol,
        ask_vol=ask_vol,
        mid_vol=mid_vol,
        vol=vol,
        error=error,
        vega=vega,
        delta=delta,
        side=side,
        reason=reason,
        age_ns=age_ns,
        refused=np.zeros(0, np.uint8) if refused is None else refused,
    )


def _ticker_time(board: QuoteBoard, ids: IdArray) -> IntArray:
    # The venue's clock orders its own tickers best; ours has to do where it stamps none.
    venue_time = board.venue_time_ns[ids]
    return np.where(venue_time > 0, venue_time, board.receive_time_ns[ids])


def _venue_forwards(board: QuoteBoard, layout: QuoteLayout) -> dict[str, FloatArray]:
    """What each ticker says of the forward, moved by the index since then, and the index of each expiry now."""
    latest = np.full(len(layout.index_ids), np.nan)
    for i, ids in enumerate(layout.index_ids):
        index = board.index[ids]
        with np.errstate(invalid="ignore"):
            heard = index > 0
        if heard.any():
            time = np.where(heard, _ticker_time(board, ids), -1)
            latest[i] = np.median(index[time == time.max()])
    index = board.index[layout.ids]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        moved = latest[layout.index_group] / index
        moved = np.where(np.isfinite(moved) & (index > 0), moved, 1.0)
    now = latest[layout.group_index] if len(layout) else np.zeros(0)
    return {"venue_forward": board.forward[layout.ids] * moved, "index": now}


def _invert(
    layout: QuoteLayout,
    wanted: BoolArray,
    bid: FloatArray,
    ask: FloatArray,
    forward: FloatArray,
    years: FloatArray,
    previous: QuoteVols | None,
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Vols and statuses of both sides of the wanted rows: NaN and OK where there is nothing to invert."""
    n = len(layout)
    bids, asks = np.flatnonzero(wanted & np.isfinite(bid)), np.flatnonzero(wanted & np.isfinite(ask))
    rows = np.concatenate((bids, asks))
    vols, statuses = np.full((2, n), np.nan), np.full((2, n), ImpliedVolStatus.OK, np.int8)
    price = np.concatenate((bid[bids], ask[asks]))
    guess = None
    if previous is not None and len(rows):
        guess = np.concatenate(
            (_carried(previous, layout, "bid_vol")[bids], _carried(previous, layout, "ask_vol")[asks])
        )
    strike = layout.strike[rows] / forward[rows]
    vol, status = implied_vol_status(price, 1.0, strike, years[rows], layout.is_call[rows], guess=guess)
    vol = np.where(status == ImpliedVolStatus.OK, vol, np.nan)
    vols[0, bids], vols[1, asks] = vol[: len(bids)], vol[len(bids) :]
    statuses[0, bids], statuses[1, asks] = status[: len(bids)], status[len(bids) :]
    return vols[0], vols[1], statuses[0], statuses[1]


def _carried(previous: QuoteVols, layout: QuoteLayout, name: str) -> FloatArray:
    """A column of the previous result in the rows of this layout; NaN where an option is new."""
    column: FloatArray = getattr(previous, name)
    if previous.layout is layout:
        return column
    by_id = np.full(len(layout.universe), np.nan)
    if previous.layout.universe is layout.universe:
        by_id[previous.layout.ids] = column
    return by_id[layout.ids]


def _atm_vol(layout: QuoteLayout, usable: BoolArray, best: BoolArray, k: FloatArray, vol: FloatArray) -> FloatArray:
    """Per expiry the median vol of the three strikes nearest the forward, of two-sided quotes where there are any."""
    atm = np.full(len(layout.start) - 1, np.nan)
    for mask in (usable & best, usable):
        missing = np.flatnonzero(np.isnan(atm))
        rows = np.flatnonzero(mask)
        if not missing.size or not rows.size:
            continue
        rows = rows[np.lexsort((np.abs(k[rows]), layout.group[rows]))]
        first = np.searchsorted(layout.group[rows], missing)
        count = np.minimum(np.searchsorted(layout.group[rows], missing, side="right") - first, 3)
        place = first[:, None] + np.arange(3)
        nearest = np.where(np.arange(3) < count[:, None], vol[rows[np.minimum(place, len(rows) - 1)]], np.inf)
        nearest.sort(axis=1)
        middle = np.where(count == 2, 0.5 * (nearest[:, 0] + nearest[:, 1]), nearest[:, 0])
        middle = np.where(count == 3, nearest[:, 1], middle)
        atm[missing] = np.where(count > 0, middle, np.nan)
    return atm


def _tick(board: QuoteBoard, layout: QuoteLayout, bid: FloatArray, ask: FloatArray, money: FloatArray) -> FloatArray:
    """The tick at each row's price, in units of the forward."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        price = np.where(np.isfinite(bid), bid, ask) / money
        return board.universe.ticks(layout.ids, price) * money


def _average_legs(
    layout: QuoteLayout,
    reason: npt.NDArray[np.uint8],
    usable: BoolArray,
    in_the_money: BoolArray,
    vol: FloatArray,
    spread: FloatArray,
) -> None:
    """Average, in place, the leg in the money into the other one of its strike, weighted by 1/h^2."""
    inner = np.flatnonzero(usable & in_the_money & (layout.partner >= 0))
    outer = layout.partner[inner]
    pair = usable[outer] & ~in_the_money[outer]
    inner, outer = inner[pair], outer[pair]
    # A locked quote would otherwise weigh infinitely.
    first, second = 1 / np.maximum(spread[outer], 1e-10), 1 / np.maximum(spread[inner], 1e-10)
    vol[outer] = (first * vol[outer] + second * vol[inner]) / (first + second)
    spread[outer] = 1 / (first + second)
    reason[inner] = QuoteReason.AVERAGED
