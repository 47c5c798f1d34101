"""From the last quotes of a board to implied vols with error bars, and a reason for every row that is not used.

One vectorised pass over all options. Every row ends with a `QuoteReason`; the order in which the checks below are made is the
order in which reasons are given.

    e^2 = h^2 + (|delta| se_F / vega)^2 + (|delta| vol sqrt(age) / vega)^2 + floor^2

is the error bar of a vol: half the bid-ask spread, the uncertainty of the forward, the move of the forward since the quote was
last confirmed, and a floor. Premiums, delta and vega are in units of the forward of the row's market, see `layout`.

The age is that of the news, not of the last change: from when the venue last said anything of the row to now. It said so at its
own time stamp, brought to our clock by the feed's skew, or when we heard it where that is earlier, where there is no stamp, or
where the skew is not known. A venue that stamps every push afresh confirms the quote with it, and both times are one but for the
delay on the way, which is what should count; one that stamps the quote's last change says how old the quote is. Whether a row is
left out as stale goes by when it was heard: a quote may stand for long, and still stand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import (
    NANOSECONDS_PER_YEAR,
    BoolArray,
    FloatArray,
    IntArray,
    years_between,
)
from volsurf.iv.black import black_greeks
from volsurf.iv.forward import Forwards, expiry_forwards
from volsurf.iv.implied import ImpliedVolStatus, implied_vol_status
from volsurf.iv.siblings import Siblings, reference_markets
from volsurf.quotes import QuoteBoard
from volsurf.surface.layout import QuoteLayout
from volsurf.surface.venue_quotes import VenueQuotes
from volsurf.surface.vol_columns import QuoteRules, QuoteVols

__all__ = ["UNKNOWN_SKEW", "QuoteRules", "QuoteVols", "quote_vols"]

UNKNOWN_SKEW = 1 << 61
"""Stands for the skew of a clock nobody has compared: so far ahead that the time of receipt is always the earlier one."""
_LIKELY_DISCOUNT = (0.5, 1.5)

# As plain numbers: numpy takes ten times as long to compare with a member of an enum.
_OK, _AT = int(ImpliedVolStatus.OK), int(ImpliedVolStatus.AT_INTRINSIC)
_BELOW, _ABOVE = int(ImpliedVolStatus.BELOW_INTRINSIC), int(ImpliedVolStatus.ABOVE_MAXIMUM)


# Quotes and forwards are whatever venues send: what cannot be computed, here or in what is called, is not finite, and its row
# gets a reason for that.
@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def quote_vols(
    board: QuoteBoard,
    now_ns: int,
    *,
    previous: QuoteVols | None = None,
    rules: QuoteRules | None = None,
    discount: npt.ArrayLike = 1.0,
    refused: npt.NDArray[np.uint8] | None = None,
    unheard: BoolArray | None = None,
    skew_ns: IntArray | None = None,
) -> QuoteVols:
    """Implied vols, error bars and reasons of every active option on a board.

    Args:
        now_ns: the instant, ns UTC; ages and times to expiry are counted from it.
        previous: the last result for the same board. Its vols start the solver, which is twice as fast; the result is the
            same to the solver's accuracy.
        discount: of linear premiums, one number or one per instrument id.
            Venues that discount by themselves (`Instrument.is_discounted`) need none: it is index / forward.
        refused: reasons of rows that never reached the board; they join the ledger.
        unheard: of each instrument id, whether its venue is not to be believed now: nothing it said is used, its index included.
        skew_ns: of each instrument id, our clock less its venue's; `UNKNOWN_SKEW` where that is not known, as it is without this.
    """
    rules = rules or QuoteRules()
    layout = QuoteLayout.of(board.universe, previous.layout if previous is not None else None)
    ids, group, market, n = layout.positions, layout.group, layout.market, len(layout)
    reason = np.zeros(n, np.uint8)

    def mark(mask: BoolArray, why: QuoteReason) -> None:
        np.copyto(reason, np.uint8(why), where=mask & (reason == 0))

    bid, ask = board.bid[ids], board.ask[ids]
    expiry_years = years_between(now_ns, layout.expiry_ns)
    years = expiry_years[group]
    received_ns = board.receive_time_ns[ids]
    silent_ns = age_ns = np.maximum(now_ns - received_ns, 0)
    venue_ns = board.venue_time_ns[ids]
    if skew_ns is not None:
        said_ns = np.where(venue_ns > 0, venue_ns + skew_ns[ids], received_ns)
        age_ns = np.maximum(now_ns - np.minimum(said_ns, received_ns), 0)
    has_bid, has_ask = bid > 0, ask > 0
    crossed = has_bid & has_ask & (bid > ask)
    bad_price = (bid < 0) | (ask < 0) | np.isinf(bid) | np.isinf(ask)
    stale = (silent_ns > rules.maximum_age_ns) & (has_bid | has_ask)
    mark(years <= 0, QuoteReason.EXPIRED)
    mark(years <= rules.settlement_window_ns / NANOSECONDS_PER_YEAR, QuoteReason.EXPIRING)
    if unheard is not None:
        mark(unheard[ids], QuoteReason.VENUE_STALE)
    mark(bad_price, QuoteReason.BAD_PRICE)
    mark(~has_bid & ~has_ask, QuoteReason.NO_QUOTE)
    mark(stale, QuoteReason.STALE)
    mark(crossed, QuoteReason.CROSSED)

    clean = reason == 0
    discounts = _discounts(board, layout, discount)
    said = VenueQuotes.of(board, layout.positions, bid, ask, np.where(layout.inverse, 1.0, discounts))
    both = clean & has_bid & has_ask
    found = _forwards(
        board,
        layout,
        discount=discounts,
        bid=np.where(both, bid, np.nan),
        ask=np.where(both, ask, np.nan),
        time_ns=_stamps(board, "forward_time_ns", ids),
        years=expiry_years[layout.market_expiry],
        unheard=unheard,
    )
    reference = _references(layout, found, clean, previous)
    forward = found.forward[market]
    mark(~np.isfinite(forward), QuoteReason.NO_FORWARD)

    # log1p of the distance, not the log of the ratio: it keeps its digits next to the forward.
    k = np.log1p((layout.strike - forward) / forward)
    money = np.where(layout.inverse, 1.0, 1.0 / (forward * discounts))
    in_the_money = np.where(layout.is_call, k < 0, k > 0)
    near = np.abs(k) <= rules.near_the_money * found.root_theta[market]
    bid = np.where(has_bid & ~bad_price, bid * money, np.nan)
    ask = np.where(has_ask & ~bad_price, ask * money, np.nan)
    mark(in_the_money & ~(near & both), QuoteReason.ITM_LEG)

    wanted = reason == 0
    bid_vol, ask_vol, bid_status, ask_status = _invert(layout, wanted, bid, ask, forward, years, previous)
    mark((ask_status == _BELOW) | (ask_status == _AT), QuoteReason.BELOW_INTRINSIC)
    mark(bid_status == _ABOVE, QuoteReason.ABOVE_MAXIMUM)
    bid_only, ask_only = np.isnan(ask_vol), np.isnan(bid_vol)
    mark(bid_only & ask_only, QuoteReason.BELOW_INTRINSIC)

    two_sided = ~(bid_only | ask_only)
    # A row without either side is neither; it has its reason by now, and counts as a bid.
    side = ask_only.view(np.int8) - bid_only.view(np.int8)
    side[bid_only & ask_only] = -1
    mid_vol = 0.5 * (bid_vol + ask_vol)
    vol = np.where(two_sided, mid_vol, np.where(bid_only, bid_vol, ask_vol))
    mark(in_the_money & ~two_sided, QuoteReason.ITM_LEG)

    vega, delta = np.full(n, np.nan), np.full(n, np.nan)
    priced = np.flatnonzero(np.isfinite(vol))
    greeks = black_greeks(1.0, np.exp(k[priced]), years[priced], vol[priced], layout.is_call[priced])
    vega[priced], delta[priced] = greeks.vega, greeks.delta

    deviation = _atm_vol(layout, reason == 0, two_sided & ~in_the_money, k, vol)[group] * np.sqrt(np.maximum(years, 0))
    half = 0.5 * (ask_vol - bid_vol)
    single = np.flatnonzero(~two_sided)
    half[single] = _tick(board, layout, single, bid, ask, money) / vega[single]
    mark(np.abs(k) > rules.maximum_moneyness * deviation, QuoteReason.TOO_FAR)
    mark(vega < rules.minimum_vega, QuoteReason.LOW_VEGA)
    mark(two_sided & (half > rules.maximum_half_spread), QuoteReason.TOO_WIDE)
    mark(half > rules.maximum_half_spread, QuoteReason.LOW_VEGA)
    far_ask = ask_only & (ask > rules.ask_over_mark * board.mark[ids] * money)
    mark(far_ask, QuoteReason.ONE_SIDED)

    used = reason == 0
    lever = np.abs(delta) / vega
    forward_error = (found.standard_error / found.forward)[market]
    extra = (lever * forward_error) ** 2 + (lever * vol) ** 2 * age_ns / NANOSECONDS_PER_YEAR
    spread = half * half
    _average_legs(layout, reason, used & two_sided, in_the_money, vol, spread)
    error = np.where(used, np.sqrt(spread + extra + rules.error_floor**2), np.nan)
    return QuoteVols(
        time_ns=now_ns,
        underlyings=board.universe.underlyings,
        layout=layout,
        expiry_forwards=found if layout.by_market is None else found.take(reference),
        market_forwards=found,
        reference=reference,
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
        venue_quotes=said,
    )


def _discounts(board: QuoteBoard, layout: QuoteLayout, discount: npt.ArrayLike) -> FloatArray:
    """Discount factor of each row's linear premium; of a market that discounts by itself at its own carry to expiry."""
    given = np.asarray(discount, np.float64)
    discounts = np.full(len(layout), float(given)) if given.ndim == 0 else given[layout.positions]
    for market in np.flatnonzero(layout.market_discounted).tolist():
        rows = np.arange(layout.market_start[market], layout.market_start[market + 1])
        rows = rows if layout.by_market is None else layout.by_market[rows]
        ids = layout.positions[rows]
        # Of one ticker each, so that they belong together.
        carry = board.index[ids] / board.forward[ids]
        carry = carry[(carry > _LIKELY_DISCOUNT[0]) & (carry < _LIKELY_DISCOUNT[1])]
        if len(carry):
            discounts[rows] *= _median(carry)
    return discounts


