"""The health of one fitted expiry: how close it lies to its quotes, what is proved, and what was done to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics._curves import Curves, residuals
from volsurf.diagnostics.reasons import Ledger, QuoteReason
from volsurf.diagnostics.through import ThroughMatrix, ThroughState
from volsurf.diagnostics.trouble import Trouble, contradictions, is_off_quotes, off_quotes_sentence
from volsurf.instruments import FloatArray, IntArray
from volsurf.surface.slices import Smile
from volsurf.svi._published import Enforcement, Smoothed

THIN_QUOTES = 7
"""With fewer two-sided quotes a fit differs from the market's own mark by several vol points now and then."""
LOW_INSIDE = 0.9
MISFIT_RMS, MISFIT_AUTOCORRELATION, MISFIT_RUNS = 1.0, 0.4, 1 / 3
"""A smile has a shape that five parameters cannot follow where its residuals are larger than their error bars, alike from strike
to strike, and of one sign over long runs of strikes, all three: on 4,443 real slices 0.3 % were, all of them shelves."""
NOTABLE_MOVE = 25e-4
"""Vol by which enforcement or the filter may move a curve at a quote before the note says so."""

_FILTER = {
    Smoothed.OFF: "as the quotes have it",
    Smoothed.FILTERED: "smoothed over the last frames",
    Smoothed.JUMPED: "jumped: the quotes left the last curve",
}


@dataclass(frozen=True, slots=True, repr=False)
class SliceHealth:
    """One expiry. Vols and shares are decimals; what has no value is NaN, and `sentence` says why."""

    label: str
    expiry_ns: int
    ledger: Ledger
    """Over all options listed for the expiry."""
    two_sided: int
    """Quotes used that have both sides."""
    inside: float
    """Share of the two-sided quotes used that hold the curve."""
    rms: float
    """Of (fit - quote) / error bar over the used quotes."""
    autocorrelation: float
    """Of neighbouring residuals by strike: near 1 the curve has the wrong shape, near 0 the misfit is noise."""
    shape_misfit: bool
    """Five parameters are too few for this smile; with a history, for several frames on end."""
    certified: bool
    result: str
    """How the fit ended, in a sentence."""
    notes: tuple[str, ...]
    """What a trader should know before using it, in sentences; empty if there is nothing."""
    used: int = 0
    """Quotes used."""
    runs: int = 0
    """Runs of one sign of the two-sided residuals about their mean."""
    chi2: float = math.nan
    """Sum of squared residuals over (quotes used - 5); near 1 the error bars are right. NaN for five quotes or fewer."""
    cost: float = math.nan
    """Objective of the fit."""
    enforcement_cost: float = math.nan
    """Share by which the cost exceeds that of the quotes alone: the price of no arbitrage."""
    enforcement: str = ""
    """What enforcement did, in words."""
    move_bp: float = math.nan
    """Largest change of vol that enforcement and filter made at the used quotes, basis points."""
    filtered: str = ""
    """What the temporal filter did, in words."""
    guarded: bool = False
    off_quotes: bool = False
    """The curve does not follow its quotes: fewer than half of them hold it, or it is five error bars away."""
    trouble: Trouble = Trouble.NONE
    """What keeps a desk from quoting on it, the gravest that applies."""
    passes: int = 0
    """Of the fit over the quotes."""
    solver_steps: int = 0
    """Of the joint solver over the surface."""
    min_g: float = math.nan
    """Lowest Durrleman g around the smile: the room left to a butterfly arbitrage."""
    min_g_k: float = math.nan
    min_gap: float = math.nan
    """Smallest gain of total variance over the next nearer expiry; NaN for the first."""
    min_gap_k: float = math.nan
    butterfly: str = ""
    """The certificate in words."""
    calendar: str = ""
    atm_vol: float = math.nan
    atm_error: float = math.nan
    """Standard error of the vol at the forward."""
    grey: bool = False
    """Fewer than seven two-sided quotes, or a curve less certain than its quotes are wide: show it grey."""
    synthetic: bool = False
    mismatch_bp: float = math.nan
    """Parity forward over the venue's."""
    bids_through: int = 0
    asks_through: int = 0

    def __repr__(self) -> str:
        return f"SliceHealth({self.label}: {self.sentence})"

    @property
    def sentence(self) -> str:
        """The first thing to know about the expiry."""
        if self.notes:
            return self.notes[0]
        error = f" ± {1e4 * self.atm_error:.0f} bp" if math.isfinite(self.atm_error) else ""
        proof = "free of arbitrage at every strike" if self.certified else "not proved free of arbitrage"
        return f"{self.inside:.0%} of {self.two_sided} quotes hold the curve, {self.atm_vol:.2%}{error} at the forward, {proof}"


