"""Everything behind one cell of a surface: the quotes, the forward, the vols, their weight, the fit and its neighbours."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from volsurf.diagnostics._cells import build
from volsurf.diagnostics.forwards import ForwardCheck, forward_checks
from volsurf.diagnostics.health import SliceHealth, misfit, slice_health
from volsurf.diagnostics.ledgers import final_reasons
from volsurf.diagnostics.quote_path import ErrorBar, Leg, error_bar, fit_weight, read_leg
from volsurf.diagnostics.reasons import Ledger, QuoteReason
from volsurf.diagnostics.through import ThroughMatrix, ThroughState
from volsurf.errors import InputError
from volsurf.surface.expiries import to_nanoseconds

if TYPE_CHECKING:
    from volsurf.surface.expiries import Expiry
    from volsurf.surface.quote_vols import QuoteVols
    from volsurf.surface.slices import SliceFit
    from volsurf.surface.surface import Surface

NEIGHBOURS = 3
"""Strikes shown on each side."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Explanation:
    """What `explain` found; `print` it, or show it in a notebook."""

    underlying: str
    label: str
    expiry_ns: int
    strike: float
    venue: str
    time_ns: int
    """Of the quotes, ns UTC."""
    legs: tuple[Leg, ...]
    """Put, then call, as far as they are listed."""
    leg: Leg
    """The one whose vol stands for the strike: out of the money, unless only the other is in the fit."""
    averaged: bool
    """The other leg was averaged into it, the strike being next to the forward."""
    forward: ForwardCheck
    discount: float
    years: float
    log_moneyness: float
    deviations: float
    """Log-moneyness in standard deviations of the curve at the forward."""
    delta: float
    """Forward delta at the quote's vol."""
    vega: float
    """Of the quote, per 1.00 of vol, in units of the forward."""
    state: ThroughState
    reason: QuoteReason
    side: int
    """0 two-sided, -1 only a bid, +1 only an ask."""
    vol: float
    """What the fit aims at."""
    error: ErrorBar
    weight: float
    """Share of the quote in the expiry's total weight, 1/error^2 cut by the robust loss; 0 where it is not used."""
    fitted_vol: float
    standard_error: float
    residual: float
    """(fit - quote) / error bar."""
    leverage: float
    edge_bp: float
    edge_ticks: float
    edge_se: float
    edge_is_bid: bool
    fair: float
    """The curve's premium, in the venue's unit."""
    fit: SliceFit | None
    fit_time_ns: int
    """When the slice was fitted, ns UTC."""
    fit_hash: str
    """blake2b of the slice's five doubles: equal on every machine that shows this slice."""
    health: SliceHealth | None
    neighbours: ThroughMatrix
    """Cells of the same expiry and venue around the strike, itself included."""
    other_venues: ThroughMatrix
    """Cells of the same strike elsewhere."""

    @property
    def fitted_alone_sentence(self) -> str:
        """The published curve against what the quotes alone would have, as far as the fit recorded it."""
        fit = self.fit
        if fit is None:
            return "there is no curve"
        if not math.isfinite(fit.fitted_cost) or self.health is None:
            return "no record of the curve that the quotes alone would have"
        moved = f"; it moved a used quote by {1e4 * fit.move:.1f} bp at most" if math.isfinite(fit.move) else ""
        return (
            f"the quotes alone cost {fit.fitted_cost:.4g}, the published curve {fit.cost:.4g} "
            f"({self.health.enforcement}, {self.health.filtered}){moved}"
        )

    def __repr__(self) -> str:
        return f"Explanation({self.underlying} {self.label} {self.strike:,.10g} {self.venue}: {self.state.label})"

    def __str__(self) -> str:
        from volsurf.diagnostics.explain_view import explanation_text

        return explanation_text(self)

    def _repr_html_(self) -> str:
        from volsurf.diagnostics.explain_view import explanation_html

        return explanation_html(self)


