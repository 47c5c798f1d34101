"""Surfaces of garbage quotes: random vols of 10 to 300 %, levels, strikes, spreads, and often one to five quotes an expiry.

    python -m tests.bench.garbage [--surfaces 240] [--json]

Each must end certified, flagged and finite, without an exception, cold and continued from another garbage surface.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

from tests.bench.figures import Row, print_rows
from tests.svi.test_enforce_garbage import garbage_surface
from volsurf._jit import ensure_compiled
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.fit import Enforcement, SVIFit
from volsurf.svi.params import RawSVI


def _proved(fit: SVIFit) -> bool:
    """Whether the published doubles are free of arbitrage, looked at afresh."""
    svi = RawSVI(*fit.raw[fit.order].T)
    return bool(check_butterfly(svi)) and bool(check_calendar(svi[:-1], svi[1:]))


def _flagged(fit: SVIFit) -> bool:
    """Whether a reader is warned: a slice by the guard, moved, or farther from its quotes than they are wide."""
    return bool(np.any(fit.enforcement >= Enforcement.MOVED) or np.any(fit.rms > 1.0))


def rows(surfaces: int = 240) -> list[Row]:
    """Measured beside bar; times are of the processor, fit, enforcement and certificates together."""
    ensure_compiled("svi", "enforce")
    garbage_surface(0)
    milliseconds: dict[str, list[float]] = {"cold": [], "continued": []}
    proved = flagged = finite = guarded = steps = 0
    for seed in range(surfaces):
        last: SVIFit | None = None
        for kind, options in (("cold", {}), ("continued", {"smoothing": 0.5, "key": np.arange(12)})):
            begin = time.thread_time()
            fit = garbage_surface(seed + (10_000 if last else 0), previous=last, **options)
            assert len(fit.butterfly) + len(fit.calendar) == 23
            milliseconds[kind].append(1e3 * (time.thread_time() - begin))
            proved += _proved(fit) and bool(fit.butterfly) and bool(fit.calendar)
            flagged += _flagged(fit)
            finite += bool(
                np.isfinite(fit.raw).all() and np.isfinite(fit.move).all() and np.isfinite(fit.vol(0.0)).all()
            )
            guarded += bool(np.any(fit.enforcement == Enforcement.GUARDED))
            steps = max(steps, int(fit.solver_steps.max()))
            last = fit
    table = [
        Row("C6", f"{2 * surfaces} garbage surfaces certified", float(proved), "==", 2.0 * surfaces),
        Row("C6", "… flagged", float(flagged), "==", 2.0 * surfaces),
        Row("C6", "… every number finite", float(finite), "==", 2.0 * surfaces),
        Row("C6", "… with the guard", float(guarded)),
        Row("C6", "… solver steps, most", float(steps), "<=", 140.0),
    ]
    for kind, spent in milliseconds.items():
        table.append(Row("C6", f"{kind}, milliseconds a surface, median", float(np.median(spent)), "<=", 50.0))
        table.append(Row("C6", f"{kind}, milliseconds a surface, worst", float(np.max(spent)), "<=", 150.0))
    return table


def main() -> int:
    """Print the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", type=int, default=240)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    args = parser.parse_args()
    table = rows(args.surfaces)
    missed = print_rows(table)
    if args.json:
        print(json.dumps({row.what: row.measured for row in table}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
