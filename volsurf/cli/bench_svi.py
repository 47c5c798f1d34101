"""`volsurf bench svi`: the batch fit and the certificates, beside scipy and QuantLib on the same slices in the same run.

Times of fits, certificates and peers are processor time of one core, so that what else the machine does cancels out; those of
the live frame are by the clock. `certified_us` is a cold fit whose surfaces are made free of arbitrage and certified, which the
peers, who do neither, are compared with; `fit_certificate_us` is a fit to quotes alone with its certificates, whatever they say.
`certificate_us` is a slice with its pair in one call for all: the certificates as a fit carries them, with where each comes
closest to arbitrage; `certificate_frame_us` the same for a frame's three dozen slices, where the call itself shows;
`certificate_verdict_us` are the verdicts and witnesses alone.
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
from volsurf.cli._svi_frames import LiveBooks, time_frames
from volsurf.cli._svi_peers import time_quantlib, time_scipy
from volsurf.cli._svi_slices import Slices, real_directory, real_slices, simulated_slices
from volsurf.svi._surface_certificates import surface_certificates
from volsurf.svi.arbitrage import certify_butterfly
from volsurf.svi.calendar import certify_calendar
from volsurf.svi.fit import Enforcement, SVIFit, fit_slices

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
        "--peer-slices",
        type=int,
        default=48,
        metavar="N",
        help="slices that the peers are timed on, about: whole surfaces (default 48)",
    )


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure, print the table, and return the figures."""
    ensure_compiled("svi", "iv", "enforce")
    slices = None if args.simulated else real_slices(args.chains or real_directory())
    if slices is None:
        slices = simulated_slices()
    count = len(slices)
    fit = fit_all(slices)
    cold = _median_seconds(lambda: fit_all(slices, enforce=False)) / count
    fit_and_verdict = _median_seconds(lambda: certify(fit_all(slices, enforce=False))) / count
    enforced = _median_seconds(lambda: certify(fit_all(slices))) / count
    surfaces = np.unique(slices.surface)
    far = fit.calendar_pairs[1]
    proved = fit.butterfly.proved.copy()
    proved[far] &= fit.calendar.proved
    certified = sum(bool(proved[slices.surface == number].all()) for number in surfaces)

    # The first BTC and ETH, and a BTC book of another day as a third asset.
    frame = time_frames(LiveBooks.of(slices, (0, 1, 8)), FRAMES)
    few = slices.pick(np.flatnonzero(np.isin(slices.surface, (0, 1, 8)))[:FRAME_SLICES])
    live = fit_all(few)

    def certificates(of: SVIFit) -> float:
        return _median_seconds(lambda: surface_certificates(of.raw, of.order, of.surface), inner=20) / len(of)

    c = np.array(fit.raw.T, order="C")
    n, f = (c[:, index] for index in fit.calendar_pairs)

    def verdicts() -> None:
        certify_butterfly(c[0], c[1], c[2], c[3], c[4], False)
        certify_calendar(n[0], n[1], n[2], n[3], n[4], f[0], f[1], f[2], f[3], f[4], False)

    verdicts_only = _median_seconds(verdicts, inner=20) / count

    # Whole surfaces, because enforcement is of whole surfaces: fewer expiries of more of them would cost it less.
    wanted = max(1, round(args.peer_slices / 12))
    chosen = surfaces[np.unique(np.linspace(0, len(surfaces) - 1, min(wanted, len(surfaces))).astype(np.int64))]
    sample = slices.pick(np.flatnonzero(np.isin(slices.surface, chosen)))
    sample_fit = fit_all(sample)
    ours = _median_seconds(lambda: certify(fit_all(sample))) / len(sample)
    alone = _median_seconds(lambda: fit_all(sample, enforce=False)) / len(sample)
    scipy_seconds, gaps = time_scipy(sample, sample_fit)
    scipy = scipy_seconds / len(sample)
    quantlib_run = time_quantlib(sample)
    quantlib = None if quantlib_run is None else quantlib_run[0] / len(sample)
    figures: dict[str, object] = {
        "data": slices.source,
        "slices": count,
        "quotes": int(slices.k.size),
        "cold_us": round(1e6 * cold, 2),
        "fit_certificate_us": round(1e6 * fit_and_verdict, 2),
        "certified_us": round(1e6 * enforced, 2),
        "enforced_surfaces": len(surfaces),
        "enforced_surfaces_certified": certified,
        "guarded": int(np.count_nonzero(fit.enforcement == Enforcement.GUARDED)),
        "solver_steps_mean": round(float(fit.solver_steps.mean()), 1),
        "certificate_us": round(1e6 * certificates(fit), 2),
        "certificate_frame_us": round(1e6 * certificates(live), 2),
        "certificate_verdict_us": round(1e6 * verdicts_only, 2),
        **frame,
        "passes_mean": round(float(fit.iterations.mean()), 1),
        "passes_max": int(fit.iterations.max()),
        "peer_slices": len(sample),
        "cold_us_on_peer_slices": round(1e6 * alone, 2),
        "certified_us_on_peer_slices": round(1e6 * ours, 2),
        "scipy_us": round(1e6 * scipy, 1),
        "quantlib_us": None if quantlib is None else round(1e6 * quantlib, 1),
        "scipy_ratio": round(scipy / ours, 1),
        "quantlib_ratio": None if quantlib is None else round(quantlib / ours, 1),
        "scipy_fit_ratio": round(scipy / alone, 1),
        "quantlib_fit_ratio": None if quantlib is None else round(quantlib / alone, 1),
        "cost_above_scipy_median": float(f"{np.median(gaps):.2e}"),
        "cost_above_scipy_max": float(f"{gaps.max():.2e}"),
        "quantlib_failures": None if quantlib_run is None else quantlib_run[1],
        "machine": _machine(),
    }
    _print_table(figures, sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(figures))
    return figures


