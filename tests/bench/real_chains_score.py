"""Score fitted and enforced surfaces of real chains, quote by quote: R1 to R9, R13 and R15.

"Used" quotes are two-sided, out of the money, within 4.5 standard deviations and not wider than 100 vol points; "inside" means
bid vol <= fitted vol <= ask vol. A distance in ticks is how far the fitted price lies outside [bid, ask]. The vol of the venue's
mark is compared, never used.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

import volsurf as vs
from tests.bench.figures import Row
from tests.bench.real_chains_data import Floats, Snapshot, is_crash, read_snapshot
from volsurf.diagnostics.health import misfit
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import NANOSECONDS_PER_YEAR
from volsurf.surface.smile import fit_all_smiles

BUCKETS = ((0, 1, "< 1 d"), (1, 7, "1-7 d"), (7, 30, "7-30 d"), (30, 120, "30-120 d"), (120, np.inf, "> 120 d"))
QUOTE_COLUMNS = (
    "days", "file", "btc", "crash", "used", "inside", "raw_inside", "mark_inside", "ticks", "to_mark", "move",
    "half_spread", "cost", "raw_cost",
)  # fmt: skip
SLICE_COLUMNS = ("days", "rms", "passes", "butterfly", "calendar", "guarded", "wrong_shape")


@dataclass
class Scores:
    """Rows over all quotes, marks, slices and surfaces of some files."""

    quotes: list[Floats] = field(default_factory=list)
    """`QUOTE_COLUMNS`"""
    marks: list[Floats] = field(default_factory=list)
    """days, |vol of mark price - mark vol| in vp."""
    slices: list[Floats] = field(default_factory=list)
    """`SLICE_COLUMNS`"""
    surfaces: int = 0
    guarded: int = 0
    """Surfaces with a slice that the guard made."""
    certified: int = 0
    expiries: int = 0
    rows: int = 0
    ledger_rows: int = 0
    seconds: float = 0.0


def score(paths: Sequence[Path]) -> Scores:
    """Fit every file, with enforcement and to quotes alone, and collect the columns."""
    total = Scores()
    # Kernels compiled and tables touched once, so that the time a file takes is that of its own work.
    fit_all_smiles(vs.build_smiles(vs.Chain.from_polars(read_snapshot(paths[0])).quote_vols()))
    for number, path in enumerate(paths):
        snapshot = Snapshot.of(path)
        started = time.perf_counter()
        quotes = vs.Chain.from_polars(snapshot.frame).quote_vols()
        surfaces = fit_all_smiles(vs.build_smiles(quotes))
        total.seconds += time.perf_counter() - started
        alone = fit_all_smiles(vs.build_smiles(quotes), enforce=False)
        total.rows += len(snapshot.chain)
        total.ledger_rows += quotes.ledger().rows
        total.expiries += len(snapshot.columns)
        total.marks.append(_marks(snapshot.frame, snapshot.chain))
        for name, surface in surfaces.items():
            total.surfaces += 1
            total.certified += bool(surface.certificate)
            total.guarded += any(s.fit is not None and s.fit.is_guarded for s in surface)
            wrong = misfit(surface.smiles).wrong_shape
            for i, (smile, raw) in enumerate(zip(surface, alone[name], strict=True)):
                if smile.fit is not None:
                    _score_quotes(total, smile, raw, snapshot.mark_vol, number, crash=is_crash(path))
                    proved = smile.fit.butterfly_verdict == vs.Verdict.PROVED
                    # The first expiry of a surface is in no pair.
                    pair = np.nan if i == 0 else float(smile.fit.calendar_verdict == vs.Verdict.PROVED)
                    used, u = total.quotes[-1][:, QUOTE_COLUMNS.index("used")] == 1, total_u(smile)
                    rms = float(np.sqrt(np.mean(u[used] ** 2))) if used.any() else np.nan
                    row = (365 * smile.years, rms, smile.fit.iterations, proved, pair, smile.fit.is_guarded, wrong[i])
                    total.slices.append(np.array([row], np.float64))
    return total


def total_u(smile: vs.Smile) -> Floats:
    """(fit - mid)/half-spread of the two-sided quotes out of the money."""
    keep = _otm(smile) & (smile.side == 0)
    bid, ask = smile.bid_vol[keep], smile.ask_vol[keep]
    fit = smile.fitted_vol(smile.log_moneyness[keep])
    return np.asarray((fit - 0.5 * (bid + ask)) / np.maximum(0.5 * (ask - bid), 1e-6))


def _otm(smile: vs.Smile) -> np.ndarray:
    return np.where(smile.is_call, smile.strike >= smile.forward, smile.strike < smile.forward)


def _huber(u: Floats) -> Floats:
    size = np.abs(u)
    return np.where(size <= 1.0, 0.5 * size * size, size - 0.5)


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


def _score_quotes(
    total: Scores, smile: vs.Smile, alone: vs.Smile, mark_vol: Floats, number: int, *, crash: bool
) -> None:
    keep = _otm(smile) & (smile.side == 0)
    bid, ask, k = smile.bid_vol[keep], smile.ask_vol[keep], smile.log_moneyness[keep]
    fit, raw, reason = smile.fitted_vol(k), alone.fitted_vol(k), smile.reason[keep]
    mark = mark_vol[smile.instrument_id[keep]]
    used = (reason == QuoteReason.USED) | (reason == QuoteReason.OUTLIER)
    n = len(bid)
    edge = np.where(fit > ask, ask, np.where(fit < bid, bid, fit))
    strike, is_call = smile.strike[keep] / smile.forward, smile.is_call[keep]
    price = [vs.black_price(1.0, strike, smile.years, vol, is_call) for vol in (fit, edge)]
    counted, vol, error = reason == QuoteReason.USED, smile.vol[keep], smile.error[keep]
    with np.errstate(invalid="ignore"):
        cost, raw_cost = (np.where(counted, _huber((curve - vol) / error), 0.0) for curve in (fit, raw))
    columns = (
        np.full(n, 365 * smile.years),
        np.full(n, number),
        np.full(n, smile.underlying == "BTC"),
        np.full(n, crash),
        used,
        (bid <= fit) & (fit <= ask),
        (bid <= raw) & (raw <= ask),
        (bid - 1e-4 <= mark) & (mark <= ask + 1e-4),
        np.abs(price[0] - price[1]) / np.where(price[1] > 0.005 + 1e-12, 0.0005, 0.0001),
        100 * np.abs(fit - mark),
        1e4 * np.abs(fit - raw),
        1e4 * 0.5 * (ask - bid),
        cost,
        raw_cost,
    )
    total.quotes.append(np.column_stack(columns).astype(np.float64))


def rows(total: Scores) -> list[Row]:
    """Measured beside bar."""
    quotes, marks = np.concatenate(total.quotes), np.concatenate(total.marks)
    q = dict(zip(QUOTE_COLUMNS, quotes.T, strict=True))
    s = dict(zip(SLICE_COLUMNS, np.concatenate(total.slices).T, strict=True))
    use, btc, crash, days = q["used"] == 1, q["btc"] == 1, q["crash"] == 1, q["days"]

    def inside(where: np.ndarray, column: str = "inside") -> float:
        return 100 * float(q[column][where].mean()) if where.any() else np.nan

    files = np.unique(q["file"])
    share = np.array([inside(use & (q["file"] == i)) for i in files])
    table = [
        Row("R1", "slices certified free of butterfly arbitrage, %", 100 * float(s["butterfly"].mean()), "==", 100.0),
        Row("R1", "pairs certified free of calendar arbitrage, %", 100 * float(np.nanmean(s["calendar"])), "==", 100.0),
        Row("R1", "surfaces certified, %", 100 * total.certified / total.surfaces, "==", 100.0),
        Row("R1", "… with the guard, %", 100 * total.guarded / total.surfaces, "<=", 0.5),
        Row("R2", "used quotes inside, %", inside(use), ">=", 96.5),
    ]
    for limit, bar, label in ((0.25, 98.3, "¼ tick"), (1, 99.65, "1 tick"), (2, 99.9, "2 ticks")):
        table.append(
            Row("R2", f"… within {label}, %", 100 * float((q["ticks"][use] <= limit + 1e-9).mean()), ">=", bar)
        )
    everything = np.ones_like(use)
    mark = inside(everything, "mark_inside")
    table += [
        Row("R3", "all two-sided quotes inside, %", inside(everything), ">=", 95.5),
        Row("R3", "… over the venue's own mark, points", inside(everything) - mark, ">=", -0.5),
        Row("R3", "… the venue's own mark, %", mark),
        Row("R4", "BTC inside, %", inside(use & btc), ">=", 94.4),
        Row("R4", "ETH inside, %", inside(use & ~btc), ">=", 98.7),
        Row("R4", "worst file inside, %", float(share.min()), ">=", 91.5),
    ]
    if crash.any():
        for name, mine, bar, better in (("BTC", btc, 94.5, 8.0), ("ETH", ~btc, 99.3, 3.0)):
            where = use & crash & mine
            table.append(Row("R5", f"crash, {name} inside, %", inside(where), ">=", bar))
            over = inside(where) - inside(where, "mark_inside")
            table.append(Row("R5", "… over the mark, points", over, ">=", better))
    for (low, high, label), bar in zip(BUCKETS, (97.8, 98.0, 96.7, 95.8, 95.7), strict=True):
        table.append(Row("R6", f"inside, {label}, %", inside(use & (days >= low) & (days < high)), ">=", bar))
    table += [
        Row("R7", "rms of (fit - mid)/h over slices, median", float(np.nanmedian(s["rms"])), "<=", 0.34),
        Row("R7", "… 95th percentile", float(np.nanquantile(s["rms"], 0.95)), "<=", 0.74),
        Row("R8", "|fit - mark| median, vp", float(np.nanmedian(q["to_mark"][use])), "<=", 0.18),
        Row("R8", "… 95th percentile, vp", float(np.nanquantile(q["to_mark"][use], 0.95)), "<=", 1.3),
    ]
    for (low, high, label), bar in zip(BUCKETS, (0.67, 0.36, 0.22, 0.16, 0.11), strict=True):
        bucket = use & (days >= low) & (days < high)
        table.append(Row("R8", f"… median, {label}, vp", float(np.nanmedian(q["to_mark"][bucket])), "<=", bar))
    move = q["move"][use]
    table += [
        Row("R9", "move by enforcement at used quotes, median, bp", float(np.median(move)), "<=", 0.2),
        Row("R9", "… 95th percentile, bp", float(np.quantile(move, 0.95)), "<=", 9.0),
        Row("R9", "… 99th percentile, h", float(np.quantile(move / q["half_spread"][use], 0.99)), "<=", 0.25),
        Row("R9", "… inside lost, points", inside(use, "raw_inside") - inside(use), "<=", 0.25),
        Row("R9", "… cost of the quotes added, %", 100 * (q["cost"].sum() / q["raw_cost"].sum() - 1.0), "<=", 4.0),
        Row("R13", "|vol of mark price - mark vol|, median, vp", float(np.median(marks[:, 1])), "<=", 0.006),
        Row("R13", "… 99th percentile, vp", float(np.quantile(marks[:, 1], 0.99)), "<=", 0.30),
        Row(
            "R13",
            "… beyond 30 d, 99th percentile, vp",
            float(np.quantile(marks[marks[:, 0] > 30, 1], 0.99)),
            "<=",
            0.07,
        ),
        Row("R15", "slices with a shape that SVI has not, %", 100 * float(s["wrong_shape"].mean()), "<=", 0.5),
        Row("-", "rows without a reason in the ledger", float(total.rows - total.ledger_rows), "==", 0.0),
        Row("-", "used two-sided quotes", float(use.sum())),
        Row("-", "slices", float(len(s["rms"]))),
        Row("-", "passes of the fit, mean", float(s["passes"].mean())),
        Row("-", "milliseconds a file, from table to certified surfaces", 1e3 * total.seconds / len(files)),
    ]
    return table
