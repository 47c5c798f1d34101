"""From quotes as vols to fitted, certified smiles: all expiries of all underlyings in one call of the batch fit.

The surfaces are free of arbitrage unless asked not to be. Each continues from the surface published before it: the five doubles
of each slice, exactly as published, are where the joint solver starts and what the temporal filter pulls to. An expiry that has
lost all its quotes keeps its curve for a while, see `volsurf.surface.kept_curves`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from volsurf._jit import ensure_compiled
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.errors import InputError
from volsurf.instruments import FloatArray, IntArray
from volsurf.surface.kept_curves import KEPT_NS, FitInput
from volsurf.surface.prior_centres import PriorCentres
from volsurf.surface.quote_vols import QuoteVols
from volsurf.surface.slices import SliceFit, Smile
from volsurf.surface.smile_columns import SmileColumns
from volsurf.surface.surface import Surface
from volsurf.svi.blend import certify_blends
from volsurf.svi.certificate import Condition, Verdict
from volsurf.svi.fit import Continuation, FitResult, QuoteUse, SVIFit, fit_slices

__all__ = ["SliceFit", "Smile", "after_expiry", "build_smiles", "fit_all_smiles", "fit_columns", "fit_smiles"]

SVI = "svi"

_TRIANGLE = np.triu_indices(5)
_MAXIMUM_SMOOTHING = 0.95
"""Share of the previous curve at most: frames a millisecond apart must not freeze a surface."""


def build_smiles(quotes: QuoteVols) -> list[Smile]:
    """The smiles of every underlying and expiry, in that order, without fits.

    An expiry nobody quotes has a smile without quotes, so that the fit can fill it in from its neighbours. One that has passed,
    or is inside its settlement window, or has no forward, has none.
    """
    return SmileColumns.of(quotes).smiles()


def fit_smiles(
    smiles: Sequence[Smile],
    previous: Surface | None = None,
    *,
    enforce: bool = True,
    smoothing_seconds: float = 0.0,
    model: str = SVI,
) -> Surface:
    """The surface of the smiles of one underlying, free of arbitrage unless asked not to be.

    Args:
        previous: the last surface, to continue from: its slices start the fit and are the centre of the priors.
        enforce: certified free of butterfly and calendar arbitrage at every strike; False publishes what the quotes alone give.
        smoothing_seconds: time constant of the temporal filter, in which a surface at rest forgets the previous one; 0 for none.
            A slice whose quotes have moved by more than their noise is followed at once.
        model: "svi", or "ssvi" or "essvi" for a family with three numbers an expiry, see `volsurf.surface.models`.

    Raises:
        InputError: no smiles, smiles of more than one underlying, or none that can be fitted.
    """
    names = sorted({s.underlying for s in smiles})
    if len(names) != 1:
        raise InputError(
            f"fit_smiles fits one underlying, was {', '.join(names) or 'none'}; fit_all_smiles fits several"
        )
    surfaces = fit_all_smiles(
        smiles,
        {} if previous is None else {names[0]: previous},
        enforce=enforce,
        smoothing_seconds=smoothing_seconds,
        model=model,
    )
    if not surfaces:
        raise InputError(f"no expiry of {names[0]} has a usable quote")
    return surfaces[names[0]]


def fit_all_smiles(
    smiles: Sequence[Smile],
    previous: Mapping[str, Surface] | None = None,
    *,
    enforce: bool = True,
    smoothing_seconds: float = 0.0,
    model: str = SVI,
) -> dict[str, Surface]:
    """The surface of every underlying, by name, from one batch; an underlying of which no expiry can be fitted is left out.

    Arguments as `fit_smiles`.
    """
    if not smiles:
        return {}
    columns = SmileColumns.of_smiles(smiles)
    return fit_columns(columns, previous, enforce=enforce, smoothing_seconds=smoothing_seconds, model=model)


def fit_columns(
    columns: SmileColumns,
    previous: Mapping[str, Surface] | None = None,
    *,
    enforce: bool = True,
    smoothing_seconds: float = 0.0,
    model: str = SVI,
    centres: PriorCentres | None = None,
) -> dict[str, Surface]:
    """`fit_all_smiles` on columns: what the engine calls once a frame.

    `centres` holds the centres of the priors from frame to frame; without it they are the neighbours' in `previous`.
    """
    if not 0.0 <= smoothing_seconds < math.inf:
        raise InputError(f"smoothing_seconds must be a time in seconds, 0 for no filter; was {smoothing_seconds!r}")
    previous = previous or {}
    if model != SVI:
        return _fit_model(columns, previous, model)
    if not len(columns):
        return {}
    past = _Past(columns, previous)
    held = None if centres is None else centres.of(columns)
    given = FitInput.of(columns, past.kept, past.carried, held)
    fit = fit_slices(
        given.log_moneyness,
        given.vol,
        # A quote that is not used has no error bar, and so the fit leaves it alone.
        given.error,
        given.offsets,
        columns.years,
        side=given.side,
        surface=columns.surface,
        key=np.arange(len(columns)),
        previous=past.continuation if previous else None,
        enforce=enforce,
        smoothing=past.smoothing(smoothing_seconds) if previous and smoothing_seconds > 0 else None,
        prior_centre=given.prior_centre,
    )
    if centres is not None and given.prior_centre is not None:
        centres.learn(columns, given.prior_centre, fit.prior_centre)
    outlier = given.strip(fit.use_flat == int(QuoteUse.OUTLIER))
    reason = columns.reason
    if outlier.any():
        reason = np.where(outlier, np.uint8(QuoteReason.OUTLIER), reason)
    smiles = columns.smiles(_slice_fits(columns, given, fit, past), reason)
    surfaces: dict[str, Surface] = {}
    for name in dict.fromkeys(columns.underlying):
        place = columns.of_underlying(name)
        mine = tuple(smiles[place])
        if any(s.fit is not None for s in mine):
            surfaces[name] = Surface(name, int(columns.time_ns[place].max()), mine)
    return surfaces


def after_expiry(surface: Surface, until_ns: int) -> Surface | None:
    """The surface without the expiries up to an instant, ns UTC; None where none is left.

    What is left is certified as it was: neighbours stay neighbours, and the first one has nothing nearer to cross.
    """
    left = [smile for smile in surface.smiles if smile.expiry_ns > until_ns]
    for i, smile in enumerate(left):
        if smile.fit is not None:
            left[i] = smile.with_fit(smile.fit.as_first())
            break
    return replace(surface, smiles=tuple(left)) if left else None


def _fit_model(columns: SmileColumns, previous: Mapping[str, Surface], model: str) -> dict[str, Surface]:
    from volsurf.surface.models import fit_model

    smiles = columns.smiles()
    surfaces: dict[str, Surface] = {}
    for name in dict.fromkeys(columns.underlying):
        mine = smiles[columns.of_underlying(name)]
        if any(np.isfinite(s.error).any() for s in mine):
            surfaces[name] = fit_model(mine, model, previous.get(name))
    return surfaces


class _Past:
    """What earlier surfaces say of each smile: its published curve, when it last had quotes, and whether it is to be kept."""

    def __init__(self, columns: SmileColumns, previous: Mapping[str, Surface]) -> None:
        n = len(columns)
        self.raw, self.years = np.full((n, 5), np.nan), np.full(n, np.nan)
        self.result, self.quoted_ns = np.full(n, FitResult.NO_DATA, np.int8), np.zeros(n, np.int64)
        self.elapsed_ns = np.full(n, -1, np.int64)
        self._columns = columns
        for name, surface in previous.items():
            place = columns.of_underlying(name)
            known = {s.expiry_ns: s for s in surface.smiles}
            self.elapsed_ns[place] = columns.time_ns[place] - surface.time_ns
            for i in range(place.start, place.stop):
                last = known.get(int(columns.expiry_ns[i]))
                if last is not None and (fit := last.fit) is not None:
                    self.raw[i] = fit.a, fit.b, fit.rho, fit.m, fit.sigma
                    self.years[i], self.result[i], self.quoted_ns[i] = last.years, fit.result, fit.quoted_ns
        self.kept = self._kept() if previous else np.zeros(0, np.int64)
        """Positions of the smiles whose curve is kept."""
        self.carried = self.raw[self.kept]
        """Their curves at today's years."""
        self.carried[:, :2] *= (columns.years[self.kept] / self.years[self.kept])[:, None]

    def _kept(self) -> IntArray:
        columns = self._columns
        quotes = np.concatenate(([0], np.cumsum(np.isfinite(columns.error))))[columns.offsets]
        bare = np.diff(quotes) == 0
        if not bare.any():
            return np.zeros(0, np.int64)
        age_ns = columns.time_ns - self.quoted_ns
        recent = (self.quoted_ns > 0) & (age_ns >= 0) & (age_ns <= KEPT_NS) & (columns.years > 0) & (self.years > 0)
        # Where an underlying has no quote at all there is nothing to certify its curves with: its surface stays as it is.
        alive = np.bincount(columns.surface, weights=np.diff(quotes))[columns.surface] > 0
        return np.flatnonzero(bare & recent & alive & np.isfinite(self.raw[:, 0]))

    @property
    def continuation(self) -> Continuation:
        result = self.result
        if self.kept.size:
            # It starts from its curve, whatever its last fit was called.
            result = result.copy()
            result[self.kept] = FitResult.CONVERGED
        return Continuation(np.arange(len(result)), self.years, self.raw, result)

    def smoothing(self, seconds: float) -> FloatArray:
        """Share of the previous curve, exp(-dt/tau), of each smile; none where the clock ran back or there is no past."""
        beta = np.minimum(np.exp(-np.maximum(self.elapsed_ns, 0) / (1e9 * seconds)), _MAXIMUM_SMOOTHING)
        beta[self.elapsed_ns < 0] = 0.0
        beta[self.kept] = 0.0
        return beta


