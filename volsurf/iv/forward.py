"""The forward of each market: what the venue says, checked against what put-call parity of its own quotes allows.

A market is one expiry at one venue, with strikes in one currency and premiums settled one way. A caller who has but one market an
expiry may as well read "expiry".

For a call and a put of one strike, x = C - P in the premium's unit:

    inverse   x = 1 - K/F        F = K / (1 - x)
    linear    x = D (F - K)      F = K + x / D

One strike gives an estimate (from the mids) and an interval (from bids and asks). The market's parity forward is the median
of the estimates weighted by 1/error, because one stale leg in twenty would move a mean by several basis points. The venue's
own forward is used wherever the intervals of the strikes allow it: on 4,398 real slices they always did, whereas a test at
three standard errors refused a fifth of correct forwards.

The slope of x over the strikes is -D, so parity also measures the discount of linear premiums. It is measured, with its error,
and not used: a spread of 0.1 % of the forward on legs up to 5 % in the money leaves D uncertain by a per cent or two, as much as
it differs from 1 in three months, and what is wrong in D moves the vols of a whole expiry alike, where no residual shows it.
Whether a venue discounts is a fact of its listing; the slope says whether its quotes agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf._jit import ensure_compiled, helper, kernel

if TYPE_CHECKING:
    from volsurf.iv.siblings import Siblings

Floats = npt.NDArray[np.float64]
Table = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MINIMUM_PAIRS = 3
"""Strikes with both legs two-sided below which parity decides nothing."""
DROPPED_STRIKES = 3
"""Most binding strikes left out on each side of the parity interval: stale legs."""
NEAR_THE_MONEY = 1.5
"""Strikes further out than this many standard deviations are left out of the median: their legs are wide."""
UNKNOWN_ERROR = 0.5e-4
"""Standard error of a forward that parity could not measure, relative."""
INTERPOLATED_ERROR = 5e-4
"""Assumed standard error of a forward interpolated between other expiries, relative."""
INDEX_ERROR = 5e-3
"""Assumed standard error where the index stands in for the forward, relative: a quarter at two per cent a year."""


class ForwardSource(IntEnum):
    """Where the forward of an expiry comes from."""

    NONE = 0
    VENUE = 1
    UNCHECKED = 2
    PARITY = 3
    INTERPOLATED = 4
    INDEX = 5
    CARRIED = 6

    @property
    def sentence(self) -> str:
        """What it means for whoever relies on the forward."""
        return _SENTENCES[self]


_SENTENCES = {
    ForwardSource.NONE: "no forward: neither the venue, nor parity, nor another expiry gives one",
    ForwardSource.VENUE: "the venue's forward, inside what its own quotes allow by put-call parity",
    ForwardSource.UNCHECKED: "the venue's forward; fewer than three strikes are quoted on both legs, so parity cannot check it",
    ForwardSource.PARITY: "put-call parity of the quotes",
    ForwardSource.INTERPOLATED: "interpolated between the forwards of the other expiries",
    ForwardSource.INDEX: "the index itself: no expiry of this underlying has a forward",
    ForwardSource.CARRIED: "another market's forward of the expiry, by the ratio of their indexes: this one gives none itself",
}


@dataclass(frozen=True, slots=True)
class ExpiryForward:
    """The forward of one expiry and how it was found. Prices in the strike's currency."""

    underlying: str
    expiry_ns: int
    forward: float
    """NaN where `source` is NONE."""
    source: ForwardSource
    venue_forward: float
    """The venue's newest forward, brought to now by the index; NaN if it gave none."""
    parity_forward: float
    """Weighted median over the strikes; NaN if no strike has both legs."""
    standard_error: float
    parity_low: float
    """Lowest forward the quotes allow, the most binding strikes left out."""
    parity_high: float
    pairs: int
    """Strikes with both legs two-sided."""
    mismatch_bp: float
    """Parity over venue, in basis points of the forward; NaN if either is missing."""
    flagged: bool
    """The two differ by more than noise, or there is nothing to compare: worth a look before trading on it."""


@dataclass(frozen=True, slots=True)
class Forwards:
    """The forwards of a board's expiries as arrays of shape (expiries,); fields as in `ExpiryForward`."""

    forward: Floats
    source: npt.NDArray[np.int8]
    venue_forward: Floats
    parity_forward: Floats
    standard_error: Floats
    parity_low: Floats
    parity_high: Floats
    pairs: Ints
    mismatch_bp: Floats
    flagged: Bools
    root_theta: Floats
    """Total standard deviation to expiry read off the straddle nearest the forward, NaN without a pair: for choosing
    strikes before any vol is known."""
    parity_discount: Floats
    """Discount factor that the slope of parity over the strikes shows; NaN for coin premiums and below four pairs."""
    discount_error: Floats
    """Its standard error."""

    def take(self, markets: Ints) -> Forwards:
        """Some of the markets, in the order given."""
        return Forwards(*(getattr(self, f.name)[markets] for f in fields(self)))


