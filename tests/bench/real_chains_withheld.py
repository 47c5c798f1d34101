"""R11 and R12: quotes that the fit has not seen.

R11 leaves out every fifth used quote by strike, five times. R12 leaves three quotes of every fourth expiry, drawn within two
standard deviations, and looks at the others within three.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.bench.figures import Row
from tests.bench.real_chains_data import Bools, Floats, Snapshot, fit_quotes, slice_of, two_sided, vol_at_quotes
from volsurf.surface.smile_columns import SmileColumns

FOLDS = 5
THIN_TO = 3


def rows(paths: Sequence[Path]) -> list[Row]:
    """Measured beside bar."""
    interior: list[Bools] = []
    outermost: list[Bools] = []
    thin_inside: list[Bools] = []
    thin_error: list[Floats] = []
    rng = np.random.default_rng(2026)
    for number, path in enumerate(paths):
        columns = Snapshot.of(path).columns
        _withhold_folds(columns, interior, outermost)
        _thin(columns, number, rng, thin_inside, thin_error)
    inner, outer, thin = (np.concatenate(pieces) for pieces in (interior, outermost, thin_inside))
    return [
        Row("R11", f"{inner.size:,} withheld quotes between others, inside, %", 100 * inner.mean(), ">=", 94.3),
        Row("R11", f"{outer.size:,} withheld of the outermost two, inside, %", 100 * outer.mean(), ">=", 79.0),
        Row("R12", f"{len(thin_inside)} expiries of 3 quotes: {thin.size:,} withheld, inside, %", 100 * thin.mean(), ">=", 79.0),
        Row("R12", "… median distance from the mid, vp", 100 * float(np.median(np.concatenate(thin_error))), "<=", 0.26),
    ]  # fmt: skip


def _rank(columns: SmileColumns, chosen: Bools) -> tuple[np.ndarray, np.ndarray]:
    """Place by strike of each chosen quote among the chosen of its expiry, and how many those are."""
    rows = np.flatnonzero(chosen)
    place = slice_of(columns)[rows]
    order = np.lexsort((columns.log_moneyness[rows], place))
    counts = np.bincount(place, minlength=len(columns))
    start = np.concatenate(([0], np.cumsum(counts)))[:-1]
    rank = np.full(len(chosen), -1)
    rank[rows[order]] = np.arange(len(rows)) - start[place[order]]
    size = np.zeros(len(chosen), np.int64)
    size[rows] = counts[place]
    return rank, size


def _inside(columns: SmileColumns, vol: Floats) -> Bools:
    return (columns.bid_vol <= vol) & (vol <= columns.ask_vol)


def _withhold_folds(columns: SmileColumns, interior: list[Bools], outermost: list[Bools]) -> None:
    chosen = two_sided(columns)
    rank, size = _rank(columns, chosen)
    is_outer = (rank < 2) | (rank >= size - 2)
    for fold in range(FOLDS):
        withheld = chosen & (rank % FOLDS == fold) & (size > FOLDS)
        fit = fit_quotes(columns, np.where(withheld, np.nan, columns.error))
        inside = _inside(columns, vol_at_quotes(columns, fit.raw))
        interior.append(inside[withheld & ~is_outer])
        outermost.append(inside[withheld & is_outer])


def _thin(
    columns: SmileColumns, number: int, rng: np.random.Generator, inside: list[Bools], error: list[Floats]
) -> None:
    chosen = two_sided(columns)
    at = slice_of(columns)
    fit = fit_quotes(columns)
    y = np.abs(columns.log_moneyness) / np.sqrt(fit.theta)[at]
    counts = np.bincount(at[chosen & (y < 3)], minlength=len(columns))
    thinned = [
        i for i in range(len(columns)) if (i + number) % 4 == 0 and counts[i] >= 12 and columns.years[i] > 1 / 365
    ]
    keep = np.isfinite(columns.error)
    for i in thinned:
        mine = np.flatnonzero((at == i) & chosen & (y < 2))
        keep[at == i] = False
        keep[rng.choice(mine, THIN_TO, replace=False)] = True
    vol = vol_at_quotes(columns, fit_quotes(columns, np.where(keep, columns.error, np.nan)).raw)
    for i in thinned:
        withheld = (at == i) & chosen & ~keep & (y < 3)
        inside.append(_inside(columns, vol)[withheld])
        error.append(np.abs(vol - columns.vol)[withheld])
