"""One quote's way from the venue's premium to its weight in the fit, made again step by step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import FloatArray, Settlement
from volsurf.iv.implied import ImpliedVolStatus, implied_vol_status
from volsurf.surface.venue_quotes import NO_TICK

if TYPE_CHECKING:
    from volsurf.surface.quote_vols import QuoteVols
    from volsurf.surface.surface import Surface


@dataclass(frozen=True, slots=True)
class Side:
    """One side of one option, from the venue's premium to a vol."""

    premium: float
    """In the venue's unit; NaN where the side is empty."""
    size: float
    """In units of the underlying."""
    normalised: float
    """Undiscounted, in units of the forward."""
    vol: float
    """NaN where no vol has the premium."""
    status: str
    """How the inversion ended, in words."""


@dataclass(frozen=True, slots=True)
class Leg:
    """The put or the call of a strike at one venue."""

    symbol: str
    instrument_id: int
    is_call: bool
    bid: Side
    ask: Side
    mark: float
    """The venue's fair premium, in its unit."""
    mark_vol: float
    """The venue's own vol."""
    tick: float
    """At the bid, or at the ask where there is no bid; in the premium's unit. NaN where the prices have no common tick."""
    unit: str
    """What the premium is paid in, in words."""
    venue_time_ns: int
    receive_time_ns: int
    age_ns: int
    reason: QuoteReason
    """After the fit."""


@dataclass(frozen=True, slots=True)
class ErrorBar:
    """What a vol's error bar is made of, all in vol; the squares add up to that of `total`. NaN for a quote that is not used."""

    half_spread: float
    forward: float
    """The forward's standard error, through delta and vega."""
    age: float
    """What the forward has probably moved since the quote was last confirmed."""
    floor: float
    total: float


def read_leg(quotes: QuoteVols, row: int, reason: QuoteReason) -> Leg:
    """The option of a row, both its sides inverted afresh."""
    said, layout = quotes.venue_quotes, quotes.layout
    instrument = layout.universe[int(layout.ids[row])]
    inverse = instrument.settlement is Settlement.INVERSE
    sides = []
    for premium, size, beta in (
        (said.bid[row], said.bid_size[row], quotes.bid[row]),
        (said.ask[row], said.ask_size[row], quotes.ask[row]),
    ):
        sides.append(_side(quotes, row, float(premium), float(size), float(beta)))
    at = sides[0].premium if math.isfinite(sides[0].normalised) else sides[1].premium
    tick = float(layout.universe.ticks(layout.ids[row : row + 1], np.array([at]))[0])
    return Leg(
        symbol=instrument.symbol,
        instrument_id=int(layout.ids[row]),
        is_call=bool(layout.is_call[row]),
        bid=sides[0],
        ask=sides[1],
        mark=float(said.mark[row]),
        mark_vol=float(said.mark_vol[row]),
        tick=tick if tick > NO_TICK else math.nan,
        unit=instrument.underlying if inverse else "the strike's currency",
        venue_time_ns=int(said.venue_time_ns[row]),
        receive_time_ns=int(said.receive_time_ns[row]),
        age_ns=int(quotes.age_ns[row]),
        reason=reason,
    )


def _side(quotes: QuoteVols, row: int, premium: float, size: float, beta: float) -> Side:
    if not math.isfinite(beta):
        if math.isfinite(premium) and premium < 0:
            return Side(premium, size, math.nan, math.nan, "a negative premium is not a price")
        return Side(math.nan if not premium > 0 else premium, size, math.nan, math.nan, "empty")
    if not (quotes.years[row] > 0 and quotes.forward[row] > 0):
        return Side(premium, size, beta, math.nan, "no time left, or no forward")
    moneyness = quotes.strike[row] / quotes.forward[row]
    vol, status = implied_vol_status(beta, 1.0, moneyness, quotes.years[row], bool(quotes.is_call[row]))
    ended = ImpliedVolStatus(int(status))
    return Side(
        premium,
        size,
        beta,
        float(vol) if ended is ImpliedVolStatus.OK else math.nan,
        ended.name.lower().replace("_", " "),
    )


def error_bar(quotes: QuoteVols, row: int, inner: int) -> ErrorBar:
    """The terms of `quote_vols`, made again from its columns; the floor is what is left."""
    total = float(quotes.error[row])
    if not math.isfinite(total):
        return ErrorBar(*(math.nan,) * 5)
    two_sided = quotes.side[row] == 0
    own = float(quotes.mid_vol[row] if two_sided else quotes.vol[row])
    lever = abs(float(quotes.delta[row])) / float(quotes.vega[row])
    forwards, market = quotes.market_forwards, quotes.layout.market[row]
    forward = lever * float(forwards.standard_error[market] / forwards.forward[market])
    age = lever * own * math.sqrt(float(quotes.age_ns[row]) / (365 * 86_400e9))
    if two_sided:
        half = 0.5 * float(quotes.ask_vol[row] - quotes.bid_vol[row])
        if inner >= 0:
            other = 0.5 * float(quotes.ask_vol[inner] - quotes.bid_vol[inner])
            # As the average of two independent readings, neither of which is infinitely exact.
            half = 1.0 / math.sqrt(1.0 / max(half**2, 1e-10) + 1.0 / max(other**2, 1e-10))
    else:
        said, layout = quotes.venue_quotes, quotes.layout
        premium = said.bid[row] if math.isfinite(quotes.bid[row]) else said.ask[row]
        tick = float(layout.universe.ticks(layout.ids[row : row + 1], np.array([premium]))[0])
        unit = 1.0 if layout.inverse[row] else 1.0 / float(quotes.forward[row] * said.discount[row])
        half = tick * unit / float(quotes.vega[row])
    floor = math.sqrt(max(total**2 - half**2 - forward**2 - age**2, 0.0))
    return ErrorBar(half, forward, age, floor, total)


def fit_weight(surface: Surface, quotes: QuoteVols, index: int | None, row: int) -> float:
    """Robust weight over error^2, as a share of the expiry's."""
    if index is None:
        return 0.0
    smile = surface.smiles[index]
    used = smile.used

    def pull(fit: FloatArray, vol: FloatArray, error: FloatArray, side: npt.NDArray[np.int8]) -> FloatArray:
        u = (fit - vol) / error
        return np.where(u * side >= 0, 1.0 / np.maximum(np.abs(u), 1.0), 0.0) / error**2

    k = smile.log_moneyness[used]
    every = pull(smile.fitted_vol(k), smile.vol[used], smile.error[used], smile.side[used])
    mine = smile.instrument_id[used] == quotes.instrument_id[row]
    total = float(every.sum())
    return float(every[mine].sum()) / total if total > 0 else 0.0
