"""What a frame costs, step by step: `python -m tests.bench.bench_frame [--frames 200] [--strikes 78]` prints a table and JSON.

The core runs inline on a made-up tape of 3 underlyings with 12 expiries. With 78 strikes an expiry, 2,808 quotes reach the 36
smiles, as from three venues' books; with 34 it is one venue's 1,224. All forwards move and 10 % of the quotes tick between
frames; a mid lies up to half a half-spread off the market's curve, so that surfaces have to be held free of arbitrage.
Each step is given with the part of it that is spent inside compiled kernels.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.bench.bench_engine import DAYS
from tests.engine.tape import SECOND, Market
from volsurf._jit import ensure_compiled
from volsurf.engine.core import Core
from volsurf.engine.frame import Frame
from volsurf.quotes import QuoteBatch

_STEPS = ("apply", "board", "vols", "smiles", "fit", "result", "encode")


class _Kernels:
    """Counts the time inside compiled functions that Python calls; what they call themselves is inside."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds = 0.0
        self._clock = clock
        from numba.core.dispatcher import Dispatcher

        for module in [m for name, m in sys.modules.items() if name.startswith("volsurf.")]:
            for name, value in list(vars(module).items()):
                if isinstance(value, Dispatcher):
                    setattr(module, name, self._timed(value))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            started = self._clock()
            result = function(*args)
            self.seconds += self._clock() - started
            return result

        return call


def run(
    frames: int, strikes: int, seed: int = 1, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, list[float]], dict[str, list[float]], Frame]:
    """Milliseconds by step and, of these, in kernels, frame by frame; and the last frame."""
    market = Market(underlyings=("BTC", "ETH", "SOL"), days=DAYS, strikes=strikes)
    core, rng = Core(), np.random.default_rng(seed)
    for entry in market.beginning():
        core.apply(_leaning(entry, rng) if isinstance(entry, QuoteBatch) else entry)
    core.frame(market.start_ns)
    kernels = _Kernels(clock)
    spent: dict[str, list[float]] = {step: [] for step in (*_STEPS, "frame")}
    inside: dict[str, list[float]] = {step: [] for step in (*_STEPS, "frame")}
    now = market.start_ns
    frame: Frame | None = None
    gc.collect()
    gc.freeze()
    for _ in range(frames):
        now += SECOND // 10
        for underlying in market.underlyings:
            market.spot[underlying] *= float(np.exp(1e-4 * rng.standard_normal()))
            market.level[underlying] *= float(np.exp(1e-3 * rng.standard_normal()))
        ticked = sorted(rng.choice(len(market.ids), len(market.ids) // 10, replace=False).tolist())
        batch, health = _leaning(market.batch(now, ids=ticked), rng), market.health(now)
        kernels.seconds = 0.0
        start = last = clock()
        before = 0.0

        def lap(step: str) -> None:
            nonlocal last, before
            moment = clock()
            spent[step].append((moment - last) * 1e3)
            inside[step].append((kernels.seconds - before) * 1e3)
            last, before = moment, kernels.seconds

        core.apply(batch)
        core.apply(health)
        lap("apply")
        frame = core.frame(now, lap)
        lap("result")
        assert frame.hash
        lap("encode")
        spent["frame"].append((last - start) * 1e3)
        inside["frame"].append(kernels.seconds * 1e3)
    assert frame is not None
    return spent, inside, frame


def _leaning(batch: QuoteBatch, rng: np.random.Generator) -> QuoteBatch:
    """The quotes of makers who lean to one side."""
    lean = 0.25 * rng.uniform(-1.0, 1.0, len(batch)) * (batch.ask - batch.bid)
    batch.bid, batch.ask = np.maximum(batch.bid + lean, 1e-6), batch.ask + lean
    return batch


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--strikes", type=int, default=78)
    parser.add_argument(
        "--cpu", action="store_true", help="count processor time: for a machine that others use as well"
    )
    args = parser.parse_args()
    ensure_compiled()
    spent, inside, frame = run(args.frames, args.strikes, clock=time.thread_time if args.cpu else time.perf_counter)
    figures: dict[str, float | int] = {}
    print(f"{'step':8}{'median ms':>12}{'p95 ms':>10}{'kernels ms':>12}")
    for step, ms in spent.items():
        median, p95 = float(np.median(ms[5:])), float(np.percentile(ms[5:], 95))
        kernel = float(np.median(inside[step][5:]))
        print(f"{step:8}{median:12.3f}{p95:10.3f}{kernel:12.3f}")
        figures |= {
            f"{step}_ms": round(median, 3),
            f"{step}_p95_ms": round(p95, 3),
            f"{step}_kernel_ms": round(kernel, 3),
        }
    smiles = [smile for surface in frame.surfaces.values() for smile in surface.smiles]
    figures["slices"] = len(smiles)
    figures["quotes_in_smiles"] = sum(len(smile.strike) for smile in smiles)
    figures["slices_moved"] = sum(smile.fit is not None and smile.fit.enforcement >= 2 for smile in smiles)
    figures["slices_certified"] = sum(smile.fit is not None and smile.fit.is_certified for smile in smiles)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
