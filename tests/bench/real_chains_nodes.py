"""R10: vols at fixed deltas read off the certified surface, against the book's mids interpolated at the same strikes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import volsurf as vs
from tests.bench.figures import Row
from tests.bench.real_chains_data import Floats, Snapshot
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.surface.smile import fit_all_smiles

DAY = 1 / 365
DELTAS = np.array([0.25, -0.25, 0.10, -0.10])


def book_mid(smile: vs.Smile, k: Floats) -> tuple[Floats, Floats]:
    """Mid vol and half-spread of the used two-sided quotes at log-moneyness k, straight lines between strikes; NaN outside them.

    Around the forward a strike's mid is that of its call and its put together, as the market's is.
    """
    keep = (smile.side == 0) & ((smile.reason == QuoteReason.USED) | (smile.reason == QuoteReason.OUTLIER))
    keep &= np.isfinite(smile.bid_vol) & np.isfinite(smile.ask_vol)
    order = np.argsort(smile.log_moneyness[keep], kind="stable")
    x = smile.log_moneyness[keep][order]
    bid, ask = smile.bid_vol[keep][order], smile.ask_vol[keep][order]
    if x.size < 2:
        nothing = np.full(np.shape(k), np.nan)
        return nothing, nothing
    mid = np.interp(k, x, smile.vol[keep][order], left=np.nan, right=np.nan)
    return mid, np.interp(k, x, 0.5 * (ask - bid), left=np.nan, right=np.nan)


def node_places(surface: vs.Surface) -> Floats:
    """Log-moneyness of the forward, 25C, 25P, 10C and 10P of every fitted expiry beyond a day, a row of NaN for the others."""
    from volsurf.surface.delta import delta_log_moneyness

    places = np.full((len(surface), 5), np.nan)
    for i in surface.fitted:
        if surface.years[i] >= DAY:
            at = np.full(len(DELTAS), surface.years[i])
            places[i] = np.concatenate(([0.0], delta_log_moneyness(surface, DELTAS, at, False)))
    return places


def combinations(vol: Floats) -> Floats:
    """ATM, RR25, BF25 and RR10 of rows of vols at `node_places`."""
    atm, c25, p25, c10, p10 = vol.T
    return np.column_stack((atm, c25 - p25, 0.5 * (c25 + p25) - atm, c10 - p10))


def rows(paths: Sequence[Path]) -> list[Row]:
    """Measured beside bar."""
    ours, marks = [], []
    for path in paths:
        snapshot = Snapshot.of(path)
        for surface in fit_all_smiles(vs.build_smiles(snapshot.quotes)).values():
            places = node_places(surface)
            for smile, k in zip(surface, places, strict=True):
                if np.isnan(k[0]):
                    continue
                mid, _ = book_mid(smile, k)
                mark = _mark_at(smile, snapshot.mark_vol, k)
                book = combinations(mid[None, :])
                ours.append(combinations(smile.fitted_vol(k)[None, :]) - book)
                marks.append(combinations(mark[None, :]) - book)
    away, mark_away = 100 * np.abs(np.concatenate(ours)), 100 * np.abs(np.concatenate(marks))
    table = []
    bars = ((0.12, 0.60), (0.19, 0.80), (0.16, 0.65), (np.nan, np.nan))
    for column, (name, (median, p95)) in enumerate(zip(("ATM", "RR25", "BF25", "RR10"), bars, strict=True)):
        mine = away[:, column][np.isfinite(away[:, column])]
        mark = mark_away[:, column][np.isfinite(mark_away[:, column])]
        table += [
            Row(
                "R10",
                f"{name} off the book's mids, T >= 1 d, {mine.size:,} slices, median, vp",
                np.median(mine),
                "<=",
                median,
            ),
            Row("R10", "… 95th percentile, vp", np.quantile(mine, 0.95), "<=", p95),
            Row("R10", "… the venue's own mark, 95th percentile, vp", np.quantile(mark, 0.95)),
        ]
    return table


def _mark_at(smile: vs.Smile, mark_vol: Floats, k: Floats) -> Floats:
    """The mark's vol at k, straight lines between the used strikes."""
    mark = mark_vol[smile.instrument_id]
    keep = np.isfinite(mark) & np.isfinite(smile.error)
    order = np.argsort(smile.log_moneyness[keep], kind="stable")
    if keep.sum() < 2:
        return np.full(k.shape, np.nan)
    return np.interp(k, smile.log_moneyness[keep][order], mark[keep][order], left=np.nan, right=np.nan)