def _forwards(
    board: QuoteBoard,
    layout: QuoteLayout,
    *,
    discount: FloatArray,
    bid: FloatArray,
    ask: FloatArray,
    time_ns: IntArray,
    years: FloatArray,
    unheard: BoolArray | None,
) -> Forwards:
    """The forward of each market."""
    said, index, index_ns = _venue_forwards(board, layout, unheard)
    rows = layout.by_market
    columns: dict[str, Any] = {
        "strike": layout.strike,
        "inverse": layout.inverse,
        "discount": discount,
        "bid": bid,
        "ask": ask,
        "venue_forward": said,
        "time_ns": time_ns,
    }
    partner, siblings = layout.partner, None
    if layout.is_mixed:
        siblings = Siblings(layout.market_expiry, layout.market_family, layout.market_currency, index_ns)
    if rows is not None:
        columns = {name: column[rows] for name, column in columns.items()}
        place = np.empty(len(rows) + 1, np.int64)
        place[rows], place[-1] = np.arange(len(rows)), -1
        partner = place[partner[rows]]
    return expiry_forwards(
        start=layout.market_start,
        partner=partner,
        years=years,
        underlying_id=layout.underlying_id[layout.market_expiry],
        index=index,
        siblings=siblings,
        **columns,
    )


def _venue_forwards(
    board: QuoteBoard, layout: QuoteLayout, unheard: BoolArray | None
) -> tuple[FloatArray, FloatArray, IntArray]:
    """What each ticker says of the forward, moved by the index since then; the index of each market now, and when it was told."""
    latest, latest_ns = np.full(len(layout.index_ids), np.nan), np.full(len(layout.index_ids), -1, np.int64)
    for i, ids in enumerate(layout.index_ids):
        if unheard is not None:
            ids = ids[~unheard[ids]]
        index, time = board.index[ids], _stamps(board, "index_time_ns", ids)
        time[~(index > 0)] = -1
        newest = time.max(initial=-1)
        if newest >= 0:
            latest[i], latest_ns[i] = _median(index[time == newest]), newest
    index = board.index[layout.positions]
    moved = latest[layout.index_group] / index
    moved[~(np.isfinite(moved) & (index > 0))] = 1.0
    said = board.forward[layout.positions] * moved
    if unheard is not None:
        said[unheard[layout.positions]] = np.nan
    return said, latest[layout.market_index], latest_ns[layout.market_index]


