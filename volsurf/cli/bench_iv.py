"""`volsurf bench iv`: implied vols from raw columns, cold and warm, beside the best installed peer in the same run.

Keys of the JSON object, for each set S of `ord`, `live` and `hard`:

* `S_cold_ns`, `S_warm_ns`: nanoseconds an option of `vs.implied_vol`, without and with last vols that are 0.3 % off;
* `S_peer`, `S_peer_ns`, `S_peer_ratio`: the fastest installed peer, its nanoseconds, and how many times ours that is;
* `S_warm_ratio`: warm over cold; `S_greeks_ns`: vol and six greeks in one pass;
* `S_max_rel_error`, `S_warm_max_rel_error`: on a sample priced with mpmath;
* `S_failures`: options of the whole set without a vol, or with one that is 1e-6 off.

All times are medians, over rounds in which every solver had its turn, of the processor time of the one thread that runs them
all: on a quiet machine the wall clock's, on a busy one without the other programs' share.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

# One thread for everybody, set before numpy is imported.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np

from volsurf._jit import ensure_compiled
from volsurf.cli._iv_peers import installed_peers
from volsurf.cli._iv_sets import SETS, Options, make_set, true_prices
from volsurf.errors import InputError
from volsurf.iv._greeks import GREEKS
from volsurf.iv.implied import ImpliedVolStatus, implied_vol, implied_vol_status, solve_greeks

GUESS_OFF = 0.003
WRONG = 1e-6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object with the figures on the last line")
    parser.add_argument("--options", type=int, default=100_000, metavar="N", help="options a set (default 100000)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds of every solver (default 15)")
    parser.add_argument(
        "--sample", type=int, default=2000, metavar="N", help="options priced with mpmath (default 2000)"
    )


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure, print the table, and return the figures."""
    for name in ("options", "rounds", "sample"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} must be at least 1, was {getattr(args, name)}")
    ensure_compiled("iv")
    figures: dict[str, object] = {}
    for name in SETS:
        options = make_set(name, args.options)
        figures |= {f"{name}_{key}": value for key, value in _measure(options, args.rounds, args.sample).items()}
    figures |= {"options": args.options, "simd": simd(), "machine": _machine()}
    _print_table(figures, sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(figures))
    return figures


def _measure(options: Options, rounds: int, sample: int) -> dict[str, object]:
    columns = (options.price, options.forward, options.strike, options.years, options.is_call)
    count = options.price.size
    rng = np.random.default_rng(2)
    guess = options.vol * (1.0 + GUESS_OFF * rng.choice([-1.0, 1.0], count))
    vol, status, greeks = np.empty(count), np.empty(count, np.int8), np.empty((GREEKS, count))
    nothing = np.empty(0)
    peers = installed_peers(options)
    jobs: dict[str, Callable[[], object]] = {
        "cold": lambda: implied_vol(*columns),
        "warm": lambda: implied_vol(*columns, guess=guess),
        "greeks": lambda: solve_greeks(*columns, nothing, vol, status, greeks),
        **peers,
    }
    times = _interleaved(jobs, rounds)
    ns = {name: round(1e9 * seconds / count, 2) for name, seconds in times.items()}
    cold = ns["cold"]
    best = min(peers, key=lambda name: ns[name], default=None)

    solved, statuses = implied_vol_status(*columns)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(solved / options.vol - 1.0) < WRONG)
    failures = int((wrong | (statuses != ImpliedVolStatus.OK)).sum())
    rows = np.sort(rng.permutation(count)[: min(sample, count)])
    few = options.pick(rows)
    inputs = (true_prices(few), few.forward, few.strike, few.years, few.is_call)
    error = np.abs(np.asarray(implied_vol(*inputs)) / few.vol - 1.0)
    warm_error = np.abs(np.asarray(implied_vol(*inputs, guess=guess[rows])) / few.vol - 1.0)
    return {
        "cold_ns": cold,
        "warm_ns": ns["warm"],
        "warm_ratio": round(ns["warm"] / cold, 3),
        "greeks_ns": ns["greeks"],
        "peer": best,
        "peer_ns": None if best is None else ns[best],
        "peer_ratio": None if best is None else round(ns[best] / cold, 1),
        "peers_ns": ", ".join(f"{name} {ns[name]:.0f}" for name in peers),
        "max_rel_error": float(f"{error.max():.2e}"),
        "warm_max_rel_error": float(f"{warm_error.max():.2e}"),
        "failures": failures,
    }


def _interleaved(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each job; in every round each has its turn, so that a slow spell of the machine meets all."""
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            begin = time.thread_time()
            job()
            seconds[name].append(time.thread_time() - begin)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def simd() -> str:
    """Widest vector instructions the kernels are compiled to here: "avx512", "avx2", or the processor's architecture."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512dq"):
        return "avx512"
    return "avx2" if features.get("avx2") else platform.machine()


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} cores"


def _print_table(figures: dict[str, object], to: object) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=to, width=110)  # type: ignore[arg-type]
    table = Table(title=f"Implied vol, nanoseconds an option, {figures['options']} options a set")
    for heading in ("", *SETS):
        table.add_column(heading, justify="right" if heading else "left")
    rows = {
        "cold": "cold_ns",
        "warm (last vol 0.3 % off)": "warm_ns",
        "warm / cold": "warm_ratio",
        "cold, with six greeks": "greeks_ns",
        "best peer": "peer",
        "best peer's time": "peer_ns",
        "best peer / cold": "peer_ratio",
        "max relative error": "max_rel_error",
        "max relative error, warm": "warm_max_rel_error",
        "failures": "failures",
    }
    for label, key in rows.items():
        cells = (figures[f"{name}_{key}"] for name in SETS)
        table.add_row(label, *("none installed" if cell is None else str(cell) for cell in cells))
    console.print(table)
    for name in SETS:
        if figures[f"{name}_peers_ns"]:
            console.print(f"{name}: {figures[f'{name}_peers_ns']}")
    console.print(f"{figures['machine']}, {figures['simd']}")
