"""`volsurf bench svi`: the batch fit and the certificates, beside scipy and QuantLib on the same slices in the same run.

Times of fits, certificates and peers are processor time of one core, so that what else the machine does cancels out; those of
the live frame are by the clock. A frame pays for `certificate_us`: the certificates as a fit carries them, with where each slice
comes closest to arbitrage; `certificate_verdict_us` are the verdicts and witnesses alone. The certified figure is a fit with its
certificates, whatever they say: removing arbitrage is not part of it.
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

# One thread for everybody, set before numpy is imported: scipy's small linear algebra only loses to threads that fight.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np

from volsurf._jit import ensure_compiled
from volsurf.cli._svi_peers import time_quantlib, time_scipy
from volsurf.cli._svi_slices import Slices, real_directory, real_slices, simulated_slices
from volsurf.svi.arbitrage import certify_butterfly, check_butterfly
from volsurf.svi.calendar import certify_calendar, check_calendar
from volsurf.svi.fit import SVIFit, fit_slices

FRAME_SLICES = 36
FRAMES = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object with the figures on the last line")
    parser.add_argument(
        "--chains", type=Path, default=None, metavar="DIR",
        help="folder of Deribit snapshots (*.csv.gz) to take the slices from; default: the validation data, if it is there",
    )  # fmt: skip
    parser.add_argument("--simulated", action="store_true", help="use simulated quotes even where real chains are")
    parser.add_argument(
        "--peer-slices", type=int, default=48, metavar="N", help="slices that the peers are timed on (default 48)"
    )


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure, print the table, and return the figures."""
    ensure_compiled("svi", "iv")
    slices = None if args.simulated else real_slices(args.chains or real_directory())
    if slices is None:
        slices = simulated_slices()
    count = len(slices)
    fit = fit_all(slices)
    cold = _median_seconds(lambda: fit_all(slices)) / count

    def certified() -> None:
        fresh = fit_all(slices)
        assert len(fresh.butterfly) + len(fresh.calendar) > 0

    both = _median_seconds(certified) / count
    near, far = (fit.params[index] for index in fit.calendar_pairs)
    certificates = _median_seconds(lambda: (check_butterfly(fit.params), check_calendar(near, far))) / count
    c = np.array(fit.raw.T, order="C")
    n, f = (c[:, index] for index in fit.calendar_pairs)

    def verdicts() -> None:
        certify_butterfly(c[0], c[1], c[2], c[3], c[4], False)
        certify_calendar(n[0], n[1], n[2], n[3], n[4], f[0], f[1], f[2], f[3], f[4], False)

    verdicts_only = _median_seconds(verdicts) / count
    frame = _frames(slices)

    sample = slices.pick(np.unique(np.linspace(0, count - 1, min(args.peer_slices, count)).astype(np.int64)))
    sample_fit = fit_all(sample)
    ours = _median_seconds(lambda: fit_all(sample)) / len(sample)
    scipy_seconds, gaps = time_scipy(sample, sample_fit)
    scipy = scipy_seconds / len(sample)
    quantlib_run = time_quantlib(sample)
    quantlib = None if quantlib_run is None else quantlib_run[0] / len(sample)
    figures: dict[str, object] = {
        "data": slices.source,
        "slices": count,
        "quotes": int(slices.k.size),
        "cold_us": round(1e6 * cold, 2),
        "certified_us": round(1e6 * both, 2),
        "certificate_us": round(1e6 * certificates, 2),
        "certificate_verdict_us": round(1e6 * verdicts_only, 2),
        **frame,
        "passes_mean": round(float(fit.iterations.mean()), 1),
        "passes_max": int(fit.iterations.max()),
        "peer_slices": len(sample),
        "cold_us_on_peer_slices": round(1e6 * ours, 2),
        "scipy_us": round(1e6 * scipy, 1),
        "quantlib_us": None if quantlib is None else round(1e6 * quantlib, 1),
        "scipy_ratio": round(scipy / ours, 1),
        "quantlib_ratio": None if quantlib is None else round(quantlib / ours, 1),
        "cost_above_scipy_median": float(f"{np.median(gaps):.2e}"),
        "cost_above_scipy_max": float(f"{gaps.max():.2e}"),
        "quantlib_failures": None if quantlib_run is None else quantlib_run[1],
        "machine": _machine(),
    }
    _print_table(figures, sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(figures))
    return figures