def _stamps(board: QuoteBoard, name: str, ids: npt.NDArray[np.intp]) -> IntArray:
    """When the venue said it: its clock orders its own messages best, ours has to do where it stamps none."""
    said_ns = getattr(board, name)[ids]
    return np.where(said_ns > 0, said_ns, board.receive_time_ns[ids])


def _references(layout: QuoteLayout, found: Forwards, clean: BoolArray, previous: QuoteVols | None) -> IntArray:
    """The market that speaks for each expiry, shape (expiries,)."""
    count = len(layout.expiry_ns)
    if layout.by_market is None:
        return np.arange(count)
    before = np.full(count, -1, np.int64)
    if previous is not None and previous.layout is layout:
        before = previous.reference
    elif previous is not None and previous.layout.universe is layout.universe:
        # Markets are numbered anew with every listing; what they list is not.
        market = np.full(len(layout.universe), -1, np.int64)
        market[layout.positions] = layout.market
        old = previous.layout
        now = market[old.positions if old.by_market is None else old.positions[old.by_market]]
        # That of any of its rows: some may have expired or been delisted since.
        now = np.maximum.reduceat(now, old.market_start[:-1])[previous.reference]
        now = now[now >= 0]
        before[layout.market_expiry[now]] = now
    heard = np.bincount(layout.market, weights=clean, minlength=len(layout.market_expiry)) > 0
    return reference_markets(found, layout.market_expiry, layout.market_currency, heard, before)