def certify(fit: SVIFit) -> None:
    """Make the certificates that a fit carries."""
    assert len(fit.butterfly) + len(fit.calendar) > 0


def fit_all(slices: Slices, previous: SVIFit | None = None, *, enforce: bool = True) -> SVIFit:
    """One call for all slices."""
    return fit_slices(
        slices.k, slices.vol, slices.error, slices.offsets, slices.years,
        side=slices.side, surface=slices.surface, previous=previous, enforce=enforce,
    )  # fmt: skip


def _median_seconds(job: Callable[[], object], repeats: int = 15, inner: int = 1) -> float:
    """Processor seconds of one job: the median of `repeats` rounds of `inner`."""
    seconds = []
    for _ in range(repeats):
        begin = time.thread_time()
        for _ in range(inner):
            job()
        seconds.append((time.thread_time() - begin) / inner)
    return float(np.median(seconds))


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
        ("cold fit to quotes alone (two stages)", figures["cold_us"], ""),
        ("cold fit to quotes alone + certificates, arbitrage left in", figures["fit_certificate_us"], ""),
        ("cold fit, free of arbitrage and certified", figures["certified_us"], ""),
        ("warm refit of a live frame, to quotes alone", figures["warm_us"], ""),
        ("certificates alone, with the closest approach of each", figures["certificate_us"], ""),
        (f"… of {figures['warm_frame_slices']} slices, with the cost of the call", figures["certificate_frame_us"], ""),
        ("certificates alone, verdict and witness only", figures["certificate_verdict_us"], ""),
        (f"cold fit, free of arbitrage and certified, {sample}", figures["certified_us_on_peer_slices"], "1"),
        (
            f"scipy least_squares, same objective, arbitrage left in, {sample}",
            figures["scipy_us"],
            figures["scipy_ratio"],
        ),
    ]
    if figures["quantlib_us"] is None:
        rows.append(("QuantLib", "not installed: pip install QuantLib", ""))
    else:
        label = f"QuantLib SVI section, arbitrage left in, {sample}"
        rows.append((label, figures["quantlib_us"], figures["quantlib_ratio"]))
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)
    steps = ", ".join(f"{name} {figures[f'warm_frame_{name}_ms']}" for name in ("iv", "fit", "enforce", "certificate"))
    console.print(
        f"{figures['enforced_surfaces_certified']} of {figures['enforced_surfaces']} surfaces certified, "
        f"{figures['guarded']} slices by the guard, {figures['solver_steps_mean']} solver steps mean; "
        f"passes of the fit {figures['passes_mean']} mean, {figures['passes_max']} most; "
        f"cost above scipy's {figures['cost_above_scipy_median']:.1e} median, {figures['cost_above_scipy_max']:.1e} most\n"
        f"live frame of {figures['warm_frame_slices']} slices and {figures['warm_frame_quotes']} quotes, from prices to "
        f"certified surfaces: {figures['warm_frame_ms']} ms, p95 {figures['warm_frame_p95_ms']} ms by the clock "
        f"({steps}; {figures['warm_frame_processor_ms']} ms of processor), certified {figures['warm_frames_certified']}\n"
        f"{figures['machine']}"
    )