def _slice_fits(columns: SmileColumns, given: FitInput, fit: SVIFit, past: _Past) -> list[SliceFit | None]:
    """Certificates and summary of each slice; None where there was neither a quote nor a neighbour."""
    n = len(columns)
    inside, used, two_sided = _shares(columns, given, fit)
    butterfly, calendar = fit.butterfly, fit.calendar
    far = fit.calendar_pairs[1]
    verdict, condition = np.full(n, Verdict.PROVED, np.int8), np.full(n, Condition.HOLDS, np.int8)
    worst_k, worst_value = np.full(n, np.nan), np.full(n, np.nan)
    verdict[far], condition[far] = calendar.verdict, calendar.condition
    worst_k[far], worst_value[far] = calendar.worst_k, calendar.worst_value
    result, rms, covariance = fit.result, fit.rms, fit.scaled_covariance[:, *_TRIANGLE]
    quoted_ns = np.where(used > 0, columns.time_ns, 0)
    if past.kept.size:
        result, rms, covariance = result.copy(), rms.copy(), covariance.copy()
        result[past.kept], rms[past.kept], covariance[past.kept] = FitResult.KEPT, np.nan, np.nan
        quoted_ns[past.kept] = past.quoted_ns[past.kept]
    atm_error = fit.vol_error(0.0)
    atm_error[past.kept] = np.nan
    known = np.isfinite(covariance[:, 0]).tolist()
    # In the order of SliceFit's fields, as plain numbers: one conversion a column instead of one an element.
    rows = zip(
        *fit.raw.T.tolist(),
        result.tolist(),
        fit.cost.tolist(),
        rms.tolist(),
        inside.tolist(),
        fit.iterations.tolist(),
        used.tolist(),
        two_sided.tolist(),
        atm_error.tolist(),
        butterfly.verdict.tolist(),
        butterfly.condition.tolist(),
        butterfly.worst_k.tolist(),
        butterfly.worst_value.tolist(),
        verdict.tolist(),
        condition.tolist(),
        worst_k.tolist(),
        worst_value.tolist(),
        fit.theta.tolist(),
        [tuple(row) if there else () for row, there in zip(covariance.tolist(), known, strict=True)],
        fit.fitted_cost.tolist(),
        fit.enforcement.tolist(),
        fit.solver_steps.tolist(),
        fit.smoothed.tolist(),
        fit.move.tolist(),
        fit.autocorrelation.tolist(),
        [SVI] * n,
        quoted_ns.tolist(),
        [()] * n,
        *_blends(columns, fit),
        strict=True,
    )
    return [SliceFit(*row) if curve else None for row, curve in zip(rows, fit.has_curve.tolist(), strict=True)]


