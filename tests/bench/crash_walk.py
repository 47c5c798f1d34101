"""R14: the fall of 3 to 8 February 2026 walked as a time series, 24 snapshots about six hours apart.

    python -m tests.bench.crash_walk [--json]

A line for each snapshot and underlying: vol, risk reversal and butterfly (25 delta) of the certified surface at 30 days, the
book's own vol there, how far the fit's change at the forward since the last snapshot lies from the change of the book's mid
over the listed expiries, and how far a surface that continues from the last snapshot's lies from one that starts cold, at the
quotes. Both are certified, at the solver's tolerance for stored snapshots, 2e-4. The fit itself takes nothing from curves older
than ten minutes; so that the walk says something about where the solver ends, the last curves are handed to it as if fresh,
with the cold fit's own prior, that is with the same objective.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass

import numpy as np

import volsurf as vs
from tests.bench.figures import Row, print_rows
from tests.bench.real_chains_data import (
    Floats,
    Snapshot,
    fit_quotes,
    is_crash,
    quote_keys,
    slice_of,
    snapshots,
    stamp,
    two_sided,
    vol_at_quotes,
)
from tests.bench.real_chains_nodes import book_mid
from volsurf.surface.smile import fit_all_smiles
from volsurf.surface.smile_columns import SmileColumns
from volsurf.svi.fit import COLD_TOLERANCE, Continuation, SVIFit

MONTH = 30 / 365


@dataclass(frozen=True)
class Step:
    """One underlying at one snapshot."""

    stamp: str
    underlying: str
    atm: float
    risk_reversal: float
    butterfly: float
    book_atm: float
    certified: bool
    gaps: Floats
    """|change of the fit - change of the mid| at the forward of each expiry beyond a day, in vol."""
    gap_in_spreads: Floats
    """The same in half-spreads, the wider of the two."""
    warm_cold: Floats
    """|warm - cold| at the used quotes, in vol; empty at the first snapshot."""
    warm_cold_in_spreads: Floats


def walk() -> list[Step]:
    """All steps, in order of time."""
    steps: list[Step] = []
    mids: dict[str, dict[int, tuple[float, float, float, float]]] = {}
    last: SVIFit | None = None
    for path in (p for p in snapshots() if is_crash(p)):
        snapshot = Snapshot.of(path)
        columns = snapshot.columns
        cold = fit_quotes(columns)
        warm = fit_quotes(
            columns, previous=_as_if_fresh(last, columns), tolerance=COLD_TOLERANCE, prior_centre=cold.prior_centre
        )
        at, used = slice_of(columns), two_sided(columns)
        away = np.abs(vol_at_quotes(columns, warm.raw) - vol_at_quotes(columns, cold.raw))
        spread = 0.5 * (columns.ask_vol - columns.bid_vol)
        surfaces = fit_all_smiles(vs.build_smiles(snapshot.quotes))
        for number, (name, surface) in enumerate(surfaces.items()):
            now = _mids(surface)
            gaps, relative = _gaps(mids.get(name, {}), now)
            mids[name] = now
            mine = used & (columns.surface[at] == number) if last is not None else np.zeros_like(used)
            of_surface = np.flatnonzero(columns.surface == number)
            proved = warm.butterfly.proved[of_surface].all() and cold.butterfly.proved[of_surface].all()
            c25, p25, atm = (
                float(v)
                for v in (*surface.vol(delta=np.array([0.25, -0.25]), years=MONTH), surface.vol(k=0.0, years=MONTH))
            )
            steps.append(
                Step(
                    stamp(path), name, atm, c25 - p25, 0.5 * (c25 + p25) - atm, _book_month(now),
                    bool(surface.certificate) and bool(proved), gaps, relative, away[mine], away[mine] / spread[mine],
                )
            )  # fmt: skip
        if not (warm.calendar and cold.calendar):
            raise AssertionError("a calendar pair of the walk is not certified")
        last = warm
    return steps


def _as_if_fresh(last: SVIFit | None, columns: SmileColumns) -> Continuation | None:
    """The last curves with the same vols at today's years, of the expiries that are still there."""
    if last is None:
        return None
    key = quote_keys(columns)
    here, there = np.nonzero(key[:, None] == last.key[None, :])
    years = columns.years[here]
    ratio = np.ones((len(here), 5))
    ratio[:, :2] = (years / last.years[there])[:, None]
    return Continuation(key[here], years, last.raw[there] * ratio, last.result[there], last.fitted_raw[there] * ratio)


