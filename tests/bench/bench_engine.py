"""What a frame costs: `python -m tests.bench.bench_engine [--frames 200]` prints one JSON object.

The core runs inline on a made-up tape of 3 underlyings with 12 expiries and 34 strikes each (2,448 options, as many as BTC and
ETH list together), of which 10 % tick and all forwards move between frames.
"""

from __future__ import annotations

import argparse
import gc
import json
import time

import numpy as np

from tests.engine.tape import SECOND, Market
from volsurf._jit import ensure_compiled
from volsurf.engine.codec import encode_smile
from volsurf.engine.core import Core
from volsurf.engine.frame import Frame
from volsurf.engine.mirror import FrameMirror

DAYS = (0.6, 1.6, 2.6, 4.6, 9.6, 16.6, 23.6, 37.6, 65.6, 128.6, 219.6, 310.6)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=200)
    frames = parser.parse_args().frames
    ensure_compiled()
    market = Market(underlyings=("BTC", "ETH", "SOL"), days=DAYS, strikes=34)
    core, mirror, rng = Core(), FrameMirror(), np.random.default_rng(1)
    for entry in market.beginning():
        core.apply(entry)
    spent: dict[str, list[float]] = {}

    def timed(step: str, started: float) -> float:
        now = time.perf_counter()
        spent.setdefault(step, []).append((now - started) * 1e3)
        return now

    now, before, sizes = market.start_ns, None, []
    gc.collect()
    gc.freeze()
    for number in range(frames):
        now += SECOND // 10
        for underlying in market.underlyings:
            market.spot[underlying] *= float(np.exp(1e-4 * rng.standard_normal()))
            market.level[underlying] *= float(np.exp(1e-3 * rng.standard_normal()))
        ticked = sorted(rng.choice(len(market.ids), len(market.ids) // 10, replace=False).tolist())
        batch = market.batch(now, ids=ticked)
        start = last = time.perf_counter()
        core.apply(batch)
        core.apply(market.health(now))
        last = timed("apply", last)

        def lap(step: str) -> None:
            nonlocal last
            last = timed(step, last)

        frame = core.frame(now, lap)
        last = timed("result", last)
        assert frame.hash
        last = timed("encode_and_hash", last)
        timed("whole_frame", start)
        last = time.perf_counter()
        data = frame.patch(before)
        last = timed("patch", last)
        assert mirror.apply(data).hash == frame.hash
        timed("client_apply", last)
        if number:
            sizes.append(len(data))
        before = frame
    assert before is not None
    print(json.dumps(_report(spent, sizes, before, core, now)))


def _report(
    spent: dict[str, list[float]], sizes: list[int], last: Frame, core: Core, now_ns: int
) -> dict[str, float | int]:
    smiles = [smile for surface in last.surfaces.values() for smile in surface.smiles]
    start = time.perf_counter()
    for _ in range(20):
        for smile in smiles:
            encode_smile(smile)
    encode = (time.perf_counter() - start) / 20 * 1e3
    still = core.frame(now_ns + 1)
    figures: dict[str, float | int] = {f"{step}_ms": round(float(np.median(ms[5:])), 3) for step, ms in spent.items()}
    figures["whole_frame_p95_ms"] = round(float(np.percentile(spent["whole_frame"][5:], 95)), 3)
    return figures | {
        "slices": len(smiles),
        "quotes_in_smiles": sum(len(smile.strike) for smile in smiles),
        "encode_all_slices_ms": round(encode, 3),
        "snapshot_bytes": len(last.to_bytes()),
        "patch_all_changed_bytes": int(np.median(sizes)),
        "patch_nothing_changed_bytes": len(still.patch(last)),
    }


if __name__ == "__main__":
    main()