def _median(values: FloatArray) -> float:
    # np.median, without its 20 us of preparation.
    ordered = np.sort(values)
    middle = len(ordered) // 2
    return float(ordered[middle] if len(ordered) % 2 else 0.5 * (ordered[middle - 1] + ordered[middle]))


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
    vols, statuses = np.full((2, n), np.nan), np.full((2, n), _OK, np.int8)
    price = np.concatenate((bid[bids], ask[asks]))
    guess = None
    if previous is not None and len(rows):
        guess = np.concatenate(
            (_carried(previous, layout, "bid_vol")[bids], _carried(previous, layout, "ask_vol")[asks])
        )
    strike = layout.strike[rows] / forward[rows]
    vol, status = implied_vol_status(price, 1.0, strike, years[rows], layout.is_call[rows], guess=guess)
    vol[status != _OK] = np.nan
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
        by_id[previous.layout.positions] = column
    return by_id[layout.positions]


def _atm_vol(layout: QuoteLayout, usable: BoolArray, best: BoolArray, k: FloatArray, vol: FloatArray) -> FloatArray:
    """Per expiry the median vol of the three strikes nearest the forward, of two-sided quotes where there are any."""
    atm = np.full(len(layout.start) - 1, np.nan)
    for mask in (usable & best, usable):
        missing = np.flatnonzero(np.isnan(atm))
        rows = np.flatnonzero(mask)
        if not missing.size or not rows.size:
            continue
        bounds = np.searchsorted(rows, layout.start)
        first, last = bounds[missing, None], bounds[missing + 1, None]
        if layout.by_market is not None:
            # By strike is by moneyness within a market only.
            rows = rows[np.lexsort((k[rows], layout.group[rows]))]
        # Rows go up by moneyness, so the three nearest are among the three on each side of the forward.
        below = np.concatenate(([0], np.cumsum(k[rows] < 0.0)))
        place = first + (below[last] - below[first]) + np.arange(-3, 3)
        there = (place >= first) & (place < last)
        place = rows[np.minimum(np.maximum(place, 0), len(rows) - 1)]
        distance = np.where(there, np.abs(k[place]), np.inf)
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :3]
        one = np.arange(len(missing))[:, None]
        levels = np.where(there, vol[place], np.inf)[one, nearest]
        levels.sort(axis=1)
        count = np.minimum(last - first, 3)[:, 0]
        middle = np.where(count == 2, 0.5 * (levels[:, 0] + levels[:, 1]), levels[:, 0])
        middle = np.where(count == 3, levels[:, 1], middle)
        atm[missing] = np.where(count > 0, middle, np.nan)
    return atm


def _tick(
    board: QuoteBoard,
    layout: QuoteLayout,
    rows: npt.NDArray[np.intp],
    bid: FloatArray,
    ask: FloatArray,
    money: FloatArray,
) -> FloatArray:
    """The tick at the price of some rows, in units of the forward."""
    bid, ask, money = bid[rows], ask[rows], money[rows]
    price = np.where(np.isfinite(bid), bid, ask) / money
    return board.universe.ticks(layout.positions[rows], price) * money


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
