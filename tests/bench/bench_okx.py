"""Microseconds an OKX message costs to receive, by kind, and a tick's conversion to columns.

python -m tests.bench.bench_okx [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from tests.bench.bench_deribit import microseconds
from tests.feeds.okx_frames import (
    START,
    START_MS,
    Server,
    bbo,
    book,
    index,
    instrument_row,
    push,
    summary,
    summary_row,
    ticker,
)
from volsurf.feeds.okx import Okx
from volsurf.feeds.venue_feed import VenueFeed

EXPIRIES = ("270116", "270117", "270122", "270129", "270226", "270326", "270430", "270625", "270924", "271231")
NAMES = [
    f"BTC-USD-{expiry}-{strike}-{side}"
    for expiry in EXPIRIES
    for strike in range(40_000, 140_000, 2_000)
    for side in "CP"
]


def ready_venue(**options: Any) -> Okx:
    """A connection subscribed to 1,000 options."""
    venue = Okx(["BTC"], url="ws://okx.test", **options)
    server = Server(venue, [instrument_row(name) for name in NAMES]).connect()
    server.wait(3)
    assert venue.is_ready
    return venue


def measure() -> dict[str, float]:
    """Every figure: microseconds a message, or a row where it says so."""
    rounds = range(10)
    frames = [
        bbo(name, (f"0.00{40 + (i + r) % 50}", str(100 + r)), ts=str(START_MS + 100 * r), seqId=10_000 + r)
        for r in rounds
        for i, name in enumerate(NAMES)
    ]
    tickers = [ticker(name, bidSz=str(100 + r)) for r in rounds for name in NAMES]
    summaries = [summary(*[summary_row(n) for n in NAMES[start : start + 65]]) for start in range(0, 1000, 65)]
    result = {"bbo_bytes": statistics.fmean(map(len, frames)), "ticker_bytes": statistics.fmean(map(len, tickers))}

    def receiving(venue: Okx, messages: list[bytes], rows: int = 0) -> Any:
        """Feed messages, taking a batch after so many of them, or none."""

        def run() -> None:
            receive = venue.receive
            if rows:
                for start in range(0, len(messages), rows):
                    for message in messages[start : start + rows]:
                        receive(message, START)
                    venue.take_quotes(START)
            else:
                for message in messages:
                    receive(message, START)
                venue.events()

        return run

    for kind, venue, messages in (
        ("bbo", ready_venue(), frames),
        ("ticker", ready_venue(quotes="tickers"), tickers),
    ):
        result[f"{kind}_receive_us"] = microseconds(receiving(venue, messages), len(messages))
        venue.take_quotes(START)
        for rows in (100, 1000):
            taken = microseconds(receiving(venue, messages, rows), len(messages))
            result[f"{kind}_with_columns_{rows}_rows_us"] = taken
    venue = ready_venue()
    result["summary_receive_us"] = microseconds(receiving(venue, summaries[:1]), 1)
    per_row = microseconds(receiving(venue, summaries, len(summaries)), 1000)
    result["summary_with_columns_us_per_row"] = per_row
    feed = VenueFeed([venue], clock=lambda: START)

    def merged() -> None:
        for start in range(0, len(frames), 1000):
            for frame in frames[start : start + 1000]:
                venue.receive(frame, START)
            feed.collect()

    result["bbo_to_merged_batch_us"] = microseconds(merged, len(frames))
    indexes = [index("BTC-USD", 76_900 + i) for i in range(1000)]
    result["index_us"] = microseconds(receiving(venue, indexes), len(indexes))
    with_books = ready_venue(books=True)
    books = [book(NAMES[0], 1, -1)] + [book(NAMES[0], i + 1, i, [("0.0065", str(40 + i))]) for i in range(1, 1000)]
    result["book_us"] = microseconds(receiving(with_books, books), len(books))
    row = {"instId": NAMES[0], "px": "0.0195", "side": "buy", "sz": "5", "tradeId": "1", "ts": str(START_MS)}
    arg = {"channel": "option-trades", "instType": "OPTION", "instFamily": "BTC-USD"}
    trades = [push(arg, [row | {"instId": name}]) for name in NAMES]
    result["trade_us"] = microseconds(receiving(venue, trades), len(trades))
    return {name: round(value, 3) for name, value in result.items()}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    arguments = parser.parse_args()
    figures = measure()
    for name, value in figures.items():
        print(f"{name:36s} {value:10.3f}")
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
