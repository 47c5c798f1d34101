"""`python -m tests.bench.bench_binance`: what it costs to hear Binance, on one core.

Prints the nanoseconds of one book ticker as it is received, of one that is decoded at a tick, and the milliseconds of a chain
of 752 options received, decoded and turned into columns. Medians of many runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from tests.feeds.binance_frames import START_MS, Desk, book_ticker, index, listing, mark_row, marks

OPTIONS = 752


def chain() -> list[str]:
    """Names of options around the money."""
    expiries = ("270122", "270129", "270226", "270326")
    return [f"BTC-{e}-{60_000 + 450 * i}-{k}" for e in expiries for i in range(OPTIONS // 8) for k in "CP"]


def median_of(run: Callable[[], None], times: int) -> float:
    """Median seconds of a run, of the processor's time."""
    found = []
    for _ in range(times):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return statistics.median(found)


def measure(runs: int) -> dict[str, float]:
    """The figures."""
    names = chain()
    desk = Desk(["BTC"], [listing(name) for name in names]).connect()
    desk.wait(2, tell=False)
    desk.say(index())
    market, public = desk.venues
    followed = [market_symbol.upper() for market_symbol in (s.partition("@")[0] for s in public._link.granted)]
    clock = [desk.now]
    frames = [
        book_ticker(name, START_MS + k, 39_000_000_000 + 7 * k, b=f"{6000 + k % 90}.000")
        for k in range(50)
        for name in followed
    ]

    def receive() -> None:
        take, now = public.receive, clock[0]
        for frame in frames:
            take(frame, now)
            now += 100
        clock[0] = now

    received = median_of(receive, runs) / len(frames)
    public.take_quotes(clock[0])

    def tick() -> None:
        for frame in frames[: len(followed)]:
            public.receive(frame, clock[0])
        public.take_quotes(clock[0])
        public._group.quoted.clear()

    ticked = median_of(tick, runs * 5) / len(followed)
    rows = [mark_row(name, mp=f"{5 + k * 11.25:.3f}", b="0.44120000", a="0.44910000") for k, name in enumerate(names)]
    frame = marks(*rows)

    def decode() -> None:
        market.receive(frame, clock[0])
        market.take_quotes(clock[0])

    decode()
    return {
        "book_ticker_receive_ns": round(received * 1e9),
        "book_ticker_decoded_ns": round(ticked * 1e9),
        "chain_rows": len(names),
        "chain_bytes": len(frame),
        "chain_ms": round(median_of(decode, runs * 10) * 1e3, 3),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="repetitions of which the median is taken")
    print(json.dumps(measure(parser.parse_args().runs)))


if __name__ == "__main__":
    main()
