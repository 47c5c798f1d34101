"""What a ticker costs the Bybit protocol: to receive, and to decode and turn into columns at the tick.

    OPENBLAS_NUM_THREADS=1 python -m tests.bench.bench_bybit

Microseconds a message over the tickers of one connection of a simulated Bybit: the best of several rounds, because other work on
the machine only ever adds, and the median.
"""

from __future__ import annotations

import json
import statistics
import time

from tests.feeds.bybit_frames import START_MS
from tests.feeds.bybit_memory import World
from volsurf.feeds.bybit import Bybit

_ROUNDS = 200


def main() -> None:
    """Print one JSON object."""
    world = World(("BTC",))
    (wire,) = world.connect([Bybit(["BTC_USDT"])])
    venue = wire.venue
    rows = list(venue._link.catalogue.rows.values())
    names = [venue.universe[row].symbol for row in rows]
    tickers = world.exchange.renderer.tickers([world.exchange.listing.row_of[name] for name in names])
    tails = [
        (f'{{"topic":"tickers.{name}","ts":', json.dumps(data, separators=(",", ":")))
        for name, data in zip(names, tickers, strict=True)
    ]
    receive: list[float] = []
    again: list[float] = []
    take: list[float] = []
    now = world.now
    for number in range(_ROUNDS):
        stamp = START_MS * 2 + number
        frames = [
            f'{head}{stamp},"type":"snapshot","id":"x-1-{stamp}","data":{data}}}'.encode() for head, data in tails
        ]
        now += 10_000_000
        for results in (receive, again):
            # The first comes to an empty store, as at 100 Hz; the second overwrites, as in a flood.
            start = time.perf_counter_ns()
            for frame in frames:
                venue.receive(frame, now)
            results.append((time.perf_counter_ns() - start) / len(frames))
        start = time.perf_counter_ns()
        batch = venue.take_quotes(now)
        take.append((time.perf_counter_ns() - start) / len(frames))
        assert batch is not None
        assert len(batch) == len(frames) + 1
    figures = {
        "tickers": len(names),
        "bytes": round(statistics.mean(len(frame) for frame in frames)),
        **_figures("receive", receive),
        **_figures("receive_over_unread", again),
        **_figures("take", take),
    }
    print(json.dumps(figures))


def _figures(name: str, nanoseconds: list[float]) -> dict[str, float]:
    best, median = min(nanoseconds) / 1000, statistics.median(nanoseconds) / 1000
    return {f"{name}_us": round(best, 3), f"{name}_median_us": round(median, 3)}


if __name__ == "__main__":
    main()
