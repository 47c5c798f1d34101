"""Fit SVI slices to implied vols, a batch at a time.

Each slice is a robust weighted least-squares fit of vols in units of their error bars, with a weak prior at the shape of the
neighbouring expiries. Unless they are asked not to, all slices of a surface are then moved together, as little as their quotes
allow, until every one is proved free of butterfly and every pair of calendar arbitrage. `fit_svi` takes what a notebook has at
hand, `fit_slices` flat arrays; both run the same kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from volsurf._arguments import as_reals
from volsurf._jit import ensure_compiled
from volsurf.errors import InputError
from volsurf.svi._batch import fit_batch
from volsurf.svi._enforce import enforce_batch
from volsurf.svi._prepare import LANE
from volsurf.svi._published import Continuation, Enforcement, Smoothed
from volsurf.svi._result import FitResult, QuoteUse, SVIFit

__all__ = ["Continuation", "Enforcement", "FitResult", "QuoteUse", "SVIFit", "Smoothed", "fit_slices", "fit_svi"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]
Ragged = npt.ArrayLike | Sequence[npt.ArrayLike]

TOLERANCE = 1e-6
"""A fit has converged when the next step promises, or the last one brought, less than this share of 1 + cost."""
MAX_PASSES = 130
"""Passes over the quotes that one minimisation may use; on 4,443 real slices none of a cold fit's two needed more."""
FRESH_YEARS = 600 / 31_536_000
"""Ten minutes. An older curve is no start and no prior centre: after hours the market's shape is found sooner afresh."""
COLD_TOLERANCE = 2e-4
"""Of the joint solver on a surface without a past, and right for a snapshot that is kept."""
LIVE_TOLERANCE = 5e-4
"""Of the joint solver on a surface that continues the last frame's, and will be continued by the next."""


def fit_svi(
    k: Ragged,
    vol: Ragged,
    error: Ragged,
    *,
    years: npt.ArrayLike,
    side: Ragged | None = None,
    enforce: bool = True,
    previous: SVIFit | Continuation | None = None,
    weight: Ragged | None = None,
    surface: npt.ArrayLike | None = None,
    key: npt.ArrayLike | None = None,
    smoothing: npt.ArrayLike | None = None,
) -> SVIFit:
    """SVI slices fitted to implied vols, free of arbitrage unless asked not to be.

    Quotes are given as a list with one 1-D array for each slice, as a 2-D array with one row for each (padded with NaN), or as a
    1-D array for a single slice. A bad quote or slice raises nothing: it carries its reason in `use` or `result`, and the others
    are fitted without it.

    Args:
        k: log-moneyness ln(K/F) of each quote.
        vol: implied vol of each quote, the mid of a two-sided one, the bid or ask of a one-sided one; decimals.
        error: error bar of each vol, at least its half-spread, in vol; a scalar is one for all.
        years: time to expiry of each slice.
        side: −1 bid-only, 0 two-sided, +1 ask-only. A bid-only quote pulls only on a curve below it, an ask-only one only on a
            curve above it.
        enforce: publish curves that are proved free of butterfly arbitrage each, and of calendar arbitrage across the slices of
            one surface in order of expiry, at every log-moneyness. A surface whose fits are certified as they stand is left as it
            is, bit for bit; the slices of another move together, as little as their quotes allow. `enforcement` says what was
            done to each and `move` by how much; the fit to quotes alone stays in `fitted_raw`. False publishes that.
        previous: an earlier fit of the same slices (or its `continuation`), to start from and to take the neighbours' shapes
            from; a slice whose time to expiry has changed by more than ten minutes since starts afresh.
        weight: how many quotes each one counts for; 1 if not given.
        surface: which surface each slice belongs to; one for all if not given. Only slices of one surface are neighbours, and
            only they must not cross.
        key: identity of each slice (an expiry in ns, say) by which it finds itself in `previous`; its position if not given.
        smoothing: β of the temporal filter, see `fit_slices`.

    Raises:
        InputError: the arrays do not fit together.
    """
    columns, offsets = _flatten("k", k)
    vols = _matching("vol", vol, offsets)
    errors = _matching("error", error, offsets)
    sides = None if side is None else _matching("side", side, offsets)
    weights = None if weight is None else _matching("weight", weight, offsets)
    if sides is not None:
        sides = np.where(np.isnan(sides), 0.0, sides)
        if not np.isin(sides, (-1.0, 0.0, 1.0)).all():
            raise InputError("side holds a value that is not -1 (bid-only), 0 (two-sided) or +1 (ask-only)")
    return fit_slices(
        columns, vols, errors, offsets, years, side=sides, weight=weights, surface=surface, key=key, previous=previous,
        enforce=enforce, smoothing=smoothing,
    )  # fmt: skip