def _mids(surface: vs.Surface) -> dict[int, tuple[float, float, float, float]]:
    """By expiry: fit, mid and half-spread at the forward, and years."""
    found = {}
    for smile in surface:
        mid, half = (float(v[0]) for v in book_mid(smile, np.zeros(1)))
        found[smile.expiry_ns] = (float(smile.fitted_vol(0.0)), mid, half, smile.years)
    return found


def _gaps(
    before: dict[int, tuple[float, float, float, float]], now: dict[int, tuple[float, float, float, float]]
) -> tuple[Floats, Floats]:
    rows = [
        (abs((fit - before[key][0]) - (mid - before[key][1])), max(half, before[key][2]))
        for key, (fit, mid, half, years) in now.items()
        if key in before and years > 1 / 365
    ]
    gap, half = np.array(rows).reshape(-1, 2).T
    known = np.isfinite(gap)
    return gap[known], gap[known] / half[known]


def _book_month(now: dict[int, tuple[float, float, float, float]]) -> float:
    """The mids' own 30-day vol: total variance on straight lines between expiries."""
    points = sorted((years, mid * mid * years) for _, mid, _, years in now.values() if np.isfinite(mid))
    years, variance = np.array(points).T
    return float(np.sqrt(np.interp(MONTH, years, variance) / MONTH))


def rows(steps: list[Step]) -> list[Row]:
    """Measured beside bar."""
    gap, relative = (np.concatenate([getattr(s, n) for s in steps]) for n in ("gaps", "gap_in_spreads"))
    away, spreads = (np.concatenate([getattr(s, n) for s in steps]) for n in ("warm_cold", "warm_cold_in_spreads"))
    within, certified = 100 * float(np.mean(relative <= 1)), 100 * float(np.mean([s.certified for s in steps]))
    return [
        Row(
            "R14",
            f"crash: {gap.size} moves at the forward, |fit's - mid's| within the half-spread, %",
            within,
            ">=",
            99.0,
        ),
        Row("R14", "… median, vp", 100 * float(np.median(gap))),
        Row("R14", "… 95th percentile, vp", 100 * float(np.quantile(gap, 0.95))),
        Row(
            "R14",
            "certified warm - cold, six hours apart, at the used quotes, median, bp",
            1e4 * float(np.median(away)),
        ),
        Row("R14", "… 95th percentile, bp", 1e4 * float(np.quantile(away, 0.95)), "<=", 5.0),
        Row("R14", "… largest, half-spreads", float(spreads.max()), "<=", 0.5),
        Row("R14", "surfaces of the walk certified, warm and cold, %", certified, "==", 100.0),
    ]


def print_steps(steps: list[Step]) -> None:
    """The series."""
    heads = "snapshot          asset  ATM 30d    book    RR25   BF25  moves  within h  gap vp med/max"
    print(heads + "  warm-cold bp p95, max h")
    for s in steps:
        cells = [f"{s.stamp:17} {s.underlying:5}", f"{s.atm:7.2%}", f"{s.book_atm:7.2%}"]
        cells += [f"{s.risk_reversal:7.2%}", f"{s.butterfly:6.2%}"]
        if s.gaps.size:
            within = np.mean(s.gap_in_spreads <= 1)
            cells.append(f"{s.gaps.size:6d} {within:9.1%} {100 * np.median(s.gaps):8.2f} {100 * s.gaps.max():6.2f}")
            cells.append(f"{1e4 * np.quantile(s.warm_cold, 0.95):16.2f} {s.warm_cold_in_spreads.max():7.3f}")
        print(" ".join(cells))


def main() -> int:
    """Print the series and the figures; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    args = parser.parse_args()
    if not snapshots():
        print("no snapshots found; set VOLSURF_SHARED", file=sys.stderr)
        return 2
    steps = walk()
    print_steps(steps)
    table = rows(steps)
    missed = print_rows(table)
    if args.json:
        print(json.dumps({f"{r.name} {r.what}": r.measured for r in table}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