# Columns of the kernel's result.
_VENUE, _PARITY, _ERROR, _LOW, _HIGH, _PAIRS, _ROOT_THETA, _DISCOUNT, _DISCOUNT_ERROR = range(9)
_SLOPE_PAIRS = 4


@helper()
def _sort(values: Floats, weights: Floats, count: int) -> None:
    """Sort the first `count` values, and the weights with them: insertion, since strikes come nearly in order."""
    for i in range(1, count):
        value, weight = values[i], weights[i]
        j = i - 1
        while j >= 0 and values[j] > value:
            values[j + 1] = values[j]
            weights[j + 1] = weights[j]
            j -= 1
        values[j + 1] = value
        weights[j + 1] = weight


@helper()
def _weighted_median(values: Floats, weights: Floats, count: int) -> float:
    _sort(values, weights, count)
    half = 0.0
    for i in range(count):
        half += 0.5 * weights[i]
    below = 0.0
    for i in range(count):
        below += weights[i]
        if below >= half:
            # Exactly half of the weight below is the ordinary even count: then the middle of the two.
            if below == half and i + 1 < count:
                return float(0.5 * (values[i] + values[i + 1]))
            return float(values[i])
    return math.nan


@helper()
def _implied_forward(x: float, strike: float, discount: float, inverse: bool) -> float:
    if inverse:
        return strike / (1.0 - x) if x < 1.0 else math.inf
    return strike + x / discount


@helper()
def _slope(x: Floats, y: Floats, error: Floats, count: int) -> tuple[float, float]:
    """Weighted least squares of y on x: the slope, and its standard error at the scatter there is, if that exceeds `error`."""
    total, mean_x, mean_y = 0.0, 0.0, 0.0
    for i in range(count):
        weight = 1.0 / (error[i] * error[i])
        total += weight
        mean_x += weight * x[i]
        mean_y += weight * y[i]
    mean_x /= total
    mean_y /= total
    xx, xy, yy = 0.0, 0.0, 0.0
    for i in range(count):
        weight = 1.0 / (error[i] * error[i])
        dx, dy = x[i] - mean_x, y[i] - mean_y
        xx += weight * dx * dx
        xy += weight * dx * dy
        yy += weight * dy * dy
    slope = xy / xx
    return slope, math.sqrt(max(1.0, (yy - slope * xy) / (count - 2)) / xx)