def fit_slices(
    k: npt.ArrayLike,
    vol: npt.ArrayLike,
    error: npt.ArrayLike,
    offsets: npt.ArrayLike,
    years: npt.ArrayLike,
    *,
    side: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    surface: npt.ArrayLike | None = None,
    key: npt.ArrayLike | None = None,
    previous: SVIFit | Continuation | None = None,
    enforce: bool = True,
    smoothing: npt.ArrayLike | None = None,
    prior_centre: npt.ArrayLike | None = None,
    tolerance: float = TOLERANCE,
    max_passes: int = MAX_PASSES,
    enforcement_tolerance: float | None = None,
) -> SVIFit:
    """`fit_svi` on flat arrays: the quotes of slice i are at offsets[i]:offsets[i+1], in any order.

    This is what an engine calls once a frame. A slice that `previous` knows starts there and costs one minimisation; a new one
    starts cold. Enforcement continues from the published curves of `previous`. The work is a fixed function of the input: no
    clock, no random numbers.

    Args:
        smoothing: β in [0, 1) of each slice, or one for all: the share of the previous curve in a filter at rest, e^(−Δt/τ) for a
            filter of time constant τ. The previous published curve, carried to today's years at the same vols, enters as nine
            pseudo-quotes in vol with the variance that this share asks for. A slice whose quotes have moved by more than their
            noise explains takes no notice of it this once (`smoothed` says so). 0 is off.
        prior_centre: (slices, 5) scaled coordinates to use as centre of the prior in place of the neighbours' median of
            `previous`, for a caller that lets it move more slowly than frames; a row of NaN leaves that slice to the neighbours.
        tolerance, max_passes: see `TOLERANCE` and `MAX_PASSES`.
        enforcement_tolerance: the joint solver stops when a step improves a surface by less than this share of 1 + its cost;
            `COLD_TOLERANCE` for a surface that starts, `LIVE_TOLERANCE` for one that continues, if not given.

    Raises:
        InputError: the arrays do not fit together.
    """
    quotes = _vector("k", k, np.float64)
    bounds = _vector("offsets", offsets, np.int64).copy()
    if bounds.size < 1 or bounds[0] != 0 or bounds[-1] != quotes.size or np.any(np.diff(bounds) < 0):
        raise InputError(f"offsets must rise from 0 to the number of quotes, {quotes.size}; they were {bounds}")
    slices = bounds.size - 1
    count = quotes.size
    vols = _vector("vol", vol, np.float64, count)
    errors = _vector("error", error, np.float64, count)
    sides = np.zeros(count, np.int8) if side is None else _vector("side", side, np.int8, count)
    weights = np.ones(count) if weight is None else _vector("weight", weight, np.float64, count)
    # Copies, because the fit keeps these and freezes what it keeps.
    times = _per_slice("years", years, slices)
    surfaces = np.zeros(slices, np.int64) if surface is None else _vector("surface", surface, np.int64, slices).copy()
    keys = np.arange(slices) if key is None else _vector("key", key, np.int64, slices).copy()
    order = np.lexsort((times, surfaces)).astype(np.int64)
    beta = np.zeros(slices) if smoothing is None else _per_slice("smoothing", smoothing, slices)
    if not np.all((beta >= 0.0) & (beta < 1.0)):
        raise InputError(f"smoothing must be at least 0 and below 1, was {beta}")
    for name, share in (("tolerance", tolerance), ("enforcement_tolerance", enforcement_tolerance)):
        if share is not None and not share > 0.0:
            raise InputError(f"{name} must be above 0, was {share}")
    published, carried, warm = _carry(keys, times, previous, match_by_position=key is None)
    centre = np.full((slices, 5), np.nan)
    if prior_centre is not None:
        given = as_reals("prior_centre", prior_centre)
        if given.shape != centre.shape:
            raise InputError(f"prior_centre must be of shape {centre.shape}, was of shape {given.shape}")
        centre[:] = given
    fit = SVIFit(
        years=times,
        surface=surfaces,
        key=keys,
        order=order,
        offsets=bounds,
        raw=np.full((slices, 5), np.nan),
        result=np.empty(slices, np.int8),
        iterations=np.zeros(slices, np.int64),
        statistics=np.full((slices, 8), np.nan),
        theta=np.full(slices, np.nan),
        scaled=np.full((slices, 5), np.nan),
        prior_centre=np.full((slices, 5), np.nan),
        prior_precision=np.full((slices, 5), np.nan),
        scaled_covariance=np.full((slices, 5, 5), np.nan),
        residuals_flat=np.full(count, np.nan),
        use_flat=np.empty(count, np.int8),
        fitted_raw=np.full((slices, 5), np.nan),
        fitted_scaled=np.full((slices, 5), np.nan),
        fitted_cost=np.full(slices, np.nan),
        enforcement=np.zeros(slices, np.int8),
        smoothed=np.zeros(slices, np.int8),
        solver_steps=np.zeros(slices, np.int64),
        move=np.full(slices, np.nan),
    )
    blocks = np.zeros(slices + 1, np.int64)
    np.cumsum((np.diff(bounds) + LANE - 1) // LANE * LANE, out=blocks[1:])
    workspace, rows = np.empty(5 * int(blocks[-1])), np.empty(count, np.int64)
    counts, two_sided = np.zeros(slices, np.int64), np.zeros(slices)
    ensure_compiled("svi")
    fit_batch(
        quotes, vols, errors, sides, weights, bounds, times, surfaces, order, carried, warm, centre, float(tolerance),
        int(max_passes), blocks, workspace, rows, counts, two_sided, fit.fitted_raw, fit.theta, fit.fitted_scaled,
        fit.prior_centre, fit.prior_precision, fit.result, fit.iterations, fit.statistics, fit.scaled_covariance,
        fit.residuals_flat, fit.use_flat,
    )  # fmt: skip
    fit.raw[:] = fit.fitted_raw
    fit.scaled[:] = fit.fitted_scaled
    fit.fitted_cost[:] = fit.statistics[:, 0]
    if enforce or beta.any():
        cold, live = (enforcement_tolerance or preset for preset in (COLD_TOLERANCE, LIVE_TOLERANCE))
        ensure_compiled("enforce")
        enforce_batch(
            order, surfaces, times, bounds, counts, rows, two_sided, blocks, workspace, fit.theta, fit.prior_centre,
            fit.prior_precision, fit.scaled_covariance, fit.fitted_raw, fit.fitted_scaled, published, beta, bool(enforce),
            float(cold), float(live), fit.statistics, fit.residuals_flat, fit.raw, fit.scaled, fit.enforcement,
            fit.smoothed, fit.solver_steps, fit.move,
        )  # fmt: skip
    else:
        fit.move[np.isfinite(fit.raw[:, 0])] = 0.0
    for array in vars(fit).values():
        array.flags.writeable = False
    return fit


def _carry(
    keys: Ints, years: Floats, previous: SVIFit | Continuation | None, *, match_by_position: bool
) -> tuple[Floats, Floats, Bytes]:
    """The published and the fitted curves of `previous` at today's years, and which of the fitted ones are good to start from.

    The same vols at the same log-moneyness: total variance, hence a and b, is proportional to time.
    """
    slices = keys.size
    published, fitted, warm = np.full((slices, 5), np.nan), np.full((slices, 5), np.nan), np.zeros(slices, np.int8)
    if previous is None:
        return published, fitted, warm
    last = previous.continuation if isinstance(previous, SVIFit) else previous
    if match_by_position and slices != len(last):
        raise InputError(
            f"previous has {len(last)} slices and this batch {slices}; give both a key to say which is which"
        )
    known = np.flatnonzero(np.isfinite(last.raw).all(axis=1) & (last.years > 0.0))
    if known.size == 0:
        return published, fitted, warm
    by_key = known[np.argsort(last.key[known], kind="stable")]
    place = np.minimum(np.searchsorted(last.key[by_key], keys), by_key.size - 1)
    there = by_key[place]
    here = np.flatnonzero((last.key[there] == keys) & (np.abs(last.years[there] - years) <= FRESH_YEARS))
    there = there[here]
    ratio = years[here] / last.years[there]
    for source, target in ((last.raw, published), (last.raw if last.fitted_raw is None else last.fitted_raw, fitted)):
        target[here] = source[there]
        target[here, :2] *= ratio[:, None]
    warm[here] = (last.result[there] <= FitResult.TOO_FEW_QUOTES) & np.isfinite(fitted[here]).all(axis=1)
    return published, fitted, warm


def _per_slice(name: str, value: npt.ArrayLike, slices: int) -> Floats:
    """A fresh array with one number a slice, of an array or of one number for all."""
    array = as_reals(name, value)
    return np.full(slices, array) if array.ndim == 0 else _vector(name, value, np.float64, slices).copy()


def _vector(name: str, value: npt.ArrayLike, dtype: Any, size: int | None = None) -> npt.NDArray[Any]:
    """A contiguous 1-D array of the caller's numbers."""
    if dtype is np.float64:
        array: npt.NDArray[Any] = np.ascontiguousarray(as_reals(name, value))
    else:
        try:
            with np.errstate(invalid="ignore"):
                array = np.ascontiguousarray(value, dtype=dtype)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} must hold numbers only: {error}") from error
        if np.asarray(value).dtype.kind == "f" and not np.array_equal(array, value):
            raise InputError(f"{name} must hold whole numbers only")
    if array.ndim != 1 or (size is not None and array.size != size):
        expected = "one-dimensional" if size is None else f"of shape ({size},)"
        raise InputError(f"{name} must be {expected}, was of shape {array.shape}")
    # numba would compile the kernel afresh, for 10 s, for an array that is read-only, as polars hands them out.
    return array if array.flags.writeable else array.copy()