def _blends(columns: SmileColumns, fit: SVIFit) -> tuple[list[int], list[int]]:
    """Per slice: the nearer expiry, and the verdict on the blends with it; made here so that whoever reads a surface need not."""
    begins, verdict = np.zeros(len(columns), np.int64), np.zeros(len(columns), np.int8)
    near, far = fit.calendar_pairs
    butterfly = fit.butterfly.verdict == Verdict.PROVED
    sure = butterfly[near] & butterfly[far] & (fit.calendar.verdict == Verdict.PROVED)
    near, far = near[sure], far[sure]
    if far.size:
        ensure_compiled("blend")
        begins[far] = columns.expiry_ns[near]
        # The kernel itself: the slices need not become objects first, which costs twice the proof.
        verdict[far] = certify_blends(fit.raw[near].T.copy(), fit.raw[far].T.copy())[0]
    return begins.tolist(), verdict.tolist()


def _shares(columns: SmileColumns, given: FitInput, fit: SVIFit) -> tuple[FloatArray, IntArray, IntArray]:
    """Per slice: share of two-sided used quotes that hold the curve, quotes used, two-sided ones of them."""
    bid, ask = columns.bid_vol, columns.ask_vol
    used = given.strip(fit.use_flat == int(QuoteUse.USED))
    two_sided = used & np.isfinite(bid) & np.isfinite(ask)
    with np.errstate(invalid="ignore"):
        curve = columns.vol + given.strip(fit.residuals_flat) * columns.error
        # The curve is carried through the residual, so an edge is met to rounding only.
        holds = two_sided & (curve >= bid - 1e-12) & (curve <= ask + 1e-12)
    masks: npt.NDArray[np.bool_] = np.vstack((holds, used, two_sided))
    before = np.zeros((3, len(bid) + 1), np.int64)
    np.cumsum(masks, axis=1, out=before[:, 1:])
    counts = np.diff(before[:, columns.offsets], axis=1)
    share = np.divide(counts[0], counts[2], out=np.full(len(columns), np.nan), where=counts[2] > 0)
    return share, counts[1], counts[2]