def explain(
    surface: Surface, quotes: QuoteVols, expiry: Expiry, strike: float, *, venue: str | None = None
) -> Explanation:
    """Everything behind one strike of one expiry.

    Args:
        expiry: as `Surface.smile` takes it.
        venue: which venue's quote; of several one that is through, or else the tightest, if not given.

    Raises:
        InputError: no such expiry, strike or venue; the message names the nearest there is.
    """
    matrix = build(surface, quotes)
    place = _expiry(matrix, expiry)
    cell = _cell(matrix, quotes, place, strike, venue)
    layout = quotes.layout
    row_of = np.full(len(layout.universe), -1, np.int64)
    row_of[layout.ids] = np.arange(len(layout))
    row = int(row_of[matrix.instrument_id[cell]])
    partner = int(layout.partner[row])
    reason = final_reasons((surface,), quotes)
    rows = sorted(r for r in (row, partner) if r >= 0)
    legs = {r: read_leg(quotes, r, QuoteReason(int(reason[r]))) for r in rows}
    averaged = partner >= 0 and reason[partner] == QuoteReason.AVERAGED and reason[row] == QuoteReason.USED
    expiry_ns = int(matrix.expiries[place])
    index = next((i for i, s in enumerate(surface.smiles) if s.expiry_ns == expiry_ns), None)
    smile = None if index is None else surface.smiles[index]
    mine = matrix.expiry == place
    health = None
    if index is not None:
        block = slice(*(int(b) for b in layout.start[layout.group[row] : layout.group[row] + 2]))
        numbers = misfit(surface.smiles)
        ledger = Ledger.of(reason[block], quotes.side[block])
        wrong = bool(numbers.wrong_shape[index])
        health = slice_health(surface.smiles, index, ledger, matrix.select(mine), numbers, shape_misfit=wrong)
    fit = None if smile is None else smile.fit
    deviation = math.nan if smile is None else smile.atm_vol * math.sqrt(smile.years)
    fitted, aim, error = float(matrix.fitted_vol[cell]), float(quotes.vol[row]), float(quotes.error[row])
    is_used = reason[row] == QuoteReason.USED
    lane = np.flatnonzero(mine & (matrix.venue == matrix.venue[cell]))
    at = int(np.flatnonzero(lane == cell)[0])
    same = mine & (matrix.strike == matrix.strike[cell])
    same[cell] = False
    bid = bool(matrix.edge_is_bid[cell])
    premium, edge = (legs[row].bid.premium if bid else legs[row].ask.premium), float(matrix.edge_price[cell])
    return Explanation(
        underlying=surface.underlying,
        label=matrix.expiry_labels[place],
        expiry_ns=expiry_ns,
        strike=float(matrix.strike[cell]),
        venue=matrix.venues[matrix.venue[cell]],
        time_ns=quotes.time_ns,
        legs=tuple(legs.values()),
        leg=legs[row],
        averaged=bool(averaged),
        forward=next(
            f
            for f in forward_checks(quotes, surface.underlying)
            if f.expiry_ns == expiry_ns and f.market == layout.market_name(int(layout.market[row]))
        ),
        discount=float(quotes.venue_quotes.discount[row]),
        years=float(quotes.years[row]),
        log_moneyness=float(quotes.log_moneyness[row]),
        deviations=float(quotes.log_moneyness[row]) / deviation if deviation > 0 else math.nan,
        delta=float(quotes.delta[row]),
        vega=float(quotes.vega[row]),
        state=ThroughState(int(matrix.state[cell])),
        reason=QuoteReason(int(reason[row])),
        side=int(quotes.side[row]),
        vol=aim,
        error=error_bar(quotes, row, partner if averaged else -1),
        weight=fit_weight(surface, quotes, index, row) if is_used else 0.0,
        fitted_vol=fitted,
        standard_error=float(matrix.standard_error[cell]),
        residual=(fitted - aim) / error if is_used else math.nan,
        leverage=float(matrix.leverage[cell]),
        edge_bp=float(matrix.edge_bp[cell]),
        edge_ticks=float(matrix.edge_ticks[cell]),
        edge_se=float(matrix.edge_se[cell]),
        edge_is_bid=bid,
        fair=premium - edge if bid else premium + edge,
        fit=fit,
        fit_time_ns=surface.time_ns if smile is None else smile.time_ns,
        fit_hash="" if fit is None else slice_hash(fit),
        health=health,
        neighbours=matrix.select(lane[max(at - NEIGHBOURS, 0) : at + NEIGHBOURS + 1]),
        other_venues=matrix.select(same),
    )


def slice_hash(fit: SliceFit) -> str:
    """16 hexadecimal digits of blake2b over the five doubles, little-endian."""
    return hashlib.blake2b(struct.pack("<5d", fit.a, fit.b, fit.rho, fit.m, fit.sigma), digest_size=8).hexdigest()


def _expiry(matrix: ThroughMatrix, expiry: Expiry) -> int:
    listed = matrix.expiries
    if not len(listed):
        raise InputError(f"no expiry of {matrix.underlying} is listed")
    wanted = int(to_nanoseconds(expiry, listed))
    found = np.flatnonzero(listed == wanted)
    if not len(found):
        nearest = matrix.expiry_labels[int(np.argmin(np.abs(listed - wanted)))]
        raise InputError(
            f"{matrix.underlying} has no expiry {expiry!r}; the nearest is {nearest}, "
            f"listed are {', '.join(matrix.expiry_labels)}"
        )
    return int(found[0])


def _cell(matrix: ThroughMatrix, quotes: QuoteVols, place: int, strike: float, venue: str | None) -> int:
    mine = np.flatnonzero(matrix.expiry == place)
    if venue is not None:
        if venue not in matrix.venues:
            raise InputError(f"no venue {venue!r}; there are {', '.join(matrix.venues)}")
        mine = mine[matrix.venue[mine] == matrix.venues.index(venue)]
    if isinstance(strike, bool) or not isinstance(strike, (int, float, np.integer, np.floating)):
        raise InputError(f"a strike is a number, was {strike!r}")
    listed = np.unique(matrix.strike[mine])
    label = matrix.expiry_labels[place]
    if not len(listed):
        raise InputError(f"{venue} lists no {label} of {matrix.underlying}")
    # A strike typed by hand equals the listed one to rounding.
    nearest = listed[np.argsort(np.abs(listed - strike), kind="stable")[:3]] if math.isfinite(strike) else listed[:3]
    if not abs(nearest[0] - strike) <= 1e-9 * abs(strike):
        names = ", ".join(f"{s:,.10g}" for s in np.sort(nearest))
        raise InputError(f"{matrix.underlying} {label} has no strike {strike!r}; the nearest are {names}")
    cells = mine[matrix.strike[mine] == nearest[0]]
    half = np.where(
        matrix.state[cells] <= ThroughState.ONE_SIDED, matrix.ask_vol[cells] - matrix.bid_vol[cells], np.inf
    )
    unused = matrix.state[cells] > ThroughState.ONE_SIDED
    order = np.lexsort((np.where(np.isnan(half), 1e300, half), unused, ~matrix.is_through[cells]))
    return int(cells[order[0]])