@dataclass(frozen=True, slots=True, eq=False)
class Misfit:
    """Residual statistics of the smiles of a surface, arrays of shape (smiles,)."""

    used: IntArray
    autocorrelation: FloatArray
    runs: IntArray
    chi2: FloatArray
    wrong_shape: npt.NDArray[np.bool_]
    """By this frame alone."""
    atm_vol: FloatArray
    """Of the curve at the forward; NaN without one."""


def misfit(smiles: tuple[Smile, ...]) -> Misfit:
    """Of every smile of a surface, in one pass."""
    counts = [len(s.strike) for s in smiles]
    at = np.repeat(np.arange(len(smiles)), counts)
    k, vol, error, side, reason = (
        np.concatenate([getattr(s, name) for s in smiles])
        for name in ("log_moneyness", "vol", "error", "side", "reason")
    )
    curves = Curves.of(smiles, np.array([s.expiry_ns for s in smiles], np.int64))
    u = (curves.vol(at, k) - vol) / error
    used = (reason == QuoteReason.USED) & np.isfinite(u)
    r = residuals(u[used], side[used], at[used], len(smiles))
    with np.errstate(invalid="ignore"):
        wrong = (
            (r.two_sided >= THIN_QUOTES)
            & (r.rms > MISFIT_RMS)
            & (r.autocorrelation > MISFIT_AUTOCORRELATION)
            & (r.runs < MISFIT_RUNS * r.two_sided)
        )
    chi2 = np.divide(r.squares, r.used - 5.0, out=np.full(len(smiles), np.nan), where=r.used > 5)
    atm = curves.vol(np.arange(len(smiles)), np.zeros(len(smiles)))
    return Misfit(r.used, r.autocorrelation, r.runs, chi2, np.asarray(wrong), atm)