def _flatten(name: str, value: Ragged) -> tuple[Floats, Ints]:
    """All quotes in one array, and the offsets of the slices."""
    if isinstance(value, list | tuple) and any(isinstance(piece, list | tuple) or np.ndim(piece) for piece in value):
        pieces = [as_reals(name, cast("npt.ArrayLike", piece)) for piece in value]
    else:
        array = as_reals(name, cast("npt.ArrayLike", value))
        pieces = list(array) if array.ndim == 2 else [array] if array.size or array.ndim != 1 else []
    for piece in pieces:
        if piece.ndim != 1:
            raise InputError(
                f"{name} must be a list of 1-D arrays, a 2-D or a 1-D array; found one of {piece.ndim} dimensions"
            )
    offsets = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum([piece.size for piece in pieces], out=offsets[1:])
    return np.concatenate(pieces) if pieces else np.empty(0), offsets


def _matching(name: str, value: Ragged, offsets: Ints) -> Floats:
    """`value` flattened, which must have the slices of k; a scalar is repeated."""
    if not isinstance(value, list | tuple) and np.ndim(cast("npt.ArrayLike", value)) == 0:
        return np.full(int(offsets[-1]), as_reals(name, cast("npt.ArrayLike", value))[()])
    flat, own = _flatten(name, value)
    if not np.array_equal(own, offsets):
        raise InputError(f"{name} has {np.diff(own).tolist()} quotes in its slices, k has {np.diff(offsets).tolist()}")
    return flat
