"""Score the pipeline, before enforcement, on real Deribit chains against the bars set on the same files.

    python -m tests.bench.real_chains [--files N] [--json]

The chains are not part of the project: they are read from `../shared/data/real/deribit_snapshots_2026` (or under
`$VOLSURF_SHARED`), 186 snapshots of BTC and ETH. "Used" quotes are two-sided, out of the money, within 4.5 standard deviations
and not wider than 100 vol points; "inside" means bid vol <= fitted vol <= ask vol. A distance in ticks is how far the fitted
price lies outside [bid, ask]. The vol of the venue's mark is compared, never used.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

import volsurf as vs
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import NANOSECONDS_PER_YEAR
from volsurf.surface.smile import fit_all_smiles

ROOT = Path(__file__).resolve().parents[2]
BUCKETS = ((0, 1, "< 1 d"), (1, 7, "1-7 d"), (7, 30, "7-30 d"), (30, 120, "30-120 d"), (120, np.inf, "> 120 d"))
Floats = npt.NDArray[np.float64]


def snapshots() -> list[Path]:
    """The files, in order of time; none where the validation data is not here."""
    base = Path(os.environ.get("VOLSURF_SHARED", ROOT.parent / "shared"))
    return sorted((base / "data" / "real" / "deribit_snapshots_2026").glob("*.csv.gz"))


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


@dataclass
class Scores:
    """Columns over all quotes, marks and slices of some files."""

    quotes: list[Floats]
    """days, file, is_btc, used, inside, mark inside, ticks outside, |fit - mark| vp."""
    marks: list[Floats]
    """days, |vol of mark price - mark vol| in vp."""
    slices: list[Floats]
    """days, rms of (fit - mid)/h, passes, butterfly proved, calendar proved."""
    surfaces: int = 0
    expiries: int = 0
    fitted: int = 0
    rows: int = 0
    ledger_rows: int = 0
    seconds: float = 0.0


def score(paths: Iterable[Path]) -> Scores:
    """Fit every file and collect the columns."""
    total = Scores([], [], [])
    # Kernels compiled and tables touched once, so that the time a file takes is that of its own work.
    fit_all_smiles(vs.build_smiles(vs.Chain.from_polars(read_snapshot(snapshots()[0])).quote_vols()))
    for number, path in enumerate(paths):
        frame = read_snapshot(path)
        started = time.perf_counter()
        chain = vs.Chain.from_polars(frame)
        quotes = chain.quote_vols()
        surfaces = fit_all_smiles(vs.build_smiles(quotes))
        total.seconds += time.perf_counter() - started
        total.rows += len(chain)
        total.ledger_rows += quotes.ledger().rows
        total.surfaces += len(surfaces)
        total.expiries += len(quotes.forwards)
        total.marks.append(_marks(frame, chain))
        mark_vol = np.full(len(chain.universe), np.nan)
        made = chain.instrument_id >= 0
        mark_vol[chain.instrument_id[made]] = frame["mark_vol"].to_numpy()[made]
        for surface in surfaces.values():
            for place, smile in enumerate(surface.smiles):
                if smile.fit is not None:
                    total.fitted += 1
                    _score_smile(total, smile, mark_vol, number, is_first=place == 0)
    return total


def _marks(frame: pl.DataFrame, chain: vs.Chain) -> Floats:
    forward, strike = frame["forward"].to_numpy(), frame["strike"].to_numpy()
    is_call = (frame["option_type"] == "call").to_numpy()
    expiry = frame["expiry"].str.to_datetime(time_zone="UTC", time_unit="ns").cast(pl.Int64).to_numpy()
    years = (expiry - chain.time_ns) / NANOSECONDS_PER_YEAR
    mark_vol = frame["mark_vol"].to_numpy()
    k = np.log(strike / forward)
    with np.errstate(invalid="ignore"):
        keep = (np.where(is_call, strike >= forward, strike < forward)) & (np.abs(k) < 3 * mark_vol * np.sqrt(years))
    vol = vs.implied_vol(frame["mark"].to_numpy()[keep], 1.0, (strike / forward)[keep], years[keep], is_call[keep])
    return np.column_stack((365 * years[keep], 100 * np.abs(vol - mark_vol[keep])))


def _score_smile(total: Scores, smile: vs.Smile, mark_vol: Floats, number: int, *, is_first: bool) -> None:
    otm = np.where(smile.is_call, smile.strike >= smile.forward, smile.strike < smile.forward)
    keep = otm & (smile.side == 0)
    bid, ask = smile.bid_vol[keep], smile.ask_vol[keep]
    fit, reason = smile.fitted_vol(smile.log_moneyness[keep]), smile.reason[keep]
    mark = mark_vol[smile.instrument_id[keep]]
    used = (reason == QuoteReason.USED) | (reason == QuoteReason.OUTLIER)
    n = len(bid)
    edge = np.where(fit > ask, ask, np.where(fit < bid, bid, fit))
    strike, is_call = smile.strike[keep] / smile.forward, smile.is_call[keep]
    price = [vs.black_price(1.0, strike, smile.years, vol, is_call) for vol in (fit, edge)]
    ticks = np.abs(price[0] - price[1]) / np.where(price[1] > 0.005 + 1e-12, 0.0005, 0.0001)
    days = 365 * smile.years
    columns = (
        np.full(n, days),
        np.full(n, number),
        np.full(n, smile.underlying == "BTC"),
        used,
        (bid <= fit) & (fit <= ask),
        (bid - 1e-4 <= mark) & (mark <= ask + 1e-4),
        ticks,
        100 * np.abs(fit - mark),
    )
    total.quotes.append(np.column_stack(columns).astype(np.float64))
    u = ((fit - 0.5 * (bid + ask)) / np.maximum(0.5 * (ask - bid), 1e-6))[used]
    assert smile.fit is not None
    rms = float(np.sqrt((u**2).mean())) if len(u) else np.nan
    # The first expiry of a surface is in no pair.
    pair = np.nan if is_first else float(smile.fit.calendar_verdict == vs.Verdict.PROVED)
    proved = (float(smile.fit.butterfly_verdict == vs.Verdict.PROVED), pair)
    total.slices.append(np.array([[days, rms, smile.fit.iterations, *proved]], np.float64))


Row = tuple[str, str, float, str, float]
"""Bar, what, measured, ">=" or "<=", the bar itself (NaN: for information)."""


def table(total: Scores) -> list[Row]:
    """Measured beside bar."""
    quotes, marks, slices = np.concatenate(total.quotes), np.concatenate(total.marks), np.concatenate(total.slices)
    days, number, btc, used, inside, mark_inside, ticks, to_mark = quotes.T
    use, nan = used == 1, np.nan
    shares = np.array([inside[use & (number == i)].mean() for i in np.unique(number)])
    rows: list[Row] = [
        ("R13", "|vol of mark price - mark vol|, median, vp", float(np.median(marks[:, 1])), "<=", 0.006),
        ("R13", "… 99th percentile, vp", float(np.quantile(marks[:, 1], 0.99)), "<=", 0.30),
        ("R13", "… beyond 30 d, 99th percentile, vp", float(np.quantile(marks[marks[:, 0] > 30, 1], 0.99)), "<=", 0.07),
        ("R2", "used quotes inside, %", 100 * inside[use].mean(), ">=", 96.5),
    ]
    for limit, bar, label in ((0.25, 98.3, "¼ tick"), (1, 99.65, "1 tick"), (2, 99.9, "2 ticks")):
        rows.append(("R2", f"… within {label}, %", 100 * (ticks[use] <= limit + 1e-9).mean(), ">=", bar))
    for (low, high, label), bar in zip(BUCKETS, (97.8, 98.0, 96.7, 95.8, 95.7), strict=True):
        rows.append(("R6", f"inside, {label}, %", 100 * inside[use & (days >= low) & (days < high)].mean(), ">=", bar))
    rows.append(("R8", "|fit - mark| median, vp", float(np.median(to_mark[use])), "<=", 0.18))
    rows.append(("R8", "… 95th percentile, vp", float(np.quantile(to_mark[use], 0.95)), "<=", 1.3))
    for (low, high, label), bar in zip(BUCKETS, (0.67, 0.36, 0.22, 0.16, 0.11), strict=True):
        bucket = use & (days >= low) & (days < high)
        rows.append(("R8", f"… median, {label}, vp", float(np.median(to_mark[bucket])), "<=", bar))
    mark_bar = 100 * mark_inside.mean() - 0.5
    rows += [
        ("R3", "all two-sided quotes inside, %", 100 * inside.mean(), ">=", max(95.5, mark_bar)),
        ("R3", "… the venue's own mark, %", 100 * mark_inside.mean(), ">=", nan),
        ("R4", "BTC inside, %", 100 * inside[use & (btc == 1)].mean(), ">=", 94.4),
        ("R4", "ETH inside, %", 100 * inside[use & (btc == 0)].mean(), ">=", 98.7),
        ("R4", "worst file inside, %", 100 * float(shares.min()), ">=", 91.5),
        ("R7", "rms of (fit - mid)/h over slices, median", float(np.nanmedian(slices[:, 1])), "<=", 0.34),
        ("R7", "… 95th percentile", float(np.nanquantile(slices[:, 1], 0.95)), "<=", 0.74),
        ("-", "slices free of butterfly arbitrage, %", 100 * slices[:, 3].mean(), ">=", nan),
        ("-", "pairs free of calendar arbitrage, %", 100 * float(np.nanmean(slices[:, 4])), ">=", nan),
        ("-", "expiries fitted, %", 100 * total.fitted / total.expiries, ">=", nan),
        ("-", "used two-sided quotes", float(use.sum()), ">=", nan),
        ("-", "passes of the fit, mean", float(slices[:, 2].mean()), ">=", nan),
        ("-", "milliseconds a file, from table to certified surfaces", 1e3 * total.seconds / len(shares), ">=", nan),
    ]
    return rows


def holds(row: Row) -> bool | None:
    """Whether a row meets its bar; None where it has none."""
    _, _, value, sense, bar = row
    return None if np.isnan(bar) else bool(value >= bar if sense == ">=" else value <= bar)


def main() -> int:
    """Print the table; 1 if a bar of R13, R2, R6 or R8 is missed or the ledger does not balance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=0, help="only N files, evenly spread")
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    args = parser.parse_args()
    paths = snapshots()
    if not paths:
        print("no snapshots found; set VOLSURF_SHARED", file=sys.stderr)
        return 2
    if args.files:
        paths = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, args.files).astype(int))]
    total = score(paths)
    rows = table(total)
    print(f"{len(paths)} files, {total.surfaces} surfaces, {total.fitted} slices, {total.rows:,} rows")
    print(f"{'':4} {'':58} {'measured':>10} {'bar':>10}")
    for row in rows:
        name, what, value, sense, bar = row
        verdict = {True: "ok", False: "MISSED", None: ""}[holds(row)]
        limit = "" if np.isnan(bar) else f"{sense} {bar:.4g}"
        print(f"{name:4} {what:58} {value:10.4f} {limit:>10}  {verdict}")
    missed = [f"{r[0]} {r[1]}" for r in rows if r[0] in ("R13", "R2", "R6", "R8") and holds(r) is False]
    if args.json:
        values = {f"{r[0]} {r[1]}": round(r[2], 5) for r in rows}
        print(json.dumps({"files": len(paths), "missed": missed, **values}))
    return 1 if missed or total.rows != total.ledger_rows else 0


if __name__ == "__main__":
    sys.exit(main())
