"""Fit SVI slices to implied vols, a batch at a time.

Each slice is a robust weighted least-squares fit of vols in units of their error bars, with a weak prior at the shape of the
neighbouring expiries. `fit_svi` takes what a notebook has at hand, `fit_slices` flat arrays; both run the same kernel.
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
from volsurf.svi._result import FitResult, QuoteUse, SVIFit

__all__ = ["FitResult", "QuoteUse", "SVIFit", "fit_slices", "fit_svi"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]
Ragged = npt.ArrayLike | Sequence[npt.ArrayLike]

TOLERANCE = 1e-6
"""A fit has converged when the next step promises, or the last one brought, less than this share of 1 + cost."""
MAX_PASSES = 130
"""Passes over the quotes that one minimisation may use; on 4,443 real slices none of a cold fit's two needed more."""


def fit_svi(
    k: Ragged,
    vol: Ragged,
    error: Ragged,
    *,
    years: npt.ArrayLike,
    side: Ragged | None = None,
    enforce: bool = True,
    previous: SVIFit | None = None,
    weight: Ragged | None = None,
    surface: npt.ArrayLike | None = None,
    key: npt.ArrayLike | None = None,
) -> SVIFit:
    """SVI slices fitted to implied vols.

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
        enforce: ask for a result free of arbitrage. Not yet available.
        previous: an earlier fit of the same slices, to start from and to take the neighbours' shapes from.
        weight: how many quotes each one counts for; 1 if not given.
        surface: which surface each slice belongs to; one for all if not given. Only slices of one surface are neighbours.
        key: identity of each slice (an expiry in ns, say) by which it finds itself in `previous`; its position if not given.

    Raises:
        InputError: the arrays do not fit together, or `enforce` is set.
    """
    if enforce:
        raise InputError(
            "enforce=True is not available yet: removing arbitrage from a fit arrives in a later release. "
            "Pass enforce=False; the fit carries certificates that say where it can be arbitraged."
        )
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
        columns, vols, errors, offsets, years, side=sides, weight=weights, surface=surface, key=key, previous=previous
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
    previous: SVIFit | None = None,
    prior_centre: npt.ArrayLike | None = None,
    tolerance: float = TOLERANCE,
    max_passes: int = MAX_PASSES,
) -> SVIFit:
    """`fit_svi` on flat arrays: the quotes of slice i are at offsets[i]:offsets[i+1], in any order.

    This is what an engine calls once a frame. A slice that `previous` knows starts there and costs one minimisation; a new one
    starts cold. The work is a fixed function of the input: no clock, no random numbers.

    Args:
        prior_centre: (slices, 5) scaled coordinates to use as centre of the prior in place of the neighbours' median of
            `previous`, for a caller that lets it move more slowly than frames; a row of NaN leaves that slice to the neighbours.
        tolerance, max_passes: see `TOLERANCE` and `MAX_PASSES`.

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
    times = as_reals("years", years)
    # Copies, because the fit keeps these and freezes what it keeps.
    times = np.full(slices, times) if times.ndim == 0 else _vector("years", times, np.float64, slices).copy()
    surfaces = np.zeros(slices, np.int64) if surface is None else _vector("surface", surface, np.int64, slices).copy()
    keys = np.arange(slices) if key is None else _vector("key", key, np.int64, slices).copy()
    order = np.lexsort((times, surfaces)).astype(np.int64)
    start = np.full((slices, 5), np.nan)
    start_theta = np.full(slices, np.nan)
    start_years = np.full(slices, np.nan)
    if previous is not None:
        if key is None and slices != len(previous):
            raise InputError(
                f"previous has {len(previous)} slices and this batch {slices}; give both a key to say which is which"
            )
        here, there = _match(keys, previous)
        start[here] = previous.scaled[there]
        start_theta[here] = previous.theta[there]
        start_years[here] = previous.years[there]
    centre = np.full((slices, 5), np.nan)
    if prior_centre is not None:
        centre[:] = as_reals("prior_centre", prior_centre)
    fit = SVIFit(
        years=times,
        surface=surfaces,
        key=keys,
        order=order,
        offsets=bounds,
        raw=np.full((slices, 5), np.nan),
        result=np.empty(slices, np.int8),
        iterations=np.zeros(slices, np.int64),
        statistics=np.full((slices, 7), np.nan),
        theta=np.full(slices, np.nan),
        scaled=np.full((slices, 5), np.nan),
        prior_centre=np.full((slices, 5), np.nan),
        prior_precision=np.full((slices, 5), np.nan),
        scaled_covariance=np.full((slices, 5, 5), np.nan),
        residuals_flat=np.full(count, np.nan),
        use_flat=np.empty(count, np.int8),
    )
    ensure_compiled("svi")
    fit_batch(
        quotes, vols, errors, sides, weights, bounds, times, surfaces, order, start, start_theta, start_years, centre,
        float(tolerance), int(max_passes), fit.raw, fit.theta, fit.scaled, fit.prior_centre, fit.prior_precision,
        fit.result, fit.iterations, fit.statistics, fit.scaled_covariance, fit.residuals_flat, fit.use_flat,
    )  # fmt: skip
    for array in vars(fit).values():
        array.flags.writeable = False
    return fit


def _match(keys: Ints, previous: SVIFit) -> tuple[Ints, Ints]:
    """Positions here and there of the slices that `previous` fitted to quotes and to the end."""
    known = np.flatnonzero(previous.result <= FitResult.TOO_FEW_QUOTES)
    if known.size == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    by_key = known[np.argsort(previous.key[known], kind="stable")]
    place = np.minimum(np.searchsorted(previous.key[by_key], keys), by_key.size - 1)
    found = previous.key[by_key[place]] == keys
    return np.flatnonzero(found), by_key[place[found]]


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