def slice_health(
    smiles: tuple[Smile, ...], index: int, ledger: Ledger, matrix: ThroughMatrix, numbers: Misfit, *, shape_misfit: bool
) -> SliceHealth:
    """Health of smile number `index` of a surface.

    Args:
        ledger: of the expiry.
        matrix: the expiry's cells.
        numbers: of the surface's smiles.
        shape_misfit: of this smile, as far as its history bears it out.
    """
    smile = smiles[index]
    fit = smile.fit
    notes: list[str] = []
    if fit is None:
        notes.append("no quote of its own and no neighbour to take the shape from")
        if smile.forward_flagged:
            notes.append(_forward_note(smile))
        return SliceHealth(
            smile.expiry_label, smile.expiry_ns, ledger, 0, *(np.nan,) * 3, False, False, "not fitted", tuple(notes),
            mismatch_bp=smile.mismatch_bp,
        )  # fmt: skip
    bids = int((matrix.state == ThroughState.BID_THROUGH).sum())
    asks = int((matrix.state == ThroughState.ASK_THROUGH).sum())
    uncertain, off = _uncertain(matrix), is_off_quotes(fit)
    # Enforcement that doubles the misfit has pulled the curve off a smile that five parameters may well follow.
    shape_misfit = shape_misfit and not fit.cost > 2.0 * fit.fitted_cost
    if not fit.is_certified:
        notes.append(fit.failure_sentence)
    if off:
        notes += [off_quotes_sentence(fit), *contradictions(smiles, index)]
    if smile.forward_flagged:
        notes.append(_forward_note(smile))
    if fit.is_guarded:
        notes.append(
            "guarded: the quotes contradict the neighbouring expiry, so the curve is a blend with it; do not quote on it"
        )
    if fit.is_kept:
        notes.append(f"kept: {fit.sentence}")
    elif fit.is_synthetic:
        notes.append("synthetic: no usable quote, shape and level are those of the neighbouring expiries")
    elif fit.n_two_sided < THIN_QUOTES:
        count = f"{fit.n_two_sided} two-sided quote{'' if fit.n_two_sided == 1 else 's'}"
        notes.append(f"thin: {count}, so the neighbours' shape carries much of the curve")
    elif uncertain and not off:
        notes.append("grey: the curve is less certain than the quotes are wide, so it says little that they do not")
    if shape_misfit:
        notes.append(
            "the smile has a shape that five parameters cannot follow: trust the quotes, not the curve, between them"
        )
    elif fit.inside < LOW_INSIDE and not off:
        notes.append(f"only {fit.inside:.0%} of the quotes hold the curve")
    if bids or asks:
        notes.append(_through_note(matrix, bids, asks))
    if fit.enforcement == Enforcement.MOVED and fit.move > NOTABLE_MOVE:
        notes.append(f"freed of arbitrage at the price of {1e4 * fit.move:.0f} bp at the quote that moved most")
    if fit.smoothed == Smoothed.JUMPED:
        notes.append("jumped this frame: the quotes left the last curve by more than noise, and the filter let them")
    outliers = ledger.counts.get(QuoteReason.OUTLIER, 0)
    if outliers:
        notes.append(f"{outliers} quote{'s' if outliers > 1 else ''} more than six error bars off, left out")
    return SliceHealth(
        smile.expiry_label,
        smile.expiry_ns,
        ledger,
        fit.n_two_sided,
        fit.inside,
        fit.rms,
        float(numbers.autocorrelation[index]),
        shape_misfit,
        fit.is_certified,
        fit.sentence,
        tuple(notes),
        used=int(numbers.used[index]),
        runs=int(numbers.runs[index]),
        chi2=float(numbers.chi2[index]),
        cost=fit.cost,
        enforcement_cost=fit.cost / fit.fitted_cost - 1.0 if fit.fitted_cost > 0 else math.nan,
        enforcement=Enforcement(fit.enforcement).sentence,
        move_bp=1e4 * fit.move,
        filtered=_FILTER[Smoothed(fit.smoothed)],
        guarded=fit.is_guarded,
        off_quotes=off,
        trouble=Trouble.of(fit),
        passes=fit.iterations,
        solver_steps=fit.solver_steps,
        min_g=fit.butterfly_worst_value,
        min_g_k=fit.butterfly_worst_k,
        min_gap=fit.calendar_worst_value,
        min_gap_k=fit.calendar_worst_k,
        butterfly=fit.butterfly_sentence,
        calendar=fit.calendar_sentence,
        atm_vol=float(numbers.atm_vol[index]),
        atm_error=fit.atm_error,
        grey=fit.n_two_sided < THIN_QUOTES or uncertain or fit.is_kept,
        synthetic=fit.is_synthetic,
        mismatch_bp=smile.mismatch_bp,
        bids_through=bids,
        asks_through=asks,
    )


def _forward_note(smile: Smile) -> str:
    gap = "" if math.isnan(smile.mismatch_bp) else f"; parity differs from the venue by {smile.mismatch_bp:+.1f} bp"
    return f"forward: {smile.forward_sentence}{gap}"


def _uncertain(matrix: ThroughMatrix) -> bool:
    """At most of its used quotes the curve's standard error exceeds the half-spread."""
    fitted = (matrix.state <= ThroughState.ASK_THROUGH) & (matrix.side == 0)
    half, error = 0.5 * (matrix.ask_vol - matrix.bid_vol)[fitted], matrix.standard_error[fitted]
    return bool(len(half)) and bool(np.mean(error > half) > 0.5)


def _through_note(matrix: ThroughMatrix, bids: int, asks: int) -> str:
    parts = [f"{n} {name}{'s' if n > 1 else ''}" for n, name in ((bids, "bid"), (asks, "ask")) if n]
    c = int(matrix.largest_cells(1)[0])
    kind = "bid" if matrix.edge_is_bid[c] else "ask"
    ticks = f" ({matrix.edge_ticks[c]:,.1f} ticks)" if math.isfinite(matrix.edge_ticks[c]) else ""
    most = f"{kind} at {matrix.strike[c]:,.10g} by {matrix.edge_bp[c]:.0f} bp{ticks}"
    return f"{' and '.join(parts)} through the curve, most the {most}"
