"""Feed damaged messages and pages to the venues' protocols in the midst of simulated sessions.

    python -m tests.bench.fuzz --venue deribit|okx|bybit|binance|all --frames 1000000 [--seed S] [--json]

Nothing may escape, every message must raise a counter, memory must stay flat, and after every chunk a clean session must work.
What escapes is printed with the seed that brings it back.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.feeds.conformance.facts import FACTS
from tests.feeds.fuzz import Fuzzer

CHUNK = 25_000
MOST_GROWTH_MB = 4.0
"""From the end of the second chunk on."""


def resident_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def fuzz(venue: str, frames: int, seed: int) -> dict[str, Any]:
    """Run the chunks, each from its own seed; the figures."""
    began = time.perf_counter()
    counters: Counter[str] = Counter()
    total: Counter[str] = Counter()
    uncounted: Counter[str] = Counter()
    memory: list[float] = []
    for chunk in range(-(-frames // CHUNK)):
        try:
            result = Fuzzer(venue, seed + chunk).run(min(CHUNK, frames - chunk * CHUNK))
        except BaseException:
            print(f"{venue}: escaped with --seed {seed + chunk} --frames {CHUNK}", file=sys.stderr)
            raise
        gc.collect()  # worlds of past chunks are cycles
        memory.append(resident_mb())
        counters.update(result.counters)
        uncounted.update(result.uncounted)
        for name in ("frames", "counted", "pages", "connections", "feeds"):
            total[name] += getattr(result, name)
    growth = max(memory[len(memory) // 2 :]) - memory[min(1, len(memory) - 1)]
    malformed = {name: count for name, count in sorted(counters.items()) if name.startswith("malformed.")}
    return {
        "venue": venue,
        **total,
        "malformed": sum(malformed.values()),
        **malformed,
        "uncounted": dict(uncounted.most_common(5)),
        "memory_mb": round(memory[-1], 1),
        "growth_mb": round(growth, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> int:
    """Print the figures; 1 if a message was not counted or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venue", choices=[*FACTS, "all"], default="all")
    parser.add_argument("--frames", type=int, default=100_000, help="of each venue")
    parser.add_argument("--seed", type=int, default=1000, help="of the first chunk; the next has the next")
    parser.add_argument("--json", action="store_true", help="print one JSON object a venue")
    arguments = parser.parse_args()
    failed = 0
    for venue in FACTS if arguments.venue == "all" else (arguments.venue,):
        figures = fuzz(venue, arguments.frames, arguments.seed)
        if arguments.json:
            print(json.dumps(figures), flush=True)
        else:
            causes = ", ".join(
                f"{count:,d} {name[10:]}" for name, count in figures.items() if name[:10] == "malformed."
            )
            print(
                f"{venue}: {figures['frames']:,d} damaged messages, {figures['counted']:,d} counted; malformed"
                f" {figures['malformed']:,d} ({causes}); {figures['pages']:,d} pages;"
                f" memory {figures['memory_mb']:.0f} MB, {figures['growth_mb']:+.1f} MB; {figures['seconds']:.0f} s",
                flush=True,
            )
        if figures["counted"] != figures["frames"]:
            print(f"{venue}: not counted: {figures['uncounted']}", file=sys.stderr)
            failed = 1
        if figures["growth_mb"] > MOST_GROWTH_MB:
            print(f"{venue}: memory grew by {figures['growth_mb']} MB", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
