"""From quotes as vols to fitted, certified smiles: all expiries of all underlyings in one call of the batch fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.errors import InputError
from volsurf.instruments import FloatArray, IntArray
from volsurf.surface.quote_vols import QuoteVols
from volsurf.surface.slices import SliceFit, Smile
from volsurf.surface.surface import Surface
from volsurf.svi.certificate import Condition, Verdict
from volsurf.svi.fit import FitResult, QuoteUse, SVIFit, fit_slices

__all__ = ["SliceFit", "Smile", "build_smiles", "fit_all_smiles", "fit_smiles"]


def build_smiles(quotes: QuoteVols) -> list[Smile]:
    """The smiles of every underlying and expiry, in that order, without fits.

    An expiry nobody quotes has a smile without quotes, so that the fit can fill it in from its neighbours. One that has passed,
    or is inside its settlement window, or has no forward, has none.
    """
    drawn = np.isfinite(quotes.vol) & (quotes.reason != QuoteReason.AVERAGED) & (quotes.reason != QuoteReason.ITM_LEG)
    rows = np.flatnonzero(drawn)
    bounds = np.searchsorted(rows, quotes.expiry_start)
    columns = {
        name: getattr(quotes, name)[rows]
        for name in ("strike", "log_moneyness", "bid_vol", "ask_vol", "vol", "error", "side", "is_call", "reason")
    }
    columns["instrument_id"] = quotes.instrument_id[rows]
    over = (quotes.reason == QuoteReason.EXPIRED) | (quotes.reason == QuoteReason.EXPIRING)
    first = quotes.expiry_start[:-1]
    f = quotes.expiry_forwards
    smiles: list[Smile] = []
    for i in range(len(first)):
        if over[first[i]] or not np.isfinite(f.forward[i]):
            continue
        mine = slice(bounds[i], bounds[i + 1])
        smiles.append(
            Smile(
                underlying=quotes.underlyings[quotes.layout.underlying_id[i]],
                expiry_ns=int(quotes.layout.expiry_ns[i]),
                time_ns=quotes.time_ns,
                forward=float(f.forward[i]),
                years=float(quotes.expiry_years[i]),
                forward_source=int(f.source[i]),
                forward_error=float(f.standard_error[i]),
                mismatch_bp=float(f.mismatch_bp[i]),
                forward_flagged=bool(f.flagged[i]),
                **{name: column[mine] for name, column in columns.items()},
            )
        )
    return smiles


def fit_smiles(smiles: Sequence[Smile], previous: Surface | None = None) -> Surface:
    """The surface of the smiles of one underlying.

    Args:
        previous: the last surface, to continue from: its slices start the fit and are the centre of the priors.

    Raises:
        InputError: no smiles, smiles of more than one underlying, or none that can be fitted.
    """
    names = sorted({s.underlying for s in smiles})
    if len(names) != 1:
        raise InputError(
            f"fit_smiles fits one underlying, was {', '.join(names) or 'none'}; fit_all_smiles fits several"
        )
    surfaces = fit_all_smiles(smiles, {} if previous is None else {names[0]: previous})
    if not surfaces:
        raise InputError(f"no expiry of {names[0]} has a usable quote")
    return surfaces[names[0]]


def fit_all_smiles(smiles: Sequence[Smile], previous: Mapping[str, Surface] | None = None) -> dict[str, Surface]:
    """The surface of every underlying, by name, from one batch; an underlying of which no expiry can be fitted is left out."""
    smiles = sorted(smiles, key=lambda s: (s.underlying, s.expiry_ns))
    if not smiles:
        return {}
    fit = fit_slices(
        _joined(smiles, "log_moneyness"),
        _joined(smiles, "vol"),
        # A quote that is not used has no error bar, and so the fit leaves it alone.
        _joined(smiles, "error"),
        np.concatenate(([0], np.cumsum([len(s.strike) for s in smiles], dtype=np.int64))),
        np.array([s.years for s in smiles]),
        side=_joined(smiles, "side"),
        surface=_surface_numbers(smiles),
        key=np.arange(len(smiles)),
        previous=_continued(smiles, previous) if previous else None,
    )
    groups: dict[str, list[Smile]] = {}
    outlier = fit.use_flat == int(QuoteUse.OUTLIER)
    marked = np.diff(np.concatenate(([0], np.cumsum(outlier)))[fit.offsets]).tolist()
    for i, (smile, slice_fit) in enumerate(zip(smiles, _slice_fits(smiles, fit), strict=True)):
        reason = None
        if marked[i]:
            mine = outlier[fit.offsets[i] : fit.offsets[i + 1]]
            reason = np.where(mine, np.uint8(QuoteReason.OUTLIER), smile.reason)
        groups.setdefault(smile.underlying, []).append(smile.with_fit(slice_fit, reason))
    return {
        name: Surface(name, max(s.time_ns for s in mine), tuple(mine))
        for name, mine in groups.items()
        if any(s.fit is not None for s in mine)
    }


def _joined(smiles: Sequence[Smile], name: str) -> FloatArray:
    return np.concatenate([getattr(s, name) for s in smiles])


def _surface_numbers(smiles: Sequence[Smile]) -> IntArray:
    names = [s.underlying for s in smiles]
    return np.cumsum([a != b for a, b in zip(names, [names[0], *names], strict=False)], dtype=np.int64)


def _continued(smiles: Sequence[Smile], previous: Mapping[str, Surface]) -> SVIFit:
    """The slices of earlier surfaces as a fit to continue from, keyed by the position of the smile they belong to.

    A surface keeps the five numbers of a slice only. In the scaled coordinates of the fit any scale will do, so the variance at
    the forward is taken for it.
    """
    n = len(smiles)
    known = {(s.underlying, s.expiry_ns): s for surface in previous.values() for s in surface.smiles}
    raw, years, result = np.full((n, 5), np.nan), np.full(n, np.nan), np.full(n, FitResult.NO_DATA, np.int8)
    for i, smile in enumerate(smiles):
        last = known.get((smile.underlying, smile.expiry_ns))
        if last is not None and last.fit is not None:
            raw[i] = (last.fit.a, last.fit.b, last.fit.rho, last.fit.m, last.fit.sigma)
            years[i], result[i] = last.years, last.fit.result
    a, b, rho, m, sigma = raw.T
    theta = a + b * (np.hypot(m, sigma) - rho * m)
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(theta)
        scaled = np.column_stack(
            (a / theta, b * (1 + rho) / root, b * (1 - rho) / root, m / root, np.log(sigma / root))
        )
    result[~np.isfinite(scaled).all(axis=1)] = FitResult.NO_DATA
    nothing, positions = np.full((n, 5), np.nan), np.arange(n)
    return SVIFit(
        years=years,
        surface=_surface_numbers(smiles),
        key=positions,
        order=positions,
        offsets=np.zeros(n + 1, np.int64),
        raw=raw,
        result=result,
        iterations=np.zeros(n, np.int64),
        statistics=np.full((n, 7), np.nan),
        theta=theta,
        scaled=scaled,
        prior_centre=nothing,
        prior_precision=nothing,
        scaled_covariance=np.full((n, 5, 5), np.nan),
        residuals_flat=np.zeros(0),
        use_flat=np.zeros(0, np.int8),
    )


def _slice_fits(smiles: Sequence[Smile], fit: SVIFit) -> list[SliceFit | None]:
    """Certificates and summary of each slice; None where there was neither a quote nor a neighbour."""
    n = len(smiles)
    inside, used, two_sided = _shares(smiles, fit)
    butterfly, calendar = fit.butterfly, fit.calendar
    far = fit.calendar_pairs[1]
    verdict, condition = np.full(n, Verdict.PROVED, np.int8), np.full(n, Condition.HOLDS, np.int8)
    worst_k, worst_value = np.full(n, np.nan), np.full(n, np.nan)
    verdict[far], condition[far] = calendar.verdict, calendar.condition
    worst_k[far], worst_value[far] = calendar.worst_k, calendar.worst_value
    # In the order of SliceFit's fields, as plain numbers: one conversion a column instead of one an element.
    columns = (
        *fit.raw.T,
        fit.result,
        fit.cost,
        fit.rms,
        inside,
        fit.iterations,
        used,
        two_sided,
        fit.vol_error(0.0),
        butterfly.verdict,
        butterfly.condition,
        butterfly.worst_k,
        butterfly.worst_value,
        verdict,
        condition,
        worst_k,
        worst_value,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [SliceFit(*row) if curve else None for row, curve in zip(rows, fit.has_curve.tolist(), strict=True)]


def _shares(smiles: Sequence[Smile], fit: SVIFit) -> tuple[FloatArray, IntArray, IntArray]:
    """Per slice: share of two-sided used quotes that hold the curve, quotes used, two-sided ones of them."""
    bid, ask = _joined(smiles, "bid_vol"), _joined(smiles, "ask_vol")
    used = fit.use_flat == QuoteUse.USED
    two_sided = used & np.isfinite(bid) & np.isfinite(ask)
    with np.errstate(invalid="ignore"):
        curve = _joined(smiles, "vol") + fit.residuals_flat * _joined(smiles, "error")
        # The curve is carried through the residual, so an edge is met to rounding only.
        holds = two_sided & (curve >= bid - 1e-12) & (curve <= ask + 1e-12)
    counts = [np.diff(np.concatenate(([0], np.cumsum(mask)))[fit.offsets]) for mask in (holds, used, two_sided)]
    share = np.divide(counts[0], counts[2], out=np.full(len(smiles), np.nan), where=counts[2] > 0)
    return share, counts[1], counts[2]