def fit_all(slices: Slices, previous: SVIFit | None = None) -> SVIFit:
    """One call for all slices."""
    return fit_slices(
        slices.k, slices.vol, slices.error, slices.offsets, slices.years,
        side=slices.side, surface=slices.surface, previous=previous,
    )  # fmt: skip


def _median_seconds(job: Callable[[], object], repeats: int = 15) -> float:
    seconds = []
    for _ in range(repeats):
        begin = time.thread_time()
        job()
        seconds.append(time.thread_time() - begin)
    return float(np.median(seconds))


def _frames(slices: Slices) -> dict[str, float]:
    """A live frame: 36 slices, each frame the forward moves half a basis point and one quote in ten is re-quoted.

    Warm refit from the last frame, and both certificates.
    """
    rng = np.random.default_rng(1)
    few = slices.pick(np.arange(min(FRAME_SLICES, len(slices))))
    surface_of_row = np.repeat(few.surface, np.diff(few.offsets))
    k, vol = few.k.copy(), few.vol.copy()
    last = fit_all(few)
    refits, frames = [], []
    for _ in range(FRAMES):
        k -= rng.normal(0.0, 0.5e-4, surface_of_row.max() + 1)[surface_of_row]
        moved = rng.uniform(size=vol.size) < 0.1
        vol = np.where(moved, few.vol + rng.uniform(-0.4, 0.4, vol.size) * few.error, vol)
        quotes = Slices(few.source, k, vol, few.error, few.side, few.offsets, few.years, few.surface)
        begin = time.perf_counter()
        last = fit_all(quotes, last)
        refitted = time.perf_counter()
        assert len(last.butterfly) + len(last.calendar) > 0
        frames.append(time.perf_counter() - begin)
        refits.append(refitted - begin)
    return {
        "warm_us": round(1e6 * float(np.median(refits)) / len(few), 2),
        "warm_frame_slices": len(few),
        "warm_frame_ms": round(1e3 * float(np.median(frames)), 3),
        "warm_frame_p95_ms": round(1e3 * float(np.percentile(frames, 95)), 3),
    }


def _machine() -> str:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{name}, {os.cpu_count()} cores"
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    flags = next((line for line in lines if line.startswith("flags")), "")
    simd = "AVX-512" if " avx512f" in flags else "AVX2" if " avx2" in flags else "no AVX2"
    return f"{model}, {os.cpu_count()} cores, {simd}"


def _print_table(figures: dict[str, object], to: object) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=to)  # type: ignore[arg-type]
    table = Table(title=f"SVI: {figures['slices']} slices, {figures['quotes']} quotes, {figures['data']}")
    table.add_column("")
    table.add_column("µs a slice", justify="right")
    table.add_column("times ours", justify="right")
    sample = f"on {figures['peer_slices']} slices"
    rows = [
        ("cold fit (two stages)", figures["cold_us"], ""),
        ("cold fit + butterfly and calendar certificates, arbitrage left in", figures["certified_us"], ""),
        ("certificates alone, with the closest approach of each", figures["certificate_us"], ""),
        ("certificates alone, verdict and witness only", figures["certificate_verdict_us"], ""),
        ("warm refit", figures["warm_us"], ""),
        (f"cold fit, {sample}", figures["cold_us_on_peer_slices"], "1"),
        (f"scipy least_squares, same objective, {sample}", figures["scipy_us"], figures["scipy_ratio"]),
    ]
    if figures["quantlib_us"] is None:
        rows.append(("QuantLib", "not installed: pip install QuantLib", ""))
    else:
        rows.append((f"QuantLib SVI section, {sample}", figures["quantlib_us"], figures["quantlib_ratio"]))
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)
    console.print(
        f"frame of {figures['warm_frame_slices']} slices, refit and certified: {figures['warm_frame_ms']} ms, "
        f"p95 {figures['warm_frame_p95_ms']} ms; passes {figures['passes_mean']} mean, {figures['passes_max']} most; "
        f"cost above scipy's {figures['cost_above_scipy_median']:.1e} median, {figures['cost_above_scipy_max']:.1e} most\n"
        f"{figures['machine']}"
    )