@kernel(
    "void(int64[::1], int64[::1], float64[::1], boolean[::1], float64[::1], float64[::1], float64[::1], float64[::1], "
    "int64[::1], float64[:, ::1])",
    group="quotes",
)
def _parity_kernel(
    start: Ints,
    partner: Ints,
    strike: Floats,
    inverse: Bools,
    discount: Floats,
    bid: Floats,
    ask: Floats,
    forward: Floats,
    time_ns: Ints,
    result: Table,
) -> None:
    longest = 0
    for group in range(start.size - 1):
        longest = max(longest, start[group + 1] - start[group])
    value = np.empty(longest)
    weight = np.empty(longest)
    level = np.empty(longest)
    error = np.empty(longest)
    low = np.empty(longest)
    high = np.empty(longest)
    log_strike = np.empty(longest)
    strikes = np.empty(longest)
    difference = np.empty(longest)
    width = np.empty(longest)
    for group in range(start.size - 1):
        first, last = start[group], start[group + 1]
        # The venue's forward: of the newest ticker; of equally new ones (a snapshot with one time stamp) the median.
        newest = -1
        for i in range(first, last):
            if forward[i] > 0.0 and forward[i] < math.inf and time_ns[i] > newest:
                newest = time_ns[i]
        count = 0
        for i in range(first, last):
            if forward[i] > 0.0 and forward[i] < math.inf and time_ns[i] == newest:
                value[count] = forward[i]
                weight[count] = 1.0
                count += 1
        result[group, _VENUE] = _weighted_median(value, weight, count)

        pairs = 0
        straddle = math.nan
        closest = math.inf
        centre = math.nan
        for put in range(first, last):
            call = partner[put]
            if call <= put:
                continue
            if not (bid[put] >= 0.0 and ask[put] >= bid[put] and bid[call] >= 0.0 and ask[call] >= bid[call]):
                continue
            x = 0.5 * (bid[call] + ask[call]) - 0.5 * (bid[put] + ask[put])
            spread = 0.5 * (ask[call] - bid[call]) + 0.5 * (ask[put] - bid[put])
            implied = _implied_forward(x, strike[put], discount[put], inverse[put])
            if not (implied > 0.0 and implied < math.inf):
                continue
            unit = 1.0 if inverse[put] else 1.0 / (strike[put] * discount[put])
            slope = implied * implied / strike[put] if inverse[put] else 1.0 / discount[put]
            level[pairs] = implied
            # A locked pair is not infinitely exact: a tenth of a basis point.
            error[pairs] = max(slope * spread, 1e-5 * implied)
            low[pairs] = max(0.0, _implied_forward(bid[call] - ask[put], strike[put], discount[put], inverse[put]))
            high[pairs] = _implied_forward(ask[call] - bid[put], strike[put], discount[put], inverse[put])
            log_strike[pairs] = math.log(strike[put])
            strikes[pairs], difference[pairs], width[pairs] = strike[put], x, max(spread, 1e-5 * implied)
            if abs(x) * unit < closest:
                closest = abs(x) * unit
                centre = math.log(implied)
                straddle = unit * 0.5 * (bid[call] + ask[call] + bid[put] + ask[put])
            pairs += 1
        # At the money C + P = 2 F (2 N(s/2) - 1) ~ F s sqrt(2/pi).
        root_theta = straddle * math.sqrt(0.5 * math.pi)
        result[group, _ROOT_THETA] = root_theta
        result[group, _PAIRS] = pairs
        result[group, _DISCOUNT] = result[group, _DISCOUNT_ERROR] = math.nan
        if pairs >= _SLOPE_PAIRS and not inverse[first]:
            slope, uncertain = _slope(strikes, difference, width, pairs)
            result[group, _DISCOUNT], result[group, _DISCOUNT_ERROR] = -slope, uncertain
        if pairs == 0:
            for column in (_PARITY, _ERROR, _LOW, _HIGH):
                result[group, column] = math.nan
            continue

        count = 0
        for i in range(pairs):
            if abs(log_strike[i] - centre) <= NEAR_THE_MONEY * root_theta:
                value[count], weight[count] = level[i], 1.0 / error[i]
                count += 1
        if count < MINIMUM_PAIRS:
            count = pairs
            for i in range(pairs):
                value[i], weight[i] = level[i], 1.0 / error[i]
        estimate = _weighted_median(value, weight, count)
        total, squares = 0.0, 0.0
        for i in range(count):
            total += weight[i]
            squares += weight[i] * weight[i]
            value[i] = abs(value[i] - estimate)
        deviation = _weighted_median(value, weight, count)
        # 1.25 for the median against the mean, 1.4826 from the median absolute deviation to a standard deviation.
        standard_error = 1.25 * 1.4826 * deviation * math.sqrt(squares) / total
        if pairs < MINIMUM_PAIRS:
            standard_error = max(standard_error, 0.5 / total * count)

        dropped = min(DROPPED_STRIKES, (pairs - 1) // 2)
        _sort(low, weight, pairs)
        _sort(high, error, pairs)
        lowest, highest = low[pairs - 1 - dropped], high[dropped]
        if lowest <= highest:
            estimate = min(max(estimate, lowest), highest)
        result[group, _PARITY] = estimate
        result[group, _ERROR] = max(standard_error, 0.1 * UNKNOWN_ERROR * estimate)
        result[group, _LOW] = lowest
        result[group, _HIGH] = highest


def expiry_forwards(
    *,
    start: Ints,
    partner: Ints,
    strike: Floats,
    inverse: Bools,
    discount: Floats,
    bid: Floats,
    ask: Floats,
    venue_forward: Floats,
    time_ns: Ints,
    years: Floats,
    underlying_id: npt.NDArray[np.integer],
    index: Floats,
    siblings: Siblings | None = None,
) -> Forwards:
    """The forward of every market, in one pass over the quotes.

    Rows are options, grouped by market: rows `start[g]` to `start[g + 1]` are those of market g.

    Args:
        start: first row of each market and the number of rows, shape (markets + 1,).
        partner: row of the other leg of the same strike, -1 where there is none, shape (rows,).
        strike, inverse, discount: of each row, shape (rows,).
        bid, ask: in the venue's premium unit, NaN where that side is empty or not to be trusted, shape (rows,).
        venue_forward: what each row's ticker said, brought to now by the index, NaN where it said nothing, shape (rows,).
        time_ns: when it said so, shape (rows,).
        years, underlying_id: of each market, shape (markets,).
        index: the market's index now, NaN where unknown, shape (markets,).
        siblings: which markets share an expiry, where any do: one without a forward then has it from another.
    """
    ensure_compiled("quotes")
    table = np.empty((len(start) - 1, 9))
    _parity_kernel(start, partner, strike, inverse, discount, bid, ask, venue_forward, time_ns, table)
    venue, parity, error = table[:, _VENUE], table[:, _PARITY].copy(), table[:, _ERROR].copy()
    low, high, pairs = table[:, _LOW], table[:, _HIGH], table[:, _PAIRS].astype(np.int64)
    enough = pairs >= MINIMUM_PAIRS
    with np.errstate(invalid="ignore"):
        mismatch = 1e4 * (parity / venue - 1.0)
        allowed = np.maximum(3e4 * error / parity, np.where(years > 120 / 365, 12.0, 6.0))
        differs = enough & (np.abs(mismatch) > allowed)
        # Where stale legs leave no forward that suits every strike, the distance has to do.
        accepted = np.where(low <= high, (venue >= low) & (venue <= high), ~differs)
    has_venue = np.isfinite(venue)
    source = np.full(len(pairs), ForwardSource.NONE, np.int8)
    source[enough] = ForwardSource.PARITY
    source[has_venue & enough & accepted] = ForwardSource.VENUE
    source[has_venue & ~enough] = ForwardSource.UNCHECKED
    forward = np.where(
        (source == ForwardSource.VENUE) | (source == ForwardSource.UNCHECKED),
        venue,
        np.where(source == ForwardSource.PARITY, parity, np.nan),
    )
    flagged = differs | (has_venue & enough & ~accepted)
    error = np.where(enough, error, UNKNOWN_ERROR * forward)
    if not np.isfinite(forward).all():
        if siblings is not None:
            siblings.carry(forward, source, error, parity, table[:, _ERROR], index)
        families = underlying_id if siblings is None else siblings.family
        _interpolate(forward, source, error, flagged, parity, table[:, _ERROR], years, underlying_id, families, index)
    return Forwards(
        forward,
        source,
        venue,
        parity,
        error,
        low,
        high,
        pairs,
        mismatch,
        flagged,
        table[:, _ROOT_THETA].copy(),
        table[:, _DISCOUNT].copy(),
        table[:, _DISCOUNT_ERROR].copy(),
    )


def _interpolate(
    forward: Floats,
    source: npt.NDArray[np.int8],
    error: Floats,
    flagged: Bools,
    parity: Floats,
    parity_error: Floats,
    years: Floats,
    underlying_id: npt.NDArray[np.integer],
    families: npt.NDArray[np.integer],
    index: Floats,
) -> None:
    """Fill in, in place, the markets that neither the venue nor three strikes give a forward for, nor another of the expiry."""
    given = np.isfinite(forward) & (years > 0)
    for one in np.unique(families[np.isnan(forward)]):
        mine = families == one
        missing = np.flatnonzero(mine & np.isnan(forward))
        known = np.flatnonzero(mine & given)
        spot = index[missing[0]]
        log_spot = np.full(len(known), math.log(spot) if spot > 0 else math.nan)
        if not known.size:
            # Of its own kind there is none: the others' then, each in relation to its own index.
            others = given & (underlying_id == underlying_id[missing[0]])
            known = np.flatnonzero(others & (index > 0) if spot > 0 else others)
            log_spot = np.log(index[known])
        if known.size:
            order = np.argsort(years[known])
            known, log_spot = known[order], log_spot[order]
            at, log_forward = years[known], np.log(forward[known])
            if spot > 0:
                # Linear in the basis rate ln(F/S)/T, which is what the curve is smooth in; flat beyond its ends.
                rate = np.interp(years[missing], at, (log_forward - log_spot) / at)
                forward[missing] = spot * np.exp(rate * years[missing])
            else:
                forward[missing] = np.exp(np.interp(years[missing], at, log_forward))
            source[missing] = ForwardSource.INTERPOLATED
            error[missing] = INTERPOLATED_ERROR * forward[missing]
            continue
        # One or two strikes are better than nothing; the index alone is the last resort.
        paired = missing[np.isfinite(parity[missing])]
        forward[paired], source[paired], error[paired] = parity[paired], ForwardSource.PARITY, parity_error[paired]
        bare = missing[np.isnan(forward[missing])]
        if spot > 0:
            forward[bare], source[bare], error[bare] = spot, ForwardSource.INDEX, INDEX_ERROR * spot
        flagged[missing] = True
