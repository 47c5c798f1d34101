"""How far the live surface is from the truth of the simulated market, through the whole pipeline.

    python -m tests.bench.live_truth [--truth svi|mixture] [--seconds 20] [--json]

Starts the simulated exchange and an engine on it, then compares frame after frame: the fitted ATM vol of every expiry with the
true one (basis points of vol), and the fitted vol at every used two-sided quote with the true vol at its strike, in units of the
quote's half-spread. The truth is asked for right after a frame arrives, so the two are at most a few market steps apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

import volsurf as vs
from volsurf.engine.live import Engine

UNDERLYINGS = ("BTC", "ETH", "SOL_USDC")


@dataclass
class Score:
    """Errors of every frame so far."""

    atm_bp: list[float] = field(default_factory=list)
    within: list[bool] = field(default_factory=list)
    ratio: list[float] = field(default_factory=list)
    forward_bp: list[float] = field(default_factory=list)
    frames: int = 0

    def add(self, surface: vs.Surface, slices: list[dict[str, Any]]) -> None:
        """Compare one surface with the truth of its underlying."""
        smiles = {smile.expiry_ns: smile for smile in surface.smiles}
        for true in slices:
            smile = smiles.get(true["expiry_ns"])
            if smile is None or smile.fit is None or smile.fit.is_synthetic:
                continue
            self.forward_bp.append(1e4 * abs(smile.forward / true["forward"] - 1.0))
            self.atm_bp.append(1e4 * abs(smile.atm_vol - true["atm_vol"]))
            vol_of = dict(zip(true["strikes"], true["vols"], strict=True))
            used = smile.used & (smile.side == 0)
            truth = np.array([vol_of.get(k, np.nan) for k in smile.strike[used].tolist()])
            half = 0.5 * (smile.ask_vol[used] - smile.bid_vol[used])
            miss = np.abs(smile.fitted_vol(smile.log_moneyness[used]) - truth)
            self.within += (miss <= half).tolist()
            self.ratio += (miss / np.maximum(half, 1e-9)).tolist()
        self.frames += 1

    def summary(self) -> dict[str, float]:
        """Medians and shares."""
        return {
            "frames": self.frames,
            "slices": len(self.atm_bp),
            "quotes": len(self.within),
            "atm_error_bp_median": round(float(np.median(self.atm_bp)), 3),
            "atm_error_bp_p95": round(float(np.quantile(self.atm_bp, 0.95)), 3),
            "within_half_spread_percent": round(100.0 * float(np.mean(self.within)), 3),
            "error_over_half_spread_median": round(float(np.median(self.ratio)), 4),
            "forward_error_bp_median": round(float(np.median(self.forward_bp)), 4),
        }


def main() -> int:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", choices=("svi", "mixture"), default="svi")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    command = [sys.executable, "-m", "volsurf.cli", "sim", "--json", "--port", "0", "--seed", str(args.seed)]
    command += ["--truth", args.truth, "--underlyings", ",".join(UNDERLYINGS)]
    score = Score()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as exchange:
        try:
            assert exchange.stdout is not None
            url = json.loads(exchange.stdout.readline())["url"]
            with Engine("deribit", UNDERLYINGS, url=url, port=0) as engine:
                engine.wait_ready(90)
                session = vs.attach(engine.stream_url)
                session.wait(30)
                end = time.monotonic() + args.seconds
                for frame in session.frames():
                    with urllib.request.urlopen(f"http://{urlsplit(url).netloc}/truth", timeout=5) as answer:
                        truth = json.load(answer)["underlyings"]
                    for name, surface in frame.surfaces.items():
                        score.add(surface, truth[name]["slices"])
                    if time.monotonic() > end:
                        break
                session.stop()
        finally:
            exchange.terminate()
    figures = {"truth": args.truth, "seconds": args.seconds, **score.summary()}
    if args.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:>32}  {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
