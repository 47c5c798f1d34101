"""The Deribit snapshots of the validation data, read as chains, and their fits as arrays.

The chains are not part of the project: they are read from `../shared/data/real/deribit_snapshots_2026` (or under
`$VOLSURF_SHARED`), 186 snapshots of BTC and ETH.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

import volsurf as vs
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.surface.quote_vols import QuoteVols
from volsurf.surface.smile_columns import SmileColumns
from volsurf.svi.fit import Continuation, SVIFit, fit_slices

ROOT = Path(__file__).resolve().parents[2]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def real_data() -> Path:
    """Folder of the validation chains, whether it is there or not."""
    return Path(os.environ.get("VOLSURF_SHARED", ROOT.parent / "shared")) / "data" / "real"


def snapshots(count: int = 0) -> list[Path]:
    """The files in order of time, or `count` of them evenly spread; none where the validation data is not here."""
    paths = sorted((real_data() / "deribit_snapshots_2026").glob("*.csv.gz"))
    if count and paths:
        paths = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, count).astype(int))]
    return paths


def stamp(path: Path) -> str:
    """When a snapshot was taken, "20260205T155132Z"."""
    return path.name.split("_")[-1].split(".")[0]


def is_crash(path: Path) -> bool:
    """Whether it is one of the 24 snapshots of the fall of 3 to 8 February 2026."""
    return "20260203T" <= stamp(path) < "20260209T"


def read_snapshot(path: Path) -> pl.DataFrame:
    """A snapshot as a chain's table.

    The forward is the column `underlying`: `futures_price` is empty for the daily expiries of some files. The file's own years
    are of 365.25 days and its rows are not simultaneous, so the time to expiry is made anew and every row keeps its own index.
    """
    return pl.read_csv(path).select(
        underlying="currency",
        expiry="expiry_datetime",
        strike="strike",
        option_type="option_type",
        bid="bid_price",
        ask="ask_price",
        forward="underlying",
        settlement=pl.lit("inverse"),
        time="timestamp",
        venue=pl.lit("deribit"),
        mark="mark_price",
        index="index_price",
        mark_vol="implied_volatility",
    )


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A file on its way: table, chain, vols and the smiles' columns."""

    path: Path
    frame: pl.DataFrame
    chain: vs.Chain
    quotes: QuoteVols
    columns: SmileColumns

    @classmethod
    def of(cls, path: Path) -> Snapshot:
        """Read one file."""
        frame = read_snapshot(path)
        chain = vs.Chain.from_polars(frame)
        quotes = chain.quote_vols()
        return cls(path, frame, chain, quotes, SmileColumns.of(quotes))

    @property
    def mark_vol(self) -> Floats:
        """The venue's vol of every instrument of the universe."""
        vol = np.full(len(self.chain.universe), np.nan)
        made = self.chain.instrument_id >= 0
        vol[self.chain.instrument_id[made]] = self.frame["mark_vol"].to_numpy()[made]
        return vol


def fit_quotes(
    columns: SmileColumns,
    error: Floats | None = None,
    previous: SVIFit | Continuation | None = None,
    tolerance: float | None = None,
    prior_centre: Floats | None = None,
) -> SVIFit:
    """The certified fit of the smiles as arrays; `error` in place of the quotes' own withholds those that are NaN."""
    return fit_slices(
        columns.log_moneyness,
        columns.vol,
        columns.error if error is None else error,
        columns.offsets,
        columns.years,
        side=columns.side,
        surface=columns.surface,
        key=quote_keys(columns),
        previous=previous,
        enforcement_tolerance=tolerance,
        prior_centre=prior_centre,
    )


def quote_keys(columns: SmileColumns) -> npt.NDArray[np.int64]:
    """Identity of each smile from one snapshot to the next: an expiry is a whole second, so the sum is nobody else's."""
    return columns.expiry_ns + columns.surface


def slice_of(columns: SmileColumns) -> npt.NDArray[np.int64]:
    """The smile of each quote."""
    return np.repeat(np.arange(len(columns)), np.diff(columns.offsets))


def vol_at_quotes(columns: SmileColumns, raw: Floats) -> Floats:
    """Vol of (slices, 5) raw parameters at every quote."""
    i = slice_of(columns)
    a, b, rho, m, sigma = raw[i].T
    x = columns.log_moneyness - m
    return np.asarray(np.sqrt((a + b * (rho * x + np.hypot(x, sigma))) / columns.years[i]))


def two_sided(columns: SmileColumns) -> Bools:
    """Quotes with a bid and an ask that the fit may use."""
    return np.asarray((columns.side == 0) & np.isfinite(columns.error) & (columns.reason == QuoteReason.USED))
